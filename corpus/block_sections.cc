#include "corpus/block_sections.h"

#include <algorithm>
#include <cmath>

namespace polystill::corpus {
namespace {

int SectionsOf(int blocks) {
  return blocks <= BlockSections::kUndivided ? 1 : static_cast<int>(std::sqrt(static_cast<double>(blocks)));
}

}  // namespace

BlockSections::BlockSections(const v1::CorpusIndex::Language& language)
    : block_records_(language.blocks_size()), records_(SectionsOf(language.blocks_size())) {
  std::vector<int64_t> next;
  next.reserve(count());
  for (int section = 0; section < count(); ++section) next.push_back(FirstOf(section));
  for (int block = 0; block < language.blocks_size(); ++block) {
    const int section = block % count();
    const int64_t records = language.blocks(block).records();
    block_records_[next[section]++] = static_cast<uint32_t>(records);
    records_[section] += records;
  }
}

std::span<const uint32_t> BlockSections::blocks(int section) const {
  const int64_t first = FirstOf(section);
  return std::span(block_records_).subspan(first, FirstOf(section + 1) - first);
}

int64_t BlockSections::FirstOf(int section) const {
  const auto blocks = static_cast<int64_t>(block_records_.size());
  return section * (blocks / count()) + std::min<int64_t>(section, blocks % count());
}

}  // namespace polystill::corpus
