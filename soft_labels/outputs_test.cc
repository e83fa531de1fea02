#include "soft_labels/outputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "models/outputs.h"

namespace polystill::soft_labels {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

v1::DescribeReply Teacher(v1::Task task) {
  v1::DescribeReply teacher;
  teacher.mutable_signature()->set_task(task);
  teacher.mutable_signature()->set_vocab_size(100);
  for (const char* label : {"a", "b"}) teacher.mutable_signature()->add_labels(label);
  for (const auto& [name, width] : {std::pair("embedding", 8), {"hidden.0", 4}}) {
    auto* feature = teacher.add_features();
    feature->set_name(name);
    feature->set_width(width);
  }
  return teacher;
}

v1::LabelSpec SpecOf(const std::vector<std::string>& outputs) {
  v1::LabelSpec spec;
  for (const std::string& output : outputs) spec.add_outputs(output);
  return spec;
}

TEST(OutputsTest, RowsAndWidths) {
  v1::LabelInput input;
  for (int id = 0; id < 5; ++id) input.mutable_ids()->add_ids(id);
  struct Case {
    v1::Task task;
    std::string output;
    int64_t width;
    int64_t rows;
    int64_t rows_at_positions;
  };
  const Case cases[] = {
      {v1::TASK_UNSPECIFIED, "logits", 2, 1, 1},
      {v1::TASK_CLASSIFICATION, "logits", 2, 1, 1},
      {v1::TASK_BINARY, "logits", 1, 1, 1},
      {v1::TASK_MULTI_LABEL, "logits", 2, 1, 1},
      {v1::TASK_TOKEN_CLASSIFICATION, "logits", 2, 5, 3},
      {v1::TASK_MASKED_LM, "logits", 100, 5, 3},
      {v1::TASK_MASKED_LM, "embedding", 8, 1, 1},
      {v1::TASK_CLASSIFICATION, "hidden.0", 4, 5, 5},
  };
  for (const Case& c : cases) {
    const Outputs outputs = OutputsOf(SpecOf({c.output}), Teacher(c.task)).value();
    v1::LabelInput some = input;
    for (const int place : {0, 2, 4}) some.add_positions(place);
    EXPECT_EQ(outputs[0].width, c.width) << c.output;
    EXPECT_EQ(outputs[0].RowsOf(input), c.rows) << c.output;
    EXPECT_EQ(outputs[0].RowsOf(some), c.rows_at_positions) << c.output;
    EXPECT_EQ(NumbersOf(outputs, some), c.width * c.rows_at_positions);
  }
  const Outputs both = OutputsOf(SpecOf({"embedding", "hidden.0"}), Teacher(v1::TASK_CLASSIFICATION)).value();
  EXPECT_EQ(NumbersOf(both, input), 8 + 5 * 4);
  EXPECT_EQ(NameOfRow(both[1], std::vector{input, input}, 6), "record '', hidden.0, row 1");
  EXPECT_EQ(NameOfRow(both[0], std::vector{input, input}, 2), "embedding, a row beyond the last");
}

TEST(OutputsTest, WhoGivesFeaturesAloneIsNotAskedForLogits) {
  v1::DescribeReply teacher = Teacher(v1::TASK_CLASSIFICATION);
  teacher.mutable_signature()->clear_labels();
  EXPECT_EQ(OutputsOf(SpecOf({"embedding"}), teacher)->at(0).width, 8);
  for (const v1::LabelSpec& spec : {SpecOf({}), SpecOf({"logits"})}) {
    EXPECT_THAT(OutputsOf(spec, teacher).status().ToString(),
                HasSubstr("gives no logits, but features alone: 'embedding', 'hidden.0'"));
  }
}

TEST(OutputsTest, RefusesTheUnknownAndTheTwiceNamed) {
  const v1::DescribeReply teacher = Teacher(v1::TASK_CLASSIFICATION);
  EXPECT_EQ(OutputsOf({}, teacher)->at(0).name, "logits");
  EXPECT_THAT(OutputsOf(SpecOf({"embedding", "embedding"}), teacher).status().ToString(),
              HasSubstr("names 'embedding' twice"));
  EXPECT_THAT(OutputsOf(SpecOf({"hidden.1"}), teacher).status().ToString(),
              HasSubstr("this teacher gives 'logits', 'embedding', 'hidden.0'"));
  EXPECT_TRUE(CheckAnswerBytes(10, 10).ok());
  EXPECT_THAT(CheckAnswerBytes(11, 10).ToString(), HasSubstr("fewer outputs or positions"));
}

TEST(OutputsTest, WhatLossesAskFor) {
  v1::Loss loss;
  loss.set_kind(v1::LOSS_KIND_TASK);
  EXPECT_THAT(TeacherOutputsOf(loss), IsEmpty());
  loss.set_kind(v1::LOSS_KIND_HARD_LABEL);
  EXPECT_THAT(TeacherOutputsOf(loss), ElementsAre("logits"));
  loss.set_kind(v1::LOSS_KIND_EMBEDDING);
  EXPECT_THAT(TeacherOutputsOf(loss), ElementsAre("embedding"));
  loss.set_kind(v1::LOSS_KIND_HIDDEN);
  for (const int layer : {3, 0, 3}) loss.add_layers()->set_teacher(layer);
  EXPECT_THAT(TeacherOutputsOf(loss), ElementsAre("hidden.3", "hidden.0"));
}

}  // namespace
}  // namespace polystill::soft_labels
