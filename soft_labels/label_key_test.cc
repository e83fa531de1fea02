#include "soft_labels/label_key.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "absl/strings/escaping.h"

namespace polystill::soft_labels {
namespace {

struct Label {
  v1::DescribeReply teacher;
  v1::LabelSpec spec;
  Output output{"logits", 100, true};
  v1::LabelInput input;

  std::string Key() const { return LabelKeys(teacher, spec, output).KeyOf(input); }
};

Label SampledLabel() {
  Label label;
  label.teacher.set_digest(std::string(64, 'd'));
  label.teacher.set_tokenizer_sha256(std::string(64, 't'));
  label.teacher.set_backend("libtorch/cpu");
  label.teacher.mutable_signature()->set_max_length(128);
  label.spec.set_codec(v1::CODEC_SAMPLED);
  label.spec.set_temperature(2);
  label.spec.set_draws(64);
  label.spec.set_seed(7);
  label.input.set_draw(3);
  for (const int id : {4, 5, 6}) label.input.mutable_ids()->add_ids(id);
  for (const int place : {1, 2}) label.input.add_positions(place);
  return label;
}

// As hashed by a second writing of the same fields, in Python. Frozen: stored labels are found by it.
TEST(LabelKeyTest, GoldenKeys) {
  Label label = SampledLabel();
  EXPECT_EQ(absl::BytesToHexString(label.Key()), "5122f75b3956f0eaa26b5d70d1395c5a7c4cde74eb408121a2bd98207a328554");
  EXPECT_EQ(KeyWord(label.Key()), 0xeaf056395bf72251u);
  label.spec.Clear();
  label.spec.set_codec(v1::CODEC_TOP_K);  // at temperature 1
  label.spec.set_k(8);
  label.output.of_tokens = false;
  label.input.Clear();
  label.input.set_text("häuser");
  EXPECT_EQ(absl::BytesToHexString(label.Key()), "9fc87b5cc6cd72fb37bf306736f0614a2e1cff84660534ff2d2f3bd1b2e36eb0");
}

TEST(LabelKeyTest, WhatChangesALabelChangesItsKey) {
  const std::function<void(Label&)> changes[] = {
      [](Label&) {},
      [](Label& l) { l.teacher.set_digest("e"); },
      [](Label& l) { l.teacher.set_tokenizer_sha256("u"); },
      [](Label& l) { l.teacher.set_backend("python"); },
      [](Label& l) { l.teacher.mutable_signature()->set_max_length(64); },
      [](Label& l) { l.output.name = "embedding"; },
      [](Label& l) { l.spec.set_codec(v1::CODEC_DENSE_FP32); },
      [](Label& l) { l.spec.set_codec(v1::CODEC_DENSE_FP16); },
      [](Label& l) { l.spec.set_temperature(1); },
      [](Label& l) { l.spec.set_draws(65); },
      [](Label& l) { l.spec.set_seed(8); },
      [](Label& l) { l.input.set_draw(4); },
      [](Label& l) { l.input.clear_positions(); },
      [](Label& l) { l.input.mutable_ids()->add_ids(6); },
      [](Label& l) { l.input.set_text("4"); },
  };
  std::set<std::string> keys;
  for (const auto& change : changes) {
    Label label = SampledLabel();
    change(label);
    keys.insert(label.Key());
  }
  EXPECT_EQ(keys.size(), std::size(changes));
}

TEST(LabelKeyTest, WhatALabelDoesNotDependOnLeavesItsKey) {
  Label label = SampledLabel();
  label.spec.set_codec(v1::CODEC_DENSE_FP16);
  const std::string key = label.Key();
  label.input.set_id("another name");
  label.input.set_draw(9);
  label.input.add_score_ids(3);
  label.spec.set_temperature(0);
  label.spec.set_draws(0);
  label.spec.set_seed(0);
  label.spec.set_k(5);
  EXPECT_EQ(label.Key(), key);
}

}  // namespace
}  // namespace polystill::soft_labels
