#include "teacher_server/label_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <optional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

namespace polystill::teacher_server {
namespace {

namespace fs = std::filesystem;
using Label = LabelCache::Label;
using Lease = LabelCache::Lease;
using testing::ElementsAre;

Label MakeLabel(const std::string& bytes) { return std::make_shared<const std::string>(bytes); }

std::string Key(int number) {
  std::string key = absl::StrCat("key ", number);
  key.resize(LabelSegments::kKeyBytes, '.');
  return key;
}

class LabelCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "label_cache-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    Open();
  }
  void TearDown() override {
    leases_.clear();
    cache_.reset();
    fs::remove_all(folder_);
  }

  void Open() {
    cache_.reset();
    auto segments = LabelSegments::Open({.folder = folder_, .max_bytes = 16 << 20});
    ASSERT_TRUE(segments.ok()) << segments.status();
    cache_ = std::make_unique<LabelCache>(*std::move(segments), nullptr);
  }

  // Asks; what becomes of it is said in `said_`: "who: label", "who: CODE", "who: lease"; leases are kept by who.
  void Ask(int key, const std::string& who, std::shared_ptr<std::atomic<bool>> cancelled = nullptr) {
    cache_->Ask(Key(key), std::move(cancelled), [this, who](LabelCache::Outcome outcome) {
      if (auto* label = std::get_if<Label>(&outcome)) {
        said_.push_back(absl::StrCat(who, ": ", **label));
      } else if (auto* status = std::get_if<absl::Status>(&outcome)) {
        said_.push_back(absl::StrCat(who, ": ", absl::StatusCodeToString(status->code())));
      } else {
        said_.push_back(absl::StrCat(who, ": lease"));
        leases_.emplace(who, std::get<Lease>(std::move(outcome)));
      }
    });
  }
  void Answer(const std::string& who, absl::StatusOr<Label> answer) {
    auto lease = leases_.extract(who);
    ASSERT_FALSE(lease.empty()) << who;
    std::move(lease.mapped()).Answer(std::move(answer));
  }
  std::vector<std::string> Said() { return std::exchange(said_, {}); }

  std::string folder_;
  std::unique_ptr<LabelCache> cache_;
  std::map<std::string, Lease> leases_;
  std::vector<std::string> said_;
};

TEST_F(LabelCacheTest, WhatWasComputedIsNotComputedAgain) {
  Ask(1, "a");
  EXPECT_THAT(Said(), ElementsAre("a: lease"));
  Answer("a", MakeLabel("one"));
  Ask(1, "b");
  Ask(2, "c");
  EXPECT_THAT(Said(), ElementsAre("b: one", "c: lease"));
  leases_.clear();
  Open();
  Ask(1, "d");
  EXPECT_THAT(Said(), ElementsAre("d: one"));
}

TEST_F(LabelCacheTest, EqualKeysInProgressWaitForTheFirst) {
  for (const char* who : {"a", "b", "c"}) Ask(1, who);
  Ask(2, "other");
  EXPECT_THAT(Said(), ElementsAre("a: lease", "other: lease"));
  Answer("a", MakeLabel("one"));
  EXPECT_THAT(Said(), ElementsAre("b: one", "c: one"));
  Answer("other", MakeLabel("two"));
  Ask(2, "d");
  EXPECT_THAT(Said(), ElementsAre("d: two"));
}

TEST_F(LabelCacheTest, AnErrorIsEverybodysAndIsNotKept) {
  for (const char* who : {"a", "b", "c"}) Ask(1, who);
  Answer("a", absl::InternalError("record 'r1': a logit is not finite"));
  EXPECT_THAT(Said(), ElementsAre("a: lease", "b: INTERNAL", "c: INTERNAL"));
  Ask(1, "d");
  EXPECT_THAT(Said(), ElementsAre("d: lease"));
}

TEST_F(LabelCacheTest, ALeaseWhoseWorkWasRefusedIsTakenOver) {
  for (const char* who : {"a", "b", "c"}) Ask(1, who);
  Answer("a", absl::ResourceExhaustedError("the teacher's queue is full"));
  EXPECT_THAT(Said(), ElementsAre("a: lease", "b: lease"));
  Answer("b", MakeLabel("one"));
  EXPECT_THAT(Said(), ElementsAre("c: one"));
}

TEST_F(LabelCacheTest, ARefusalIsEverybodysAfterSomeHaveMetIt) {
  const std::vector<std::string> callers = {"a", "b", "c", "d", "e", "f", "g"};
  for (const std::string& who : callers) Ask(1, who);
  ASSERT_LT(LabelCache::kMaxTakeovers + 2, static_cast<int>(callers.size()));
  for (int i = 0; i <= LabelCache::kMaxTakeovers; ++i) Answer(callers[i], absl::ResourceExhaustedError(""));
  EXPECT_THAT(Said(), ElementsAre("a: lease", "b: lease", "c: lease", "d: lease", "e: lease", "f: RESOURCE_EXHAUSTED",
                                  "g: RESOURCE_EXHAUSTED"));
  Ask(1, "h");
  EXPECT_THAT(Said(), ElementsAre("h: lease"));
}

TEST_F(LabelCacheTest, ALeaseThatIsGivenUpGoesOn) {
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  Ask(1, "a");
  Ask(1, "b");
  Ask(1, "c", cancelled);
  Ask(1, "d", cancelled);
  Ask(1, "e", std::make_shared<std::atomic<bool>>(false));
  Ask(1, "f");
  Said();
  Answer("a", absl::CancelledError(""));  // its own matter
  EXPECT_THAT(Said(), ElementsAre("b: lease"));
  *cancelled = true;
  Answer("b", absl::DeadlineExceededError(""));
  EXPECT_THAT(Said(), ElementsAre("c: CANCELLED", "d: CANCELLED", "e: lease"));
  leases_.extract("e");  // without a word
  EXPECT_THAT(Said(), ElementsAre("f: lease"));
  Answer("f", MakeLabel("one"));
  Ask(1, "g");
  EXPECT_THAT(Said(), ElementsAre("g: one"));
}

TEST_F(LabelCacheTest, AKeyThatNobodyWantsAnyMoreIsFree) {
  const auto cancelled = std::make_shared<std::atomic<bool>>(true);
  Ask(1, "a");
  Ask(1, "b", cancelled);
  leases_.extract("a");
  EXPECT_THAT(Said(), ElementsAre("a: lease", "b: CANCELLED"));
  Ask(1, "c");
  EXPECT_THAT(Said(), ElementsAre("c: lease"));
}

TEST_F(LabelCacheTest, WhoWaitsMayAskAgain) {
  Ask(1, "a");
  cache_->Ask(Key(1), nullptr, [this](LabelCache::Outcome) {
    Ask(1, "b");  // before the label is on the disk
    Ask(2, "c");
  });
  Said();
  Answer("a", MakeLabel("one"));
  EXPECT_THAT(Said(), ElementsAre("c: lease", "b: one"));
}

TEST_F(LabelCacheTest, ThreadsComputeEachLabelOnce) {
  constexpr int kKeys = 300, kThreads = 4;
  std::vector<std::atomic<int>> computed(kKeys), given(kKeys);
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&] {
        for (int key = 0; key < kKeys; ++key) {
          cache_->Ask(Key(key), nullptr, [&, key](LabelCache::Outcome outcome) {
            if (auto* lease = std::get_if<Lease>(&outcome)) {
              std::move(*lease).Answer(MakeLabel(absl::StrCat(key, "/", computed[key]++)));
              ++given[key];
            } else {
              given[key] += *std::get<Label>(outcome) == absl::StrCat(key, "/0");
            }
          });
        }
      });
    }
  }
  for (int key = 0; key < kKeys; ++key) {
    EXPECT_EQ(computed[key], 1) << key;
    EXPECT_EQ(given[key], kThreads) << key;
  }
}

}  // namespace
}  // namespace polystill::teacher_server
