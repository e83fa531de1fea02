#include "soft_labels/store_parts.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_format.h"

namespace polystill::soft_labels {

PartPlan::PartPlan(const v1::CorpusIndex& index, int64_t most_records) : index_(index) {
  std::map<std::tuple<int, int, int64_t>, std::vector<LanguageBlock>> units;
  for (int language = 0; language < index.languages_size(); ++language) {
    const auto& blocks = index.languages(language).blocks();
    for (int block = 0; block < blocks.size(); ++block) {
      units[{blocks[block].file(), blocks[block].row_group(), blocks[block].offset()}].push_back({language, block});
    }
  }
  for (auto& [place, blocks] : units) {
    int64_t records = 0;
    for (const LanguageBlock& of : blocks) records += index.languages(of.language).blocks(of.block).records();
    for (int64_t first = 0; first < records; first += most_records) {
      parts_.push_back({units_.size(), first, std::min(records, first + most_records)});
    }
    units_.push_back(std::move(blocks));
    records_ += records;
  }
}

PlannedPart PartPlan::Part(int64_t i) const {
  const Extent& extent = parts_.at(i);
  PlannedPart part;
  part.name = absl::StrFormat("part-%06d.parquet", i);
  int64_t before = 0;  // records of the unit's earlier languages
  for (const LanguageBlock& of : units_[extent.unit]) {
    const v1::CorpusIndex::Language& language = index_.languages(of.language);
    const v1::CorpusIndex::Block& block = language.blocks(of.block);
    const int64_t first = std::max<int64_t>(extent.first - before, 0);
    const int64_t last = std::min(extent.last - before, block.records());
    for (int64_t row = first; row < last; ++row) part.records.push_back({of.language, 0, of.block, row});
    if (first < last) part.languages[language.name()] = last - first;
    part.unit = block;
    before += block.records();
  }
  part.unit.set_records(extent.last - extent.first);
  return part;
}

}  // namespace polystill::soft_labels
