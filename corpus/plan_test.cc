#include "corpus/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <thread>

#include "corpus/index.h"
#include "corpus/permutation.h"
#include "runtime/counter_rng.h"

namespace polystill::corpus {
namespace {

using Blocks = std::map<std::string, std::vector<int64_t>>;

std::shared_ptr<const v1::CorpusIndex> MakeIndex(const Blocks& blocks) {
  auto index = std::make_shared<v1::CorpusIndex>();
  for (const auto& [name, sizes] : blocks) {
    v1::CorpusIndex::Language& language = *index->add_languages();
    language.set_name(name);
    language.set_records(std::accumulate(sizes.begin(), sizes.end(), int64_t{0}));
    for (const int64_t size : sizes) language.add_blocks()->set_records(size);
  }
  return index;
}

v1::PlanSegment Segment(const v1::CorpusIndex& index, int batch_size, double tau = 0, int64_t window = 0) {
  v1::PlanSegment segment;
  segment.set_algorithm(2);
  segment.set_seed(7);
  segment.set_batch_size(batch_size);
  segment.set_index_digest(IndexDigest(index));
  segment.set_shuffle_window(window);
  segment.mutable_mixture()->set_kind(tau > 0 ? v1::Mixture::KIND_TEMPERATURE : v1::Mixture::KIND_PROPORTIONAL);
  segment.mutable_mixture()->set_tau(tau);
  return segment;
}

Plan MakePlan(const Blocks& blocks, int batch_size, double tau = 0, int64_t window = 0) {
  const auto index = MakeIndex(blocks);
  return Plan::Create(Segment(*index, batch_size, tau, window), index).value();
}

std::vector<RecordRef> Step(const Plan& plan, int64_t step) { return plan.Slice(step, 0, plan.segment().batch_size()); }

// Blocks of 1 to 5 records, so many that they are divided into sections.
std::vector<int64_t> ManyBlocks(int count) {
  std::vector<int64_t> sizes;
  for (int i = 0; i < count; ++i) sizes.push_back(1 + static_cast<int64_t>(Below(Mix64(i), 5)));
  return sizes;
}

// The first `count` records that the plan draws of a language.
std::vector<RecordRef> DrawsOf(const Plan& plan, int language, int64_t count) {
  std::vector<RecordRef> draws;
  for (int64_t step = 0; static_cast<int64_t>(draws.size()) < count; ++step) {
    for (const RecordRef& ref : Step(plan, step)) {
      if (ref.language == language && static_cast<int64_t>(draws.size()) < count) draws.push_back(ref);
    }
  }
  return draws;
}

struct Case {
  const char* name;
  Blocks blocks;
  int batch_size;
  double tau;  // 0: proportional
  int64_t window;
};

std::vector<Case> Cases() {
  return {
      {"three_languages", {{"de", {100, 50, 70}}, {"fr", {10, 11}}, {"ja", {300}}}, 64, 0, 100},
      {"temperature", {{"de", {1000, 500}}, {"fr", {10, 11, 1}}, {"ja", {3}}}, 32, 2.0, 200},
      {"nearly_uniform", {{"de", {900, 500}}, {"fr", {40}}, {"ja", {3}}}, 50, 1000.0, 0},
      {"single_language", {{"de", {7, 8, 9}}}, 5, 0, 10},
      {"single_record", {{"de", {1}}}, 3, 0, 0},
      {"tiny_beside_large", {{"de", {5000, 5000}}, {"fr", {1}}}, 16, 0, 3000},
      {"batch_beyond_corpus", {{"de", {3, 2}}, {"fr", {4}}}, 100, 0, 1},
      {"blocks_of_one", {{"de", std::vector<int64_t>(200, 1)}, {"fr", {30}}}, 7, 0, 20},
      {"many_blocks", {{"de", ManyBlocks(1500)}, {"fr", {30}}, {"ja", ManyBlocks(257)}}, 64, 2.0, 25},
      {"many_blocks_of_one_window", {{"de", ManyBlocks(1500)}}, 100, 0, 0},
  };
}

class PlanPropertyTest : public testing::TestWithParam<Case> {
 protected:
  Plan Make() const { return MakePlan(GetParam().blocks, GetParam().batch_size, GetParam().tau, GetParam().window); }
};

// Each pass holds each record once, and begins where the one before it ended, in the middle of a batch or not.
TEST_P(PlanPropertyTest, EveryPassVisitsEveryRecordOnce) {
  const Plan plan = Make();
  constexpr int kPasses = 3;
  for (int language = 0; language < plan.index().languages_size(); ++language) {
    const int64_t records = plan.index().languages(language).records();
    const std::vector<RecordRef> draws = DrawsOf(plan, language, kPasses * records);
    for (int64_t pass = 0; pass < kPasses; ++pass) {
      std::set<std::pair<int, int64_t>> seen;
      for (int64_t i = pass * records; i < (pass + 1) * records; ++i) {
        ASSERT_EQ(draws[i].pass, pass);
        ASSERT_LT(draws[i].row, plan.index().languages(language).blocks(draws[i].block).records());
        seen.emplace(draws[i].block, draws[i].row);
      }
      ASSERT_EQ(static_cast<int64_t>(seen.size()), records) << "language " << language << ", pass " << pass;
    }
  }
}

TEST_P(PlanPropertyTest, TheGlobalBatchIsTheSameForOneToSevenWorkers) {
  const Plan plan = Make();
  for (const int64_t step :
       {int64_t{0}, int64_t{1}, plan.cycle_steps() - 1, plan.cycle_steps(), int64_t{123'456'789}}) {
    const std::vector<RecordRef> whole = Step(plan, step);
    ASSERT_EQ(static_cast<int>(whole.size()), GetParam().batch_size);
    for (int workers = 1; workers <= 7; ++workers) {
      std::vector<RecordRef> joined;
      for (int rank = 0; rank < workers; ++rank) {
        const Plan::Range range = Plan::SliceOf(GetParam().batch_size, rank, workers);
        const std::vector<RecordRef> slice = plan.Slice(step, range.first, range.last);
        joined.insert(joined.end(), slice.begin(), slice.end());
      }
      ASSERT_EQ(joined, whole) << "step " << step << ", " << workers << " workers";
    }
  }
}

TEST_P(PlanPropertyTest, QuotasAreExactOverEveryCycle) {
  const Plan plan = Make();
  const auto& quotas = plan.quotas();
  EXPECT_GE(*std::min_element(quotas.begin(), quotas.end()), 1);
  EXPECT_GE(plan.cycle_steps() * GetParam().batch_size, 65'536);
  EXPECT_EQ(std::accumulate(quotas.begin(), quotas.end(), int64_t{0}), plan.cycle_steps() * GetParam().batch_size);
  for (int64_t cycle = 0; cycle < 2; ++cycle) {
    std::vector<int64_t> drawn(quotas.size());
    for (int64_t step = 0; step < plan.cycle_steps(); ++step) {
      for (const RecordRef& ref : Step(plan, cycle * plan.cycle_steps() + step)) ++drawn[ref.language];
    }
    ASSERT_EQ(drawn, quotas) << "cycle " << cycle;
  }
}

// A run that is resized at every step, and a worker that comes anew at any of them, draw what one worker draws.
TEST_P(PlanPropertyTest, ResizingAtEveryStepLeavesTheSequence) {
  const Plan steady = Make();
  const Plan resized = Make();
  for (int64_t i = 0; i < 300; ++i) {
    const int64_t step = i < 200 ? i : static_cast<int64_t>(CombineKey(i) % 1'000'000);
    const int workers = 1 + static_cast<int>(CombineKey(i, 1) % 5);
    std::vector<std::vector<RecordRef>> slices(workers);
    // In an order in which no single worker would ask.
    for (int rank = workers - 1; rank >= 0; --rank) {
      const Plan::Range range = Plan::SliceOf(GetParam().batch_size, rank, workers);
      slices[rank] = resized.Slice(step, range.first, range.last);
    }
    std::vector<RecordRef> joined;
    for (const auto& slice : slices) joined.insert(joined.end(), slice.begin(), slice.end());
    ASSERT_EQ(joined, Step(steady, step)) << "step " << step << ", " << workers << " workers";
  }
}

INSTANTIATE_TEST_SUITE_P(All, PlanPropertyTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return std::string(info.param.name); });

// The corpus's ordinal of each record in the order of the first pass.
std::vector<int64_t> OrderOf(const Plan& plan, int language, int64_t pass) {
  const auto& source = plan.index().languages(language);
  std::vector<int64_t> starts = {0};
  for (const auto& block : source.blocks()) starts.push_back(starts.back() + block.records());
  std::vector<int64_t> order;
  for (const RecordRef& ref : DrawsOf(plan, language, (pass + 1) * source.records())) {
    if (ref.pass == pass) order.push_back(starts[ref.block] + ref.row);
  }
  return order;
}

// Records of each tenth of the corpus lie in each tenth of the pass equally often: chi-square with 81 degrees of
// freedom below its 99.99% quantile, where `together` records that move as one count as one; and the mean distance from
// the old place is a third of the length.
void ExpectShuffled(const std::vector<int64_t>& order, double together = 1) {
  const double n = static_cast<double>(order.size());
  double counts[10][10] = {};
  double moved = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    ++counts[i * 10 / order.size()][order[i] * 10 / static_cast<int64_t>(order.size())];
    moved += std::abs(static_cast<double>(i) - static_cast<double>(order[i]));
  }
  double chi_square = 0;
  for (const auto& row : counts) {
    for (const double count : row) chi_square += (count - n / 100) * (count - n / 100) / (n / 100);
  }
  EXPECT_LT(chi_square / together, 137.0);
  EXPECT_NEAR(moved / n / n, 1.0 / 3, 0.02);
}

TEST(PlanTest, OrdersLookShuffled) {
  const Plan one_window = MakePlan({{"de", std::vector<int64_t>(10, 1000)}}, 100);
  ExpectShuffled(OrderOf(one_window, 0, 0));
  ExpectShuffled(OrderOf(one_window, 0, 1));
  // Windows of two of 500 blocks: it is the order of the blocks that mixes.
  ExpectShuffled(OrderOf(MakePlan({{"de", std::vector<int64_t>(500, 20)}}, 100, 0, 40), 0, 0), 20);
  // Sections of 44 or 45 blocks.
  ExpectShuffled(OrderOf(MakePlan({{"de", std::vector<int64_t>(2000, 5)}}, 100, 0, 40), 0, 0), 5);
}

TEST(PlanTest, PassesHaveOrdersOfTheirOwn) {
  const Plan plan = MakePlan({{"de", {200, 300, 500}}}, 100, 0, 400);
  const std::vector<int64_t> first = OrderOf(plan, 0, 0);
  const std::vector<int64_t> second = OrderOf(plan, 0, 1);
  int same = 0;
  for (size_t i = 0; i < first.size(); ++i) same += first[i] == second[i];
  EXPECT_LT(same, 15);  // 1 is expected of two random orders
}

// A pass reads a window's blocks together: at any time as few of them are needed as a window holds.
TEST(PlanTest, ReadsBlocksWindowByWindow) {
  const Plan plan = MakePlan({{"de", std::vector<int64_t>(100, 50)}}, 10, 0, 500);
  const std::vector<RecordRef> draws = DrawsOf(plan, 0, 5000);
  for (size_t window = 0; window < 10; ++window) {
    std::set<int> blocks;
    for (size_t i = 0; i < 500; ++i) blocks.insert(draws[window * 500 + i].block);
    EXPECT_EQ(blocks.size(), 10u);
  }
}

TEST(PlanTest, AnotherLanguageLeavesTheOrderOfTheOthers) {
  const Blocks two = {{"de", {100, 50}}, {"ja", {300}}};
  Blocks three = two;
  three["af"] = {70, 80};
  const Plan before = MakePlan(two, 64, 2.0);
  const Plan after = MakePlan(three, 64, 2.0);
  EXPECT_EQ(OrderOf(before, 0, 1), OrderOf(after, 1, 1));
  EXPECT_EQ(OrderOf(before, 1, 0), OrderOf(after, 2, 0));
  EXPECT_NE(OrderOf(before, 0, 0), OrderOf(before, 0, 1));
}

TEST(PlanTest, SeedChangesTheOrder) {
  const auto index = MakeIndex({{"de", {1000}}});
  v1::PlanSegment segment = Segment(*index, 10);
  const Plan first = Plan::Create(segment, index).value();
  segment.set_seed(8);
  EXPECT_NE(Step(first, 0), Step(Plan::Create(segment, index).value(), 0));
}

TEST(PlanTest, StepsCountFromTheSegmentsFirst) {
  const auto index = MakeIndex({{"de", {1000}}, {"fr", {30}}});
  v1::PlanSegment segment = Segment(*index, 10);
  const Plan from_zero = Plan::Create(segment, index).value();
  segment.set_first_step(500);
  const Plan later = Plan::Create(segment, index).value();
  EXPECT_EQ(Step(later, 503), Step(from_zero, 3));
}

TEST(PlanTest, ThreadsSeeTheSamePlan) {
  const Blocks blocks = {{"de", {100, 200}}, {"fr", {5}}};
  const Plan shared = MakePlan(blocks, 32);
  std::vector<std::vector<std::vector<RecordRef>>> seen(4);
  std::vector<std::thread> threads;
  threads.reserve(seen.size());
  for (auto& steps : seen) {
    threads.emplace_back([&] {
      for (int64_t step = 0; step < 200; ++step) steps.push_back(Step(shared, step * 17));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Plan alone = MakePlan(blocks, 32);
  for (int64_t step = 0; step < 200; ++step) {
    for (const auto& steps : seen) ASSERT_EQ(steps[step], Step(alone, step * 17));
  }
}

// Steps of a plan, a line each, records as language:pass:block:row.
std::string TextOf(const Plan& plan, const std::vector<int64_t>& steps) {
  std::string text;
  for (const int64_t step : steps) {
    for (const RecordRef& ref : Step(plan, step)) {
      text += std::to_string(ref.language) + ":" + std::to_string(ref.pass) + ":" + std::to_string(ref.block) + ":" +
              std::to_string(ref.row) + " ";
    }
    text += "\n";
  }
  return text;
}

// The order is frozen: runs that are resumed by another build must draw what the first build would have drawn. Whoever
// changes it on purpose raises the algorithm's version.
TEST(PlanTest, AlgorithmTwoIsFrozen) {
  const Plan plan = MakePlan({{"de", {5000, 3000, 40}}, {"fr", {700}}, {"ja", {1}}}, 8, 2.0, 4000);
  EXPECT_EQ(plan.cycle_steps(), 8192);
  EXPECT_THAT(plan.quotas(), testing::ElementsAre(50172, 14804, 560));
  // As it was in algorithm 1, whose order of languages of few blocks is the same.
  EXPECT_EQ(
      TextOf(plan, {0, 9'000, 1'000'000}),
      "0:0:0:1340 0:0:0:3924 1:0:0:647 0:0:1:1523 0:0:2:15 0:0:0:3237 1:0:0:104 0:0:1:1383 \n"
      "1:23:0:256 0:6:1:1861 0:6:1:1661 0:6:1:1771 1:23:0:62 0:6:1:2263 0:6:1:1850 0:6:1:650 \n"
      "0:761:0:4219 0:761:1:2400 1:2581:0:71 0:761:0:1277 0:761:0:2010 0:761:0:3306 1:2581:0:655 0:761:0:3321 \n");
}

TEST(PlanTest, AlgorithmTwoIsFrozenForManyBlocks) {
  const Plan plan = MakePlan({{"de", std::vector<int64_t>(2000, 100)}, {"fr", ManyBlocks(257)}}, 8, 100.0, 400);
  EXPECT_EQ(TextOf(plan, {0, 9'000, 1'000'000}),
            "1:0:101:0 0:0:452:88 1:0:76:0 0:0:672:34 1:0:255:1 0:0:672:6 0:0:452:55 1:0:134:0 \n"
            "0:0:747:24 1:44:116:1 0:0:439:55 1:44:51:0 0:0:747:90 1:44:8:3 0:0:439:51 1:44:34:0 \n"
            "1:4892:162:0 0:20:1653:0 1:4892:76:0 0:20:289:3 1:4892:134:4 0:20:641:13 1:4892:135:2 0:20:861:89 \n");
}

TEST(PlanTest, SlicesAreContiguousAndEven) {
  for (const int64_t batch_size : {1, 5, 64, 65}) {
    for (int world = 1; world <= 9; ++world) {
      int64_t next = 0;
      for (int rank = 0; rank < world; ++rank) {
        const Plan::Range range = Plan::SliceOf(batch_size, rank, world);
        EXPECT_EQ(range.first, next);
        next = range.last;
        EXPECT_GE(range.last - range.first, batch_size / world);
        EXPECT_LE(range.last - range.first, batch_size / world + 1);
      }
      EXPECT_EQ(next, batch_size);
    }
  }
}

TEST(PlanTest, StepsForEpochs) {
  const Plan plan = MakePlan({{"de", {90}}, {"fr", {10}}}, 8);
  EXPECT_EQ(plan.StepsForEpochs(1).value(), 13);
  EXPECT_EQ(plan.StepsForEpochs(2).value(), 25);
  EXPECT_EQ(plan.StepsForEpochs(0.08).value(), 1);
  EXPECT_EQ(plan.StepsForEpochs(1e-9).value(), 1);
  // 0.72 * 100 / 8 is 9 but for rounding.
  EXPECT_EQ(plan.StepsForEpochs(0.72).value(), 9);
  for (const double endless : {1e300, 1e17, std::numeric_limits<double>::infinity()}) {
    const absl::Status status = plan.StepsForEpochs(endless).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << endless;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("epochs"));
  }
}

TEST(PlanTest, UniMaxEndsWithItsCaps) {
  const auto index = MakeIndex({{"de", {90}}, {"fr", {10}}});
  v1::PlanSegment segment = Segment(*index, 8);
  segment.mutable_mixture()->set_kind(v1::Mixture::KIND_UNIMAX);
  segment.mutable_mixture()->set_max_epochs(2);
  segment.set_budget(100);
  const Plan plan = Plan::Create(segment, index).value();
  EXPECT_EQ(plan.StepsForEpochs(1).value(), 13);
  EXPECT_EQ(plan.StepsForEpochs(5).value(), 25);
  // fr: 2 passes of 10, de: the other 80.
  std::map<int, int> draws;
  for (int64_t step = 0; step < 13; ++step) {
    for (const RecordRef& ref : Step(plan, step)) ++draws[ref.language];
  }
  EXPECT_NEAR(draws[0], 104 * 0.8, 1.5);
  EXPECT_NEAR(draws[1], 104 * 0.2, 1.5);
}

TEST(PlanTest, RefusesWhatDoesNotFit) {
  struct Refusal {
    const char* message;
    void (*spoil)(v1::PlanSegment*, v1::CorpusIndex*);
  };
  const Refusal refusals[] = {
      {"algorithm is 1", [](v1::PlanSegment* s, v1::CorpusIndex*) { s->set_algorithm(1); }},
      {"batch_size", [](v1::PlanSegment* s, v1::CorpusIndex*) { s->set_batch_size(0); }},
      {"shuffle_window", [](v1::PlanSegment* s, v1::CorpusIndex*) { s->set_shuffle_window(-1); }},
      {"tau",
       [](v1::PlanSegment* s, v1::CorpusIndex*) {
         s->mutable_mixture()->set_kind(v1::Mixture::KIND_TEMPERATURE);
         s->mutable_mixture()->set_tau(0.5);
       }},
      {"no language", [](v1::PlanSegment*, v1::CorpusIndex* i) { i->clear_languages(); }},
      {"empty block", [](v1::PlanSegment*, v1::CorpusIndex* i) { i->mutable_languages(0)->add_blocks(); }},
      {"block of 4294967296 records",
       [](v1::PlanSegment*, v1::CorpusIndex* i) {
         i->mutable_languages(0)->mutable_blocks(0)->set_records(int64_t{1} << 32);
       }},
      {"claims 11 records", [](v1::PlanSegment*, v1::CorpusIndex* i) { i->mutable_languages(0)->set_records(11); }},
      {"the corpus or the selection changed",
       [](v1::PlanSegment*, v1::CorpusIndex* i) { i->add_files()->set_sha256("other"); }},
  };
  for (const Refusal& refusal : refusals) {
    auto index = std::make_shared<v1::CorpusIndex>(*MakeIndex({{"de", {10}}}));
    v1::PlanSegment segment = Segment(*index, 4);
    refusal.spoil(&segment, index.get());
    const absl::Status status = Plan::Create(segment, index).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(refusal.message));
  }
}

}  // namespace
}  // namespace polystill::corpus
