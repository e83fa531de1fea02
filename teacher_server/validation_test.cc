#include "teacher_server/validation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "runtime/utf8.h"

namespace polystill::teacher_server {
namespace {

using testing::HasSubstr;

v1::DescribeReply Teacher(v1::Signature::Input input) {
  v1::DescribeReply teacher;
  teacher.set_name("t");
  teacher.set_digest("d1");
  teacher.set_max_records_per_request(3);
  teacher.mutable_signature()->set_input(input);
  teacher.mutable_signature()->set_vocab_size(100);
  teacher.mutable_signature()->set_max_length(5);
  teacher.mutable_signature()->add_labels("a");
  for (const char* name : {"embedding", "hidden.1"}) {
    teacher.add_features()->set_name(name);
    teacher.mutable_features(teacher.features_size() - 1)->set_width(1'000);
  }
  return teacher;
}

v1::LabelRequest Request(v1::Signature::Input input) {
  v1::LabelRequest request;
  request.set_protocol_version(1);
  for (const char* id : {"r0", "r1"}) {
    auto* record = request.add_inputs();
    record->set_id(id);
    if (input == v1::Signature::INPUT_TEXT) {
      record->set_text("some text");
    } else {
      record->mutable_ids()->add_ids(99);
    }
  }
  return request;
}

TEST(ValidationTest, EveryFieldIsChecked) {
  constexpr auto kText = v1::Signature::INPUT_TEXT;
  constexpr auto kIds = v1::Signature::INPUT_IDS;
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
  struct Case {
    v1::Signature::Input input;
    std::function<void(v1::LabelRequest&)> spoil;
    absl::StatusCode code;
    std::string message;
  };
  using R = v1::LabelRequest;
  const Case cases[] = {
      {kText, [](R&) {}, absl::StatusCode::kOk, ""},
      {kIds, [](R&) {}, absl::StatusCode::kOk, ""},
      {kText, [](R& r) { r.mutable_inputs(0)->set_text(""); }, absl::StatusCode::kOk, ""},
      {kText, [](R& r) { r.mutable_spec()->add_outputs("logits"); }, absl::StatusCode::kOk, ""},
      {kText, [](R& r) { r.mutable_spec()->set_teacher_digest("d1"); }, absl::StatusCode::kOk, ""},
      {kText, [](R& r) { r.mutable_inputs(0)->set_text(std::string(1 << 20, 'x')); }, absl::StatusCode::kOk, ""},
      {kText, [](R& r) { r.set_protocol_version(2); }, kPrecondition, "protocol version 2"},
      {kText, [](R& r) { r.mutable_spec()->add_outputs("probs"); }, kInvalid, "spec.outputs 'probs'"},
      {kText, [](R& r) { r.mutable_spec()->set_codec(static_cast<v1::Codec>(77)); }, kInvalid, "spec.codec 77"},
      {kText, [](R& r) { r.mutable_spec()->set_teacher_digest("d2"); }, kPrecondition, "asks for d2"},
      {kText, [](R& r) { r.set_timeout_ms(-1); }, kInvalid, "timeout_ms -1"},
      {kText, [](R& r) { r.set_priority(v1::PRIORITY_TRAINING); }, absl::StatusCode::kOk, ""},
      {kText, [](R& r) { r.set_priority(static_cast<v1::Priority>(3)); }, kInvalid, "priority 3 is unknown"},
      {kText, [](R& r) { r.clear_inputs(); }, kInvalid, "1 to 3 inputs, this one 0"},
      {kText, [](R& r) { r.add_inputs(), r.add_inputs(); }, kInvalid, "1 to 3 inputs, this one 4"},
      {kText, [](R& r) { r.mutable_inputs(1)->clear_input(); }, kInvalid,
       "record 'r1': has neither text nor token ids"},
      {kText, [](R& r) { r.mutable_inputs(1)->mutable_ids()->add_ids(1); }, absl::StatusCode::kOk, ""},
      {kText, [](R& r) { r.mutable_inputs(1)->mutable_ids()->add_ids(100); }, kInvalid, "record 'r1': token id 100"},
      {kText, [](R& r) { r.mutable_inputs(1)->mutable_ids(); }, kInvalid, "record 'r1': has no token ids"},
      {kText, [](R& r) { r.mutable_spec()->add_outputs("embedding"); }, absl::StatusCode::kOk, ""},
      {kText, [](R& r) { r.mutable_spec()->add_outputs("hidden.1"); }, kInvalid,
       "record 'r0': has text, but 'hidden.1' is of tokens"},
      {kIds, [](R& r) { r.mutable_spec()->add_outputs("hidden.1"); }, absl::StatusCode::kOk, ""},
      {kIds, [](R& r) { r.mutable_spec()->add_outputs("hidden.2"); }, kInvalid,
       "spec.outputs 'hidden.2' is not known; this teacher gives 'logits', 'embedding', 'hidden.1'"},
      {kIds, [](R& r) { r.mutable_spec()->add_outputs("logits"), r.mutable_spec()->add_outputs("logits"); }, kInvalid,
       "spec.outputs names 'logits' twice"},
      {kIds, [](R& r) { r.mutable_inputs(1)->add_positions(0); }, kInvalid,
       "record 'r1': has positions, which go with logits of tokens only"},
      {kText, [](R& r) { r.mutable_inputs(1)->set_text(std::string((1 << 20) + 1, 'x')); }, kInvalid,
       "record 'r1': text has 1048577 bytes"},
      {kText, [](R& r) { r.mutable_inputs(0)->set_id(std::string(1025, 'i')); }, kInvalid,
       "id has more than 1024 bytes"},
      {kIds, [](R& r) { r.mutable_inputs(1)->clear_input(); }, kInvalid,
       "record 'r1': has no token ids; this teacher reads ids"},
      {kIds, [](R& r) { r.mutable_inputs(1)->set_text("x"); }, kInvalid,
       "record 'r1': has text, but this teacher reads token ids; make an ids column with polystill-tokenize"},
      {kIds, [](R& r) { r.mutable_inputs(1)->mutable_ids()->clear_ids(); }, kInvalid, "record 'r1': has no token ids"},
      {kIds, [](R& r) { r.mutable_inputs(1)->mutable_ids()->set_ids(0, 100); }, kInvalid,
       "record 'r1': token id 100 is out of range; ids are in [0, 100)"},
      {kIds, [](R& r) { r.mutable_inputs(1)->mutable_ids()->set_ids(0, -1); }, kInvalid, "token id -1"},
      {kIds,
       [](R& r) {
         for (int i = 0; i < 5; ++i) r.mutable_inputs(1)->mutable_ids()->add_ids(i);
       },
       kInvalid, "record 'r1': has 6 token ids, more than max_length 5"},
      {kIds,
       [](R& r) {
         r.mutable_inputs(1)->clear_id();
         r.mutable_inputs(1)->mutable_ids()->set_ids(0, -1);
       },
       kInvalid, "input 1: token id -1"},
  };
  for (const Case& c : cases) {
    v1::LabelRequest request = Request(c.input);
    c.spoil(request);
    const absl::Status status = CheckRequest(request, Teacher(c.input));
    EXPECT_EQ(status.code(), c.code) << status << " for " << c.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST(ValidationTest, PositionsAreThoseOfTokens) {
  v1::DescribeReply teacher = Teacher(v1::Signature::INPUT_IDS);
  teacher.mutable_signature()->set_task(v1::TASK_TOKEN_CLASSIFICATION);
  struct Case {
    std::vector<int> positions;
    std::string message;
  };
  const Case cases[] = {
      {{}, ""},
      {{0, 2}, ""},
      {{0, 3}, "record 'r1': position 3 is out of range; its token ids are at [0, 3)"},
      {{-1}, "record 'r1': position -1 is out of range"},
      {{1, 1}, "record 'r1': position 1 comes after 1"},
      {{2, 0}, "record 'r1': position 0 comes after 2"},
  };
  for (const Case& c : cases) {
    v1::LabelRequest request = Request(v1::Signature::INPUT_IDS);
    for (const int id : {1, 2}) request.mutable_inputs(1)->mutable_ids()->add_ids(id);
    request.mutable_inputs(1)->mutable_positions()->Add(c.positions.begin(), c.positions.end());
    const absl::Status status = CheckRequest(request, teacher);
    EXPECT_EQ(status.ok(), c.message.empty()) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
    request.mutable_spec()->add_outputs("hidden.1");
    EXPECT_EQ(CheckRequest(request, teacher).ok(), c.positions.empty());
  }
  EXPECT_THAT(CheckRequest(Request(v1::Signature::INPUT_TEXT), teacher).ToString(), HasSubstr("polystill-tokenize"));
}

TEST(ValidationTest, AnswersThatFitNoMessageOrBatchAreRefused) {
  const v1::DescribeReply teacher = Teacher(v1::Signature::INPUT_IDS);
  v1::LabelRequest request = Request(v1::Signature::INPUT_IDS);
  for (const int id : {1, 2}) request.mutable_inputs(1)->mutable_ids()->add_ids(id);
  for (const char* name : {"hidden.1", "logits", "embedding"}) request.mutable_spec()->add_outputs(name);
  // 4 tokens of 1000 numbers, 2 records of 1 and of 1000.
  const int64_t numbers = 4 * 1000 + 2 + 2 * 1000;
  EXPECT_EQ(AnswerBytesOf(request, teacher).in_memory, 4 * numbers);
  EXPECT_EQ(AnswerBytesOf(request, teacher).on_wire, 4 * numbers);
  request.mutable_spec()->set_codec(v1::CODEC_DENSE_FP16);
  EXPECT_EQ(AnswerBytesOf(request, teacher).on_wire, 2 * numbers);
  EXPECT_TRUE(CheckAnswerSize(request, teacher, 4 * numbers).ok());
  EXPECT_THAT(CheckAnswerSize(request, teacher, 4 * numbers - 1).ToString(), HasSubstr("more than 24007"));
  v1::DescribeReply wide = teacher;
  wide.mutable_features(1)->set_width(4 << 20);
  const absl::Status status = CheckAnswerSize(request, wide, int64_t{1} << 40);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("ask for fewer outputs"));
}

TEST(ValidationTest, TokensAtMost) {
  v1::LabelRequest text = Request(v1::Signature::INPUT_TEXT);
  text.mutable_inputs(0)->set_text("ab");
  EXPECT_EQ(TokensAtMost(text, Teacher(v1::Signature::INPUT_TEXT)), 4 + 5);  // the second: max_length
  EXPECT_EQ(TokensAtMost(Request(v1::Signature::INPUT_IDS), Teacher(v1::Signature::INPUT_IDS)), 2);
}

TEST(ValidationTest, ErrorsHoldABoundedPartOfWhatTheCallerWrote) {
  std::string long_text(199, 'x');
  for (int i = 0; i < 1 << 19; ++i) long_text += "ü";
  v1::LabelRequest output = Request(v1::Signature::INPUT_TEXT), digest = output, id = output;
  output.mutable_spec()->add_outputs(long_text);
  digest.mutable_spec()->set_teacher_digest(long_text);
  id.mutable_inputs(0)->set_id(long_text);
  for (const v1::LabelRequest& request : {output, digest, id}) {
    const absl::Status status = CheckRequest(request, Teacher(v1::Signature::INPUT_TEXT));
    EXPECT_FALSE(status.ok());
    EXPECT_LT(status.message().size(), 400u);
    EXPECT_TRUE(IsUtf8(std::string(status.message()))) << status;
  }
}

TEST(ValidationTest, FindsTheRecordThatDidNotParse) {
  v1::LabelRequest request = Request(v1::Signature::INPUT_TEXT);
  EXPECT_TRUE(FindBadText(request).ok());
  request.mutable_inputs(1)->set_text("caf\xe9");
  EXPECT_THAT(std::string(FindBadText(request).message()), HasSubstr("record 'r1': its text is not UTF-8"));
  request.mutable_inputs(0)->set_id("\xff");
  EXPECT_THAT(std::string(FindBadText(request).message()), HasSubstr("input 0: its id is not UTF-8"));
}

}  // namespace
}  // namespace polystill::teacher_server
