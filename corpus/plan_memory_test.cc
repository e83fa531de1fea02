#include <gtest/gtest.h>
#include <malloc.h>

#include <memory>

#include "corpus/index.h"
#include "corpus/permutation.h"
#include "corpus/plan.h"
#include "runtime/counter_rng.h"

namespace polystill::corpus {
namespace {

constexpr int kBlocks = 300'000;
constexpr int64_t kBlockRecords = 10'000;
constexpr int kBatch = 1000;

// Sanitizers have allocators of their own, which mallinfo2 knows nothing of.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCounts = false;
#else
constexpr bool kCounts = true;
#endif

int64_t AllocatedBytes() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<int64_t>(info.uordblks + info.hblkhd);
}

// What a plan holds is 4 bytes a block and little more, whatever steps were asked for: never the order of all blocks.
TEST(PlanMemoryTest, GrowsByFourBytesABlock) {
  if (!kCounts) GTEST_SKIP() << "allocations cannot be counted in this build";
  auto index = std::make_shared<v1::CorpusIndex>();
  v1::CorpusIndex::Language& language = *index->add_languages();
  language.set_name("de");
  language.set_records(kBlocks * kBlockRecords);
  for (int block = 0; block < kBlocks; ++block) language.add_blocks()->set_records(kBlockRecords);
  v1::PlanSegment segment;
  segment.set_algorithm(2);
  segment.set_batch_size(kBatch);
  segment.set_index_digest(IndexDigest(*index));

  const int64_t before = AllocatedBytes();
  const Plan plan = Plan::Create(segment, index).value();
  for (uint64_t i = 0; i < 100; ++i) {
    const auto step = static_cast<int64_t>(Below(Mix64(i), 10 * kBlocks * kBlockRecords / kBatch));
    ASSERT_EQ(plan.Slice(step, 0, kBatch).size(), static_cast<size_t>(kBatch));
  }
  const int64_t held = AllocatedBytes() - before;
  EXPECT_GE(held, 4 * kBlocks);
  EXPECT_LT(held, 4 * kBlocks + 200'000);
}

}  // namespace
}  // namespace polystill::corpus
