#include "soft_labels/store_parts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <tuple>

namespace polystill::soft_labels {
namespace {

using testing::ElementsAre;
using testing::Pair;

// Two row groups: 5 records of de and 3 of fr in the first, 2 of fr in the second.
v1::CorpusIndex SomeIndex() {
  v1::CorpusIndex index;
  const auto add = [](v1::CorpusIndex::Language* language, int row_group, int64_t records) {
    v1::CorpusIndex::Block& block = *language->add_blocks();
    block.set_row_group(row_group);
    block.set_records(records);
  };
  v1::CorpusIndex::Language& de = *index.add_languages();
  de.set_name("de");
  add(&de, 0, 5);
  v1::CorpusIndex::Language& fr = *index.add_languages();
  fr.set_name("fr");
  add(&fr, 0, 3);
  add(&fr, 1, 2);
  return index;
}

TEST(PartPlan, EveryRecordIsInOnePart) {
  const v1::CorpusIndex index = SomeIndex();
  for (const int64_t most : {1, 3, 4, 8, 1000}) {
    const PartPlan plan(index, most);
    EXPECT_EQ(plan.records(), 10);
    std::set<std::tuple<int, int, int64_t>> seen;
    std::set<std::string> names;
    for (int64_t i = 0; i < plan.size(); ++i) {
      const PlannedPart part = plan.Part(i);
      EXPECT_TRUE(names.insert(part.name).second);
      EXPECT_LE(static_cast<int64_t>(part.records.size()), most);
      EXPECT_EQ(static_cast<int64_t>(part.records.size()), part.unit.records());
      for (const corpus::RecordRef& ref : part.records) {
        EXPECT_TRUE(seen.insert({ref.language, ref.block, ref.row}).second);
        EXPECT_EQ(index.languages(ref.language).blocks(ref.block).row_group(), part.unit.row_group());
      }
    }
    EXPECT_EQ(seen.size(), 10u);
  }
}

TEST(PartPlan, CutsAUnitInItsOrder) {
  const v1::CorpusIndex index = SomeIndex();
  const PartPlan plan(index, 4);
  ASSERT_EQ(plan.size(), 3);
  EXPECT_EQ(plan.Part(1).name, "part-000001.parquet");
  EXPECT_THAT(plan.Part(0).languages, ElementsAre(Pair("de", 4)));
  EXPECT_THAT(plan.Part(1).languages, ElementsAre(Pair("de", 1), Pair("fr", 3)));
  EXPECT_EQ(plan.Part(1).records[1], (corpus::RecordRef{1, 0, 0, 0}));
  EXPECT_EQ(plan.Part(2).unit.row_group(), 1);
}

}  // namespace
}  // namespace polystill::soft_labels
