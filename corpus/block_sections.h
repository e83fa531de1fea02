#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "polystill/v1/corpus.pb.h"

namespace polystill::corpus {

// The blocks of one language, divided into sections that keep together in every pass: then beginning a pass, and
// finding a place in it, takes O(sqrt(blocks)) and not O(blocks). Of S sections the k-th holds the blocks k, k + S, k +
// 2S, ..., so that each is spread over the whole corpus. The blocks of a language that has few are one section.
//
// Holds 4 bytes a block. Immutable.
class BlockSections {
 public:
  // Of up to so many blocks there is one section; of n more there are sqrt(n), rounded down.
  static constexpr int kUndivided = 256;

  // Each block holds fewer than 2^32 records.
  explicit BlockSections(const v1::CorpusIndex::Language& language);

  int count() const { return static_cast<int>(records_.size()); }
  // Records of a section.
  int64_t records(int section) const { return records_[section]; }
  // Records of each block of a section.
  std::span<const uint32_t> blocks(int section) const;
  // Index into language.blocks of the i-th block of a section.
  int32_t BlockAt(int section, int i) const { return section + i * count(); }

 private:
  int64_t FirstOf(int section) const;

  // Records of the blocks, section by section, and of the sections.
  std::vector<uint32_t> block_records_;
  std::vector<int64_t> records_;
};

}  // namespace polystill::corpus
