#include "soft_labels/canary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/rpc.h"
#include "soft_labels/decode.h"
#include "soft_labels/outputs.h"
#include "soft_labels/pieces.h"

namespace polystill::soft_labels {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

v1::DescribeReply Teacher(v1::Task task, int labels, int vocab_size, int max_length = 100) {
  v1::DescribeReply teacher;
  teacher.set_digest("d1");
  teacher.set_max_records_per_request(100);
  v1::Signature& signature = *teacher.mutable_signature();
  signature.set_task(task);
  signature.set_input(v1::Signature::INPUT_IDS);
  signature.set_vocab_size(vocab_size);
  signature.set_max_length(max_length);
  for (int i = 0; i < labels; ++i) signature.add_labels(std::to_string(i));
  return teacher;
}

void AddFeature(const std::string& name, int width, v1::DescribeReply* teacher) {
  v1::Feature& feature = *teacher->add_features();
  feature.set_name(name);
  feature.set_width(width);
}

TEST(CanaryTest, AsksForAllThatFitsAMessage) {
  struct Case {
    const char* name;
    v1::DescribeReply teacher;
    std::vector<std::string> outputs;
    v1::Codec codec;
    int inputs;
    bool at_positions;
  };
  std::vector<Case> cases = {
      {"classes", Teacher(v1::TASK_CLASSIFICATION, 5, 300), {"logits"}, v1::CODEC_DENSE_FP32, 3, false},
      {"of tokens", Teacher(v1::TASK_MASKED_LM, 0, 30'000), {"logits"}, v1::CODEC_DENSE_FP32, 3, true},
      {"two rows fit", Teacher(v1::TASK_MASKED_LM, 0, 500'000), {"logits"}, v1::CODEC_DENSE_FP32, 2, true},
      {"wider than a message", Teacher(v1::TASK_MASKED_LM, 0, 1 << 24), {"logits"}, v1::CODEC_SCORES, 1, true},
      {"features", Teacher(v1::TASK_CLASSIFICATION, 0, 300), {"embedding", "hidden.1"}, v1::CODEC_DENSE_FP32, 3, false},
      {"features of a wide head",
       Teacher(v1::TASK_MASKED_LM, 0, 1 << 24),
       {"hidden.1"},
       v1::CODEC_DENSE_FP32,
       3,
       false},
      {"short records", Teacher(v1::TASK_BINARY, 2, 300, 2), {"logits"}, v1::CODEC_DENSE_FP32, 3, false},
      {"one record a request", Teacher(v1::TASK_BINARY, 2, 300), {"logits"}, v1::CODEC_DENSE_FP32, 1, false},
  };
  AddFeature("embedding", 8, &cases[4].teacher);
  AddFeature("hidden.1", 8, &cases[4].teacher);
  AddFeature("hidden.1", 8, &cases[5].teacher);
  cases[7].teacher.set_max_records_per_request(1);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const v1::LabelRequest request = CanaryRequest(c.teacher);
    EXPECT_EQ(request.SerializeAsString(), CanaryRequest(c.teacher).SerializeAsString());
    EXPECT_THAT(request.spec().outputs(), testing::ElementsAreArray(c.outputs));
    EXPECT_EQ(request.spec().codec(), c.codec);
    EXPECT_EQ(request.spec().teacher_digest(), "d1");
    EXPECT_EQ(request.protocol_version(), kProtocolVersion);
    ASSERT_EQ(request.inputs_size(), c.inputs);
    const Outputs outputs = OutputsOf(request.spec(), c.teacher).value();
    EXPECT_TRUE(CheckSpec(request.spec(), outputs, c.teacher.signature().task()).ok());
    int64_t bytes = 0;
    for (const v1::LabelInput& input : request.inputs()) {
      bytes += BytesOf(request.spec(), outputs, input);
      EXPECT_EQ(!input.positions().empty(), c.at_positions);
      EXPECT_EQ(!input.score_ids().empty(), c.codec == v1::CODEC_SCORES);
      EXPECT_GE(input.ids().ids_size(), 1);
      EXPECT_LE(input.ids().ids_size(), c.teacher.signature().max_length());
      for (const int32_t id : input.ids().ids()) {
        EXPECT_GE(id, 0);
        EXPECT_LT(id, c.teacher.signature().vocab_size());
      }
    }
    EXPECT_LE(bytes, kMaxPieceBytes);
  }
}

CanaryAnswer Numbers(std::vector<float> numbers) { return std::vector<Array>{{.numbers = numbers, .width = 1}}; }
CanaryAnswer Error(absl::StatusCode code) { return absl::Status(code, "no"); }

TEST(CanaryTest, TheLargestDifference) {
  EXPECT_EQ(LargestDifference(Numbers({1, 2}), Numbers({1, 2})), 0);
  EXPECT_EQ(LargestDifference(Numbers({1, 2, 3}), Numbers({1.5, 0, 3})), 2);
  EXPECT_EQ(LargestDifference(Numbers({1}), Numbers({1, 2})), kInfinity);
  EXPECT_EQ(LargestDifference(Numbers({1}), Error(absl::StatusCode::kInternal)), kInfinity);
  EXPECT_EQ(LargestDifference(Error(absl::StatusCode::kDataLoss), Error(absl::StatusCode::kInternal)), kInfinity);
  EXPECT_EQ(LargestDifference(Error(absl::StatusCode::kInternal), Error(absl::StatusCode::kInternal)), 0);
  CanaryAnswer two = Numbers({1});
  two->push_back({.numbers = {4}, .width = 1});
  EXPECT_EQ(LargestDifference(Numbers({1}), two), kInfinity);
  CanaryAnswer other = two;
  (*other)[1].numbers[0] = 7;
  EXPECT_EQ(LargestDifference(other, two), 3);
}

constexpr int64_t kPatience = 100;

// (replica, agrees)
std::vector<std::pair<int, bool>> Said(const std::vector<ParityJury::Verdict>& verdicts) {
  std::vector<std::pair<int, bool>> said;
  for (const auto& verdict : verdicts) said.emplace_back(verdict.replica, verdict.agrees);
  return said;
}

TEST(ParityJuryTest, MostDecideThenTheFirst) {
  const CanaryAnswer no = Error(absl::StatusCode::kInternal);
  struct Case {
    const char* name;
    std::vector<CanaryAnswer> answers;
    int reference;
    std::vector<bool> agree;
  };
  const Case cases[] = {
      {"alone", {Numbers({1})}, 0, {true}},
      {"two that agree", {Numbers({1}), Numbers({1.05})}, 0, {true, true}},
      {"of two the first is right", {Numbers({1}), Numbers({2})}, 0, {true, false}},
      {"of three the two are", {Numbers({1}), Numbers({2}), Numbers({2})}, 1, {false, true, true}},
      {"of four that are two and two the first",
       {Numbers({2}), Numbers({1}), Numbers({1}), Numbers({2})},
       0,
       {true, false, false, true}},
      {"in the middle", {Numbers({1}), Numbers({1.09}), Numbers({1.18})}, 1, {true, true, true}},
      {"an error is no answer", {no, Numbers({1})}, 1, {false, true}},
      {"not even of most", {no, no, Numbers({1})}, 2, {false, false, true}},
      {"but for all", {no, no}, 0, {true, true}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    // In whichever order they answer.
    for (const bool backwards : {false, true}) {
      const int count = static_cast<int>(c.answers.size());
      ParityJury jury(count, 0.1, kPatience);
      std::vector<ParityJury::Verdict> verdicts;
      for (int i = 0; i < count; ++i) {
        EXPECT_THAT(jury.Step(0), IsEmpty());
        const int replica = backwards ? count - 1 - i : i;
        jury.Answered(replica, c.answers[replica], 0);
      }
      verdicts = jury.Step(0);
      ASSERT_EQ(verdicts.size(), c.answers.size());
      for (int i = 0; i < count; ++i) {
        EXPECT_EQ(verdicts[i].replica, i);
        EXPECT_EQ(verdicts[i].reference, c.reference);
        EXPECT_EQ(verdicts[i].agrees, c.agree[i]);
      }
      EXPECT_THAT(jury.Step(1), IsEmpty());
      EXPECT_EQ(jury.next_ms(), Router::kNever);
    }
  }
}

TEST(ParityJuryTest, WaitsForThoseThatAreSilentButNotForThoseThatFailed) {
  ParityJury jury(3, 0.1, kPatience);
  EXPECT_EQ(jury.next_ms(), Router::kNever);
  jury.Answered(1, Numbers({1}), 50);
  jury.Failed(0);
  EXPECT_THAT(jury.Step(149), IsEmpty());
  EXPECT_EQ(jury.next_ms(), 150);
  EXPECT_THAT(Said(jury.Step(150)), ElementsAre(std::pair(1, true)));
  jury.Answered(2, Numbers({1.4}), 151);
  const auto verdicts = jury.Step(151);
  EXPECT_THAT(Said(verdicts), ElementsAre(std::pair(2, false)));
  EXPECT_NEAR(verdicts[0].difference, 0.4, 1e-6);
}

TEST(ParityJuryTest, WhoReconnectsIsJudgedAgainByTheSameAnswer) {
  ParityJury jury(2, 0.1, kPatience);
  jury.Failed(1);
  jury.Answered(0, Numbers({1}), 0);
  EXPECT_THAT(Said(jury.Step(0)), ElementsAre(std::pair(0, true)));
  jury.Failed(0);
  EXPECT_THAT(jury.Step(1), IsEmpty());
  jury.Answered(0, Numbers({3}), 2);
  jury.Answered(1, Numbers({1}), 2);
  EXPECT_THAT(Said(jury.Step(2)), ElementsAre(std::pair(0, false), std::pair(1, true)));
}

TEST(ParityJuryTest, WhoLeavesBeforeTheVerdictHasNoVoice) {
  ParityJury jury(2, 0.1, kPatience);
  jury.Answered(0, Numbers({1}), 0);
  jury.Failed(0);
  EXPECT_THAT(Said(jury.Step(kPatience)), IsEmpty());
  EXPECT_EQ(jury.next_ms(), Router::kNever);  // there is nothing to judge
  jury.Answered(1, Numbers({2}), 1);
  EXPECT_THAT(Said(jury.Step(1)), ElementsAre(std::pair(1, true)));
}

}  // namespace
}  // namespace polystill::soft_labels
