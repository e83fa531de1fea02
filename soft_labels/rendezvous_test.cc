#include "soft_labels/rendezvous.h"

#include <gtest/gtest.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "runtime/counter_rng.h"

namespace polystill::soft_labels {
namespace {

v1::LabelInput Text(const std::string& text) {
  v1::LabelInput input;
  input.set_text(text);
  return input;
}

v1::LabelInput Ids(std::initializer_list<int32_t> ids) {
  v1::LabelInput input;
  input.mutable_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  return input;
}

TEST(RendezvousTest, TheWordIsOfTheInputAlone) {
  v1::LabelInput asked = Ids({1, 2, 3});
  const uint64_t word = WordOf(asked);
  asked.set_id("r1");
  asked.set_draw(7);
  asked.add_positions(1);
  asked.add_score_ids(2);
  EXPECT_EQ(WordOf(asked), word);
  std::set<uint64_t> words = {word};
  for (const v1::LabelInput& other : {Ids({1, 2}), Ids({1, 2, 3, 0}), Ids({3, 2, 1}), Ids({}), Text("a"), Text("b")}) {
    EXPECT_TRUE(words.insert(WordOf(other)).second) << other.ShortDebugString();
  }
}

TEST(RendezvousTest, SharesAreEvenAndOnlyTheInputsOfTheLostMove) {
  std::vector<uint64_t> all;
  for (const char* name : {"a:1", "b:1", "c:1", "d:1"}) all.push_back(NameWord(name));
  const std::vector<uint64_t> without_c = {all[0], all[1], all[3]};
  const size_t place_without_c[] = {0, 1, 99, 2};
  std::vector<int> of_all(4), of_lost(3);
  for (int i = 0; i < 8'000; ++i) {
    const uint64_t word = WordOf(Text(absl::StrCat("text ", i)));
    const size_t home = Rendezvous(word, all), next = Rendezvous(word, without_c);
    ++of_all[home];
    if (home == 2) {
      ++of_lost[next];
    } else {
      EXPECT_EQ(next, place_without_c[home]);
    }
  }
  for (const int count : of_all) EXPECT_NEAR(count, 2'000, 200);  // 5 standard deviations
  for (const int count : of_lost) EXPECT_NEAR(count, of_all[2] / 3, 110);
}

TEST(RendezvousTest, TheOrderOfTheReplicasDoesNotMatter) {
  const std::vector<uint64_t> forth = {NameWord("a"), NameWord("b"), NameWord("c")},
                              back = {forth.rbegin(), forth.rend()};
  for (uint64_t word = 0; word < 1'000; ++word) {
    EXPECT_EQ(forth[Rendezvous(word, forth)], back[Rendezvous(word, back)]);
  }
}

}  // namespace
}  // namespace polystill::soft_labels
