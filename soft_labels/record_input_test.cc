#include "soft_labels/record_input.h"

#include <gtest/gtest.h>

#include "soft_labels/client.h"

namespace polystill::soft_labels {
namespace {

corpus::Record SomeRecord() {
  corpus::Record record;
  record.id = "r";
  record.text = "Hallo";
  record.source_text = "hello";
  record.ids = {1, 2};
  record.source_ids = {3};
  return record;
}

TEST(LabelInputOf, TakesTheSideThatTheTeacherReads) {
  const corpus::Record record = SomeRecord();
  EXPECT_EQ(LabelInputOf(record, v1::SIDE_TEXT, v1::Signature::INPUT_TEXT).text(), "Hallo");
  EXPECT_EQ(LabelInputOf(record, v1::SIDE_SOURCE_TEXT, v1::Signature::INPUT_TEXT).text(), "hello");
  EXPECT_EQ(LabelInputOf(record, v1::SIDE_TEXT, v1::Signature::INPUT_IDS).ids().ids_size(), 2);
  EXPECT_EQ(LabelInputOf(record, v1::SIDE_SOURCE_TEXT, v1::Signature::INPUT_IDS).ids().ids(0), 3);
  EXPECT_EQ(LabelInputOf(record, v1::SIDE_TEXT, v1::Signature::INPUT_TEXT).id(), "r");
}

TEST(LabelInputOf, CutsATextThatServersWouldRefuse) {
  corpus::Record record = SomeRecord();
  record.text = std::string(kMaxTextBytes - 1, 'x') + "ü and more";
  const std::string text = LabelInputOf(record, v1::SIDE_TEXT, v1::Signature::INPUT_TEXT).text();
  EXPECT_EQ(text, std::string(kMaxTextBytes - 1, 'x'));
}

}  // namespace
}  // namespace polystill::soft_labels
