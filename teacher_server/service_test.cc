#include "teacher_server/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "soft_labels/dense.h"
#include "teacher_server/service_fixture.h"

namespace polystill::teacher_server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(ServiceTest, RefusesUntilItIsLoaded) {
  grpc::ClientContext context;
  v1::DescribeRequest request;
  request.set_protocol_version(kProtocolVersion);
  v1::DescribeReply description;
  EXPECT_TRUE(absl::IsUnavailable(FromGrpc(stub_->Describe(&context, request, &description))));
  v1::LabelReply reply;
  EXPECT_TRUE(absl::IsUnavailable(Label(Request(1, {"a"}), &reply)));
  EXPECT_TRUE(absl::IsUnavailable(Caller(*stub_).End()));
}

TEST_F(ServiceTest, Describes) {
  Serve();
  for (const int version : {kProtocolVersion, 0, 2}) {
    grpc::ClientContext context;
    v1::DescribeRequest request;
    request.set_protocol_version(version);
    v1::DescribeReply reply;
    const absl::Status status = FromGrpc(stub_->Describe(&context, request, &reply));
    if (version != kProtocolVersion) {
      EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
      continue;
    }
    EXPECT_EQ(reply.digest(), "d1");
    EXPECT_EQ(reply.stream_credits(), 8);
    EXPECT_EQ(reply.max_records_per_request(), 4);
    EXPECT_TRUE(reply.repeatable());
    EXPECT_EQ(reply.signature().labels_size(), kClasses);
    ASSERT_EQ(reply.features_size(), 2);
    EXPECT_EQ(reply.features(1).name(), "hidden.1");
    EXPECT_EQ(reply.features(1).width(), 1);
    EXPECT_EQ(reply.tokenizer_sha256(), "sha");
  }
}

TEST_F(ServiceTest, LabelsUnaryAndByStream) {
  Serve();
  v1::LabelReply reply;
  ASSERT_TRUE(Label(Request(7, {"a", "ab"}), &reply).ok());
  EXPECT_EQ(reply.request_id(), 7u);
  EXPECT_EQ(reply.teacher_digest(), "d1");
  EXPECT_THAT(soft_labels::DecodeDense(reply.labels(0), 2, 2).value(), ElementsAre(97, 1, 195, 2));
  Caller caller(*stub_);
  EXPECT_EQ(caller.description().digest(), "d1");
  v1::LabelRequest request = Request(8, {"b"});
  request.mutable_spec()->set_codec(v1::CODEC_DENSE_FP16);
  caller.Send(request);
  EXPECT_THAT(soft_labels::DecodeDense(caller.Reply().labels(0), 1, 2).value(), ElementsAre(98, 1));
  caller.HalfClose();
  EXPECT_TRUE(caller.End().ok());
}

TEST_F(ServiceTest, IdsAreLabelled) {
  Serve(v1::Signature::INPUT_IDS);
  v1::LabelRequest request = Request(1, {});
  for (const int id : {3, 4}) request.add_inputs()->mutable_ids()->add_ids(id);
  v1::LabelReply reply;
  ASSERT_TRUE(Label(request, &reply).ok());
  EXPECT_THAT(soft_labels::DecodeDense(reply.labels(0), 2, 2).value(), ElementsAre(3, 1, 4, 1));
}

TEST_F(ServiceTest, SeveralOutputsComeOfOneForward) {
  Serve();
  v1::LabelRequest request = Request(1, {});
  for (const std::vector<int>& ids : {std::vector{3, 4}, {5, 6, 7}}) {
    request.add_inputs()->mutable_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  }
  for (const char* name : {"hidden.1", "logits", "embedding"}) request.mutable_spec()->add_outputs(name);
  v1::LabelReply reply;
  ASSERT_TRUE(Label(request, &reply).ok());
  ASSERT_EQ(reply.labels_size(), 3);
  EXPECT_THAT(soft_labels::DecodeDense(reply.labels(0), 5, 1).value(), ElementsAre(3, 4, 5, 6, 7));
  EXPECT_THAT(soft_labels::DecodeDense(reply.labels(1), 2, 2).value(), ElementsAre(7, 2, 18, 3));
  EXPECT_THAT(soft_labels::DecodeDense(reply.labels(2), 2, 1).value(), ElementsAre(3, 5));
  EXPECT_EQ(backend_->begun(), 1);
}

TEST_F(ServiceTest, LogitsOfTokensComeWhereTheyAreWanted) {
  Serve(v1::Signature::INPUT_TEXT, v1::TASK_TOKEN_CLASSIFICATION);
  v1::LabelRequest request = Request(1, {});
  for (const std::vector<int>& ids : {std::vector{3, 4}, {5, 6, 7}}) {
    request.add_inputs()->mutable_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  }
  for (const int place : {0, 2}) request.mutable_inputs(1)->add_positions(place);
  v1::LabelReply reply;
  ASSERT_TRUE(Label(request, &reply).ok());
  EXPECT_THAT(soft_labels::DecodeDense(reply.labels(0), 4, 2).value(), ElementsAre(3, 0, 4, 1, 5, 0, 7, 2));
  EXPECT_TRUE(absl::IsInvalidArgument(Label(Request(2, {"text"}), &reply)));
}

// Requests that wait together are answered together, but each with what it asked for.
TEST_F(ServiceTest, RequestsForDifferentOutputsMeetInABatch) {
  Serve();
  Caller caller(*stub_);
  backend_->SetClosed(true);
  caller.Send(Request(1, {"a"}));
  backend_->WaitUntilBegun(1);
  const char* outputs[] = {"embedding", "logits", "embedding"};
  for (int i = 0; i < 3; ++i) {
    v1::LabelRequest request = Request(2 + i, {std::string(1, static_cast<char>('b' + i))});
    request.mutable_spec()->add_outputs(outputs[i]);
    caller.Send(request);
  }
  backend_->SetClosed(false);
  std::map<uint64_t, float> first;
  for (int i = 0; i < 4; ++i) {
    const v1::LabelReply reply = caller.Reply();
    const int64_t width = reply.labels(0).dense().shape(1);
    EXPECT_EQ(width, reply.request_id() % 2 == 1 ? 2 : 1);
    first[reply.request_id()] = soft_labels::DecodeDense(reply.labels(0), 1, width).value()[0];
  }
  EXPECT_THAT(first, ElementsAre(std::pair(1, 97), std::pair(2, 98), std::pair(3, 99), std::pair(4, 100)));
}

TEST_F(ServiceTest, AnAnswerBeyondTheBatchIsRefusedBeforeAnyWork) {
  options_.batch.max_bytes = 40;
  Serve();
  v1::LabelRequest request = Request(1, {});
  request.add_inputs()->mutable_ids()->mutable_ids()->Resize(11, 5);
  request.mutable_spec()->add_outputs("hidden.1");
  v1::LabelReply reply;
  const absl::Status status = Label(request, &reply);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("44 bytes, more than 40"));
  EXPECT_EQ(backend_->begun(), 0);
  request.mutable_inputs(0)->mutable_ids()->mutable_ids()->Truncate(10);
  EXPECT_TRUE(Label(request, &reply).ok());
}

// The same errors by both ways, and a stream that lives on. validation_test.cc has every field.
TEST_F(ServiceTest, TheTenantIsInTheMetadata) {
  Serve();
  struct Case {
    std::vector<std::string> tenants;
    std::string error;
  };
  const Case cases[] = {{{}, ""},
                        {{"run-7.b_c"}, ""},
                        {{""}, ""},
                        {{"Run"}, "'Run' is no tenant"},
                        {{std::string(65, 'a')}, "at most 64"},
                        {{"a", "a"}, "sent twice"}};
  for (const Case& c : cases) {
    grpc::ClientContext context;
    for (const std::string& tenant : c.tenants) context.AddMetadata(kTenantKey, tenant);
    v1::LabelReply reply;
    const absl::Status status = FromGrpc(stub_->Label(&context, Request(1, {"abc"}), &reply));
    EXPECT_EQ(status.code(), c.error.empty() ? absl::StatusCode::kOk : absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.error));
    Caller caller(*stub_, c.tenants);
    const absl::Status end = (caller.HalfClose(), caller.End());
    EXPECT_EQ(end.code(), status.code()) << end;
    EXPECT_THAT(std::string(end.message()), HasSubstr(c.error));
  }
}

TEST_F(ServiceTest, BadRequestsAreAnsweredByRecord) {
  Serve();
  Caller caller(*stub_);
  struct Case {
    v1::LabelRequest request;
    absl::StatusCode code;
    std::string message;
  };
  v1::LabelRequest other_teacher = Request(1, {"a"});
  other_teacher.mutable_spec()->set_teacher_digest("d2");
  v1::LabelRequest old = Request(1, {"a"});
  old.set_protocol_version(0);
  v1::LabelRequest halves = Request(1, {"a", "x"});
  halves.mutable_spec()->set_codec(v1::CODEC_DENSE_FP16);
  const Case cases[] = {
      {Request(1, {}), absl::StatusCode::kInvalidArgument, "1 to 4 inputs"},
      {Request(1, {"a", "b", "c", "d", "e"}), absl::StatusCode::kInvalidArgument, "1 to 4 inputs, this one 5"},
      {Request(1, {"a", std::string((1 << 20) + 1, 'x')}), absl::StatusCode::kInvalidArgument,
       "record 'rec-xxxxxxxxx'"},
      {Request(1, {"a", "caf\xe9"}), absl::StatusCode::kInvalidArgument, "not UTF-8"},
      {other_teacher, absl::StatusCode::kFailedPrecondition, "asks for d2"},
      {old, absl::StatusCode::kFailedPrecondition, "protocol version 0"},
      {Request(1, {"a", "B"}), absl::StatusCode::kInternal, "record 'rec-B', logits: number 0 is nan"},
  };
  for (const Case& c : cases) {
    v1::LabelReply reply;
    const absl::Status status = Label(c.request, &reply);
    EXPECT_EQ(status.code(), c.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
    caller.Send(c.request);
    const v1::LabelReply streamed = caller.Reply();
    EXPECT_EQ(streamed.request_id(), 1u);
    EXPECT_EQ(streamed.code(), static_cast<int>(c.code));
    EXPECT_THAT(streamed.message(), HasSubstr(c.message));
  }
  caller.Send(Request(2, {"a"}));
  EXPECT_EQ(caller.Reply().code(), 0);
}

TEST_F(ServiceTest, ABadRecordDoesNotHurtOthersInItsBatch) {
  Serve();
  Caller caller(*stub_);
  backend_->SetClosed(true);
  caller.Send(Request(1, {"a"}));
  backend_->WaitUntilBegun(1);
  caller.Send(Request(2, {"B"}));
  caller.Send(Request(3, {"c"}));
  backend_->SetClosed(false);
  std::map<uint64_t, int> codes;
  for (int i = 0; i < 3; ++i) {
    const v1::LabelReply reply = caller.Reply();
    codes[reply.request_id()] = reply.code();
  }
  EXPECT_THAT(codes, ElementsAre(std::pair(1, 0), std::pair(2, 13), std::pair(3, 0)));
}

TEST_F(ServiceTest, AnOversizedMessageEndsTheCall) {
  Serve();
  v1::LabelRequest request = Request(1, {"a"});
  request.mutable_inputs(0)->set_text(std::string(kMaxMessageBytes, 'x'));
  auto arguments = grpc::ChannelArguments();
  arguments.SetMaxSendMessageSize(-1);
  auto stub = v1::TeacherService::NewStub(
      grpc::CreateCustomChannel(listening_.address, grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  v1::LabelReply reply;
  EXPECT_TRUE(absl::IsResourceExhausted(FromGrpc(stub->Label(&context, request, &reply))));
  Caller caller(*stub);
  caller.Send(request);
  EXPECT_TRUE(absl::IsResourceExhausted(caller.End()));
}

}  // namespace
}  // namespace polystill::teacher_server
