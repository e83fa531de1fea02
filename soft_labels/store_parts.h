#pragma once

#include <map>
#include <string>
#include <vector>

#include "corpus/plan.h"
#include "polystill/v1/corpus.pb.h"

namespace polystill::soft_labels {

// Records that a part of a label store holds, in its order.
struct PlannedPart {
  // Its file below labels/.
  std::string name;
  // Where in the corpus they are; `records` is their number.
  v1::CorpusIndex::Block unit;
  std::vector<corpus::RecordRef> records;
  // Language -> records.
  std::map<std::string, int64_t> languages;
};

// Cuts an index into parts: no part has records of two units (a Parquet row group, a range of JSON lines), or more than
// `most_records`. A pure function: whoever goes on with a job finds the same parts.
class PartPlan {
 public:
  // `index` must outlive it.
  PartPlan(const v1::CorpusIndex& index, int64_t most_records);

  int64_t size() const { return static_cast<int64_t>(parts_.size()); }
  int64_t records() const { return records_; }
  PlannedPart Part(int64_t i) const;

 private:
  // A unit's blocks, one a language, and which of its records, counted over all of them.
  struct Extent {
    size_t unit;
    int64_t first;
    int64_t last;
  };
  struct LanguageBlock {
    int language;
    int block;
  };

  const v1::CorpusIndex& index_;
  std::vector<std::vector<LanguageBlock>> units_;
  std::vector<Extent> parts_;
  int64_t records_ = 0;
};

}  // namespace polystill::soft_labels
