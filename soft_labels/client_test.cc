#include "soft_labels/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <limits>

#include "runtime/rpc.h"
#include "soft_labels/dense.h"
#include "soft_labels/outputs.h"
#include "soft_labels/scripted_teacher.h"

namespace polystill::soft_labels {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(LabelClientTest, LabelsComeBackInTheOrderOfTheInputs) {
  ScriptedTeacher one({Obey}), two({Obey});
  auto client = LabelClient::Connect({one.address(), two.address()}, FastOptions()).value();
  EXPECT_EQ(client->description().digest(), kDigest);
  std::vector<std::future<absl::StatusOr<LabelClient::Labels>>> answers;
  for (int k = 0; k < 50; ++k) answers.push_back(Ask(*client, Inputs(100 * k, k + 1)));
  for (int k = 0; k < 50; ++k) {
    const LabelClient::Labels labels = answers[k].get().value();
    EXPECT_EQ(labels.outputs[0].width, 2);
    EXPECT_EQ(labels.bytes, 8 * (k + 1));
    ASSERT_EQ(labels.outputs[0].numbers.size(), 2u * (k + 1));
    for (int i = 0; i <= k; ++i) EXPECT_EQ(labels.outputs[0].numbers[2 * i], 100 * k + i);
  }
}

TEST(LabelClientTest, KeepsEachRecordsAnswerAsItCame) {
  ScriptedTeacher teacher({Obey});
  LabelClient::Options options = FastOptions();
  options.keeps_encoded = true;
  auto client = LabelClient::Connect({teacher.address()}, options).value();
  const LabelClient::Labels labels = Ask(*client, Inputs(1, 9), Spec(v1::CODEC_DENSE_FP16)).get().value();
  ASSERT_EQ(labels.encoded.size(), 9u);
  for (int i = 0; i < 9; ++i) {
    ASSERT_EQ(labels.encoded[i].size(), 1u);
    const auto number = static_cast<float>(i + 1);
    const std::vector<float> logits = {number, -number};
    EXPECT_EQ(labels.encoded[i][0].SerializeAsString(),
              EncodeDense(v1::CODEC_DENSE_FP16, logits, 1, 2).value().SerializeAsString());
  }
}

TEST(LabelClientTest, SplitsByRecordsAndBytesAndKeepsItsCredits) {
  std::promise<std::vector<int>> sizes;
  ScriptedTeacher teacher({[&](Stream& stream) {
    Open(stream);
    // 4 + 1 records are in flight; the next 4 would be more than the 8 credits, and come after an answer.
    const v1::LabelRequest first = NextRequest(stream);
    const v1::LabelRequest second = NextRequest(stream);
    Say(stream, Answer(second));
    Say(stream, Answer(first));
    const v1::LabelRequest third = NextRequest(stream);
    Say(stream, Answer(third));
    sizes.set_value({first.inputs_size(), second.inputs_size(), third.inputs_size()});
    NextRequest(stream);
    return grpc::Status::OK;
  }});
  auto client = LabelClient::Connect({teacher.address()}, FastOptions()).value();
  std::vector<v1::LabelInput> inputs = Inputs(0, 9);
  inputs[4].set_text(std::string(3 << 20, 'x'));
  inputs[5].set_text(std::string(3 << 20, 'x'));
  const auto labels = Ask(*client, inputs).get();
  ASSERT_TRUE(labels.ok()) << labels.status();
  EXPECT_THAT(sizes.get_future().get(), ElementsAre(4, 1, 4));
  for (int i = 0; i < 9; ++i) EXPECT_EQ(labels->outputs[0].numbers[2 * i], i);
}

TEST(LabelClientTest, RequestsCarryWhatTheServerChecks) {
  std::promise<v1::LabelRequest> seen;
  ScriptedTeacher teacher({[&](Stream& stream) {
    Open(stream);
    const v1::LabelRequest request = NextRequest(stream);
    seen.set_value(request);
    Say(stream, Answer(request));
    NextRequest(stream);
    return grpc::Status::OK;
  }});
  auto client = LabelClient::Connect({teacher.address()}, FastOptions()).value();
  EXPECT_TRUE(Ask(*client, Inputs(0, 1), {}).get().ok());
  const v1::LabelRequest request = seen.get_future().get();
  EXPECT_EQ(request.protocol_version(), kProtocolVersion);
  EXPECT_THAT(request.spec().outputs(), testing::ElementsAre("logits"));
  EXPECT_EQ(request.spec().codec(), v1::CODEC_DENSE_FP32);
  EXPECT_EQ(request.spec().teacher_digest(), kDigest);
  EXPECT_EQ(request.timeout_ms(), 30'000);
}

// A teacher of two features: the answer's numbers tell record, output and row.
v1::DescribeReply DescriptionWithFeatures() {
  v1::DescribeReply description = Description();
  description.set_max_records_per_request(100);
  description.set_stream_credits(1000);
  for (const auto& [name, width] : {std::pair("embedding", 3), {"hidden.2", 50'000}}) {
    auto* feature = description.add_features();
    feature->set_name(name);
    feature->set_width(width);
  }
  return description;
}

v1::LabelReply AnswerWithFeatures(const v1::LabelRequest& request, const v1::DescribeReply& description) {
  v1::LabelReply reply;
  reply.set_request_id(request.request_id());
  reply.set_teacher_digest(kDigest);
  const Outputs outputs = OutputsOf(request.spec(), description).value();
  for (size_t k = 0; k < outputs.size(); ++k) {
    std::vector<float> numbers;
    int64_t rows = 0;
    for (const v1::LabelInput& input : request.inputs()) {
      for (int64_t row = 0; row < outputs[k].RowsOf(input); ++row, ++rows) {
        numbers.insert(numbers.end(), outputs[k].width, std::stof(input.id()) * 100 + 10.0f * k + row);
      }
    }
    *reply.add_labels() = EncodeDense(request.spec().codec(), numbers, rows, outputs[k].width).value();
  }
  return reply;
}

TEST(LabelClientTest, SeveralOutputsComeInRequestsWhoseAnswersFitAMessage) {
  std::promise<std::vector<int>> sizes;
  ScriptedTeacher teacher({[&](Stream& stream) {
    const v1::DescribeReply description = DescriptionWithFeatures();
    Open(stream, description);
    std::vector<int> seen;
    for (int i = 0; i < 3; ++i) {
      const v1::LabelRequest request = NextRequest(stream);
      seen.push_back(request.inputs_size());
      Say(stream, AnswerWithFeatures(request, description));
    }
    sizes.set_value(seen);
    NextRequest(stream);
    return grpc::Status::OK;
  }});
  auto client = LabelClient::Connect({teacher.address()}, FastOptions()).value();
  v1::LabelSpec spec = Spec();
  for (const char* name : {"hidden.2", "logits", "embedding"}) spec.add_outputs(name);
  // Rows of 200 kB: 4 MiB hold those of 20 tokens, or of one longer record.
  std::vector<v1::LabelInput> inputs = Inputs(0, 4);
  const int tokens[] = {8, 12, 30, 1};
  for (int i = 0; i < 4; ++i) inputs[i].mutable_ids()->mutable_ids()->Resize(tokens[i], 1);
  const auto labels = Ask(*client, inputs, spec).get();
  ASSERT_TRUE(labels.ok()) << labels.status();
  EXPECT_THAT(sizes.get_future().get(), ElementsAre(2, 1, 1));
  ASSERT_EQ(labels->outputs.size(), 3u);
  const std::vector<float>& hidden = labels->outputs[0].numbers;
  EXPECT_EQ(labels->outputs[0].width, 50'000);
  ASSERT_EQ(hidden.size(), 51u * 50'000);
  EXPECT_THAT(
      (std::vector<float>{hidden[0], hidden[7 * 50'000], hidden[8 * 50'000], hidden[49 * 50'000], hidden.back()}),
      ElementsAre(0, 7, 100, 229, 300));
  EXPECT_THAT(labels->outputs[1].numbers, ElementsAre(10, 10, 110, 110, 210, 210, 310, 310));
  EXPECT_EQ(labels->outputs[2].numbers.size(), 12u);
  EXPECT_EQ(labels->bytes, 4 * (51 * 50'000 + 8 + 12));
}

TEST(LabelClientTest, RefusesOutputsThatTheTeacherLacksAndAnswersThatFitNoMessage) {
  ScriptedTeacher teacher({[&](Stream& stream) {
    Open(stream, DescriptionWithFeatures());
    NextRequest(stream);
    return grpc::Status::OK;
  }});
  auto client = LabelClient::Connect({teacher.address()}, FastOptions()).value();
  v1::LabelSpec spec = Spec();
  spec.add_outputs("hidden.3");
  EXPECT_THAT(Ask(*client, Inputs(0, 1), spec).get().status().ToString(),
              HasSubstr("'hidden.3' is not known; this teacher gives 'logits', 'embedding', 'hidden.2'"));
  spec.set_outputs(0, "hidden.2");
  std::vector<v1::LabelInput> inputs = Inputs(0, 2);
  inputs[1].mutable_ids()->mutable_ids()->Resize(200, 1);
  const absl::Status status = Ask(*client, inputs, spec).get().status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("record '1': the answer would have 40000000 bytes"));
}

TEST(LabelClientTest, FullAndLeavingReplicasAreAskedAgain) {
  ScriptedTeacher teacher({
      [](Stream& stream) {
        Open(stream);
        Say(stream, Refusal(NextRequest(stream), absl::StatusCode::kResourceExhausted, "full"));
        Say(stream, Refusal(NextRequest(stream), absl::StatusCode::kUnavailable, "draining"));
        return grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
      },
      [](Stream& stream) {  // dies with the request in its hands
        Open(stream);
        NextRequest(stream);
        return grpc::Status(grpc::StatusCode::UNKNOWN, "crash");
      },
      Obey,
  });
  auto client = LabelClient::Connect({teacher.address()}, FastOptions()).value();
  const auto labels = Ask(*client, Inputs(5, 4)).get();
  ASSERT_TRUE(labels.ok()) << labels.status();
  EXPECT_EQ(labels->outputs[0].numbers[6], 8);
}

TEST(LabelClientTest, ASilentReplicaIsGivenUpForAnother) {
  std::promise<uint64_t> cancelled;
  ScriptedTeacher teacher({[&](Stream& stream) {
    Open(stream);
    const v1::LabelRequest first = NextRequest(stream);
    v1::LabelStreamRequest message;
    stream.Read(&message);
    cancelled.set_value(message.cancel().request_id());
    Say(stream, Answer(NextRequest(stream)));
    Say(stream, Refusal(first, absl::StatusCode::kCancelled, "as asked"));  // late, ignored
    Say(stream, Answer(NextRequest(stream)));
    NextRequest(stream);
    return grpc::Status::OK;
  }});
  LabelClient::Options options = FastOptions();
  options.request_timeout_ms = 300;
  auto client = LabelClient::Connect({teacher.address()}, options).value();
  EXPECT_TRUE(Ask(*client, Inputs(0, 2)).get().ok());
  EXPECT_EQ(cancelled.get_future().get(), 1u);
  EXPECT_TRUE(Ask(*client, Inputs(2, 2)).get().ok());
}

// Answers that must never reach a loss.
TEST(LabelClientTest, WrongAnswersNameTheRecordAndTheReason) {
  using Spoil = std::function<void(v1::LabelReply&)>;
  struct Case {
    Spoil spoil;
    absl::StatusCode code;
    std::string message;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Case cases[] = {
      {[&](v1::LabelReply& r) {
         r.mutable_labels(0)->mutable_dense()->mutable_data()->replace(20, 4, reinterpret_cast<const char*>(&nan), 4);
       },
       absl::StatusCode::kDataLoss, "record '2', logits: number 1 is nan"},
      {[](v1::LabelReply& r) { r.mutable_labels(0)->mutable_dense()->set_shape(0, 2); }, absl::StatusCode::kDataLoss,
       "labels of records '0' to '3': expected labels of shape [4, 2], got [2, 2]"},
      {[](v1::LabelReply& r) { r.mutable_labels(0)->mutable_dense()->mutable_data()->pop_back(); },
       absl::StatusCode::kDataLoss, "expected 32 bytes of labels, got 31"},
      {[](v1::LabelReply& r) { r.clear_labels(); }, absl::StatusCode::kDataLoss,
       "asked for 1 outputs, got the labels of 0"},
      {[](v1::LabelReply& r) { r.set_teacher_digest("d2"); }, absl::StatusCode::kFailedPrecondition,
       "digest d2, expected d1"},
      {[](v1::LabelReply& r) {
         r.set_code(3);
         r.set_message("record '1' is odd");
       },
       absl::StatusCode::kInvalidArgument, "record '1' is odd"},
  };
  for (const Case& c : cases) {
    ScriptedTeacher teacher({[&](Stream& stream) {
      Open(stream);
      v1::LabelReply reply = Answer(NextRequest(stream));
      c.spoil(reply);
      Say(stream, reply);
      while (NextRequest(stream).inputs_size() > 0) {
      }
      return grpc::Status::OK;
    }});
    auto client = LabelClient::Connect({teacher.address()}, FastOptions()).value();
    const absl::Status status = Ask(*client, Inputs(0, 8)).get().status();  // the second half is never answered
    EXPECT_EQ(status.code(), c.code);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
    EXPECT_THAT(std::string(status.message()), HasSubstr(teacher.address()));
  }
}

// A replica that breaks the protocol loses its stream; the work is done on the next one.
TEST(LabelClientTest, RepliesNobodyAskedForEndTheStream) {
  const ScriptedTeacher::Script scripts[] = {
      [](Stream& stream) {  // twice
        Open(stream);
        const v1::LabelReply reply = Answer(NextRequest(stream));
        Say(stream, reply);
        Say(stream, reply);
        NextRequest(stream);
        return grpc::Status::OK;
      },
      [](Stream& stream) {  // an unknown id
        Open(stream);
        v1::LabelReply reply = Answer(NextRequest(stream));
        reply.set_request_id(999);
        Say(stream, reply);
        NextRequest(stream);
        return grpc::Status::OK;
      },
      [](Stream& stream) {  // a description in the middle
        Open(stream);
        NextRequest(stream);
        v1::LabelStreamReply message;
        *message.mutable_opened() = Description();
        stream.Write(message);
        NextRequest(stream);
        return grpc::Status::OK;
      },
      [](Stream& stream) {  // text that is not UTF-8: does not parse
        Open(stream);
        Say(stream, Refusal(NextRequest(stream), absl::StatusCode::kInternal, "\xff\xfe"));
        NextRequest(stream);
        return grpc::Status::OK;
      },
  };
  for (const auto& script : scripts) {
    ScriptedTeacher teacher({script, Obey});
    auto client = LabelClient::Connect({teacher.address()}, FastOptions()).value();
    EXPECT_TRUE(Ask(*client, Inputs(0, 4)).get().ok());
    EXPECT_TRUE(Ask(*client, Inputs(4, 4)).get().ok());
  }
}

TEST(LabelClientTest, ConnectRefusesByAddress) {
  struct Case {
    std::function<void(v1::DescribeReply&)> change;
    std::string message;
  };
  const Case cases[] = {
      {[](v1::DescribeReply& d) { d.set_digest("other"); }, "digest 'other', expected digest d1"},
      {[](v1::DescribeReply& d) { d.set_protocol_version(7); }, "protocol version 7"},
      {[](v1::DescribeReply& d) { d.clear_digest(); }, "expected digest d1"},
      {[](v1::DescribeReply& d) { d.mutable_signature()->clear_labels(); }, "without labels"},
      {[](v1::DescribeReply& d) { d.set_stream_credits(0); }, "without labels, credits"},
      {[](v1::DescribeReply& d) { d.add_features()->set_name("embedding"); }, "'embedding' of 0 numbers"},
      {[](v1::DescribeReply& d) {
         d.add_features()->set_name("embedding");
         d.mutable_features(0)->set_width(1 << 30);
       },
       "'embedding' of 1073741824 numbers"},
  };
  for (const Case& c : cases) {
    ScriptedTeacher teacher({[&](Stream& stream) {
      v1::DescribeReply description = Description();
      c.change(description);
      Open(stream, description);
      NextRequest(stream);
      return grpc::Status::OK;
    }});
    LabelClient::Options options = FastOptions();
    options.teacher_digest = kDigest;
    const absl::Status status = LabelClient::Connect({teacher.address()}, options).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
    EXPECT_THAT(std::string(status.message()), HasSubstr(teacher.address()));
  }
}

TEST(LabelClientTest, ADifferentReplicaIsLeftOut) {
  std::promise<void> refused;
  ScriptedTeacher good({Obey});
  ScriptedTeacher other({[&](Stream& stream) {
    Open(stream, Description("other"));
    EXPECT_EQ(NextRequest(stream).inputs_size(), 0);
    refused.set_value();
    return grpc::Status::OK;
  }});
  LabelClient::Options options = FastOptions();
  options.teacher_digest = kDigest;
  auto client = LabelClient::Connect({other.address(), good.address()}, options).value();
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(Ask(*client, Inputs(0, 8)).get().ok());
  refused.get_future().get();
}

TEST(LabelClientTest, ConnectGivesUp) {
  LabelClient::Options options = FastOptions();
  options.give_up_after_ms = 50;
  const absl::Status status = LabelClient::Connect({"127.0.0.1:1"}, options).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("127.0.0.1:1"));
  EXPECT_TRUE(absl::IsInvalidArgument(LabelClient::Connect({}, options).status()));
}

TEST(LabelClientTest, GivesUpWhenTheTeacherIsGone) {
  LabelClient::Options options = FastOptions();
  options.give_up_after_ms = 200;
  auto teacher = std::make_unique<ScriptedTeacher>(std::vector<ScriptedTeacher::Script>{Obey});
  auto client = LabelClient::Connect({teacher->address()}, options).value();
  const std::string address = teacher->address();
  teacher.reset();
  const absl::Status status = Ask(*client, Inputs(0, 1)).get().status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(address));
}

TEST(LabelClientTest, DestructionCancelsAndCallsEveryCallback) {
  std::promise<void> asked;
  ScriptedTeacher teacher({[&](Stream& stream) {
    Open(stream);
    NextRequest(stream);
    NextRequest(stream);
    asked.set_value();
    NextRequest(stream);
    return grpc::Status::OK;
  }});
  auto client = LabelClient::Connect({teacher.address()}, FastOptions()).value();
  auto first = Ask(*client, Inputs(0, 4));
  auto second = Ask(*client, Inputs(4, 40));
  asked.get_future().get();
  client.reset();
  EXPECT_TRUE(absl::IsCancelled(first.get().status()));
  EXPECT_TRUE(absl::IsCancelled(second.get().status()));
}

TEST(LabelClientTest, RefusesWhatItCannotHold) {
  ScriptedTeacher teacher({Obey});
  LabelClient::Options options = FastOptions();
  options.max_waiting_records = 10;
  auto client = LabelClient::Connect({teacher.address()}, options).value();
  EXPECT_TRUE(absl::IsResourceExhausted(Ask(*client, Inputs(0, 11)).get().status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Ask(*client, {}).get().status()));
  EXPECT_TRUE(Ask(*client, Inputs(0, 10)).get().ok());
}

TEST(LabelClientTest, Fp16TravelsAtHalfTheSize) {
  ScriptedTeacher teacher({Obey});
  auto client = LabelClient::Connect({teacher.address()}, FastOptions()).value();
  const auto labels = Ask(*client, Inputs(0, 3), Spec(v1::CODEC_DENSE_FP16)).get().value();
  EXPECT_EQ(labels.bytes, 12);
  EXPECT_THAT(labels.outputs[0].numbers, ElementsAre(0, 0, 1, -1, 2, -2));
}

}  // namespace
}  // namespace polystill::soft_labels
