#pragma once

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "polystill/v1/corpus.pb.h"
#include "polystill/v1/label_store.pb.h"

namespace polystill::soft_labels {

// Which parts of a store hold the records of a unit of the corpus. A file of the corpus is known by its SHA-256,
// wherever it lies. `manifest` must outlive it. Thread-safe.
class StoreUnits {
 public:
  explicit StoreUnits(const v1::LabelStoreManifest& manifest) : manifest_(manifest) {
    for (int i = 0; i < manifest.parts_size(); ++i) {
      const v1::CorpusIndex::Block& unit = manifest.parts(i).unit();
      if (unit.file() < 0 || unit.file() >= manifest.corpus_files_size()) continue;
      parts_[KeyOf(manifest.corpus_files(unit.file()).sha256(), unit)].push_back(i);
    }
  }

  bool HasFile(const std::string& sha256) const {
    for (const v1::CorpusIndex::File& file : manifest_.corpus_files()) {
      if (file.sha256() == sha256) return true;
    }
    return false;
  }

  // Indices into manifest.parts.
  const std::vector<int>& PartsOf(const std::string& file_sha256, const v1::CorpusIndex::Block& unit) const {
    static const auto* const kNone = new std::vector<int>();
    const auto found = parts_.find(KeyOf(file_sha256, unit));
    return found == parts_.end() ? *kNone : found->second;
  }

  int64_t RecordsOf(const std::string& file_sha256, const v1::CorpusIndex::Block& unit,
                    const std::string& language) const {
    int64_t records = 0;
    for (const int part : PartsOf(file_sha256, unit)) {
      const auto& languages = manifest_.parts(part).languages();
      if (const auto found = languages.find(language); found != languages.end()) records += found->second;
    }
    return records;
  }

 private:
  using Key = std::tuple<std::string, int, int64_t, int64_t>;
  static Key KeyOf(const std::string& sha256, const v1::CorpusIndex::Block& unit) {
    return {sha256, unit.row_group(), unit.offset(), unit.length()};
  }

  const v1::LabelStoreManifest& manifest_;
  std::map<Key, std::vector<int>> parts_;
};

}  // namespace polystill::soft_labels
