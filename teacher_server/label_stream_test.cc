#include "teacher_server/label_stream.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <set>
#include <thread>

#include "teacher_server/service_fixture.h"

// Streams of a service: their protocol, credits and cancels, and how they end.
namespace polystill::teacher_server {
namespace {

using testing::HasSubstr;
using testing::UnorderedElementsAre;

using LabelStreamTest = ServiceTest;

TEST_F(LabelStreamTest, BreakingTheProtocolEndsTheStream) {
  Serve();
  backend_->SetClosed(true);
  struct Case {
    std::function<void(Caller&)> act;
    absl::StatusCode code;
    std::string message;
  };
  const Case cases[] = {
      {[&](Caller& c) { c.Send(Request(1, {"a"})); }, absl::StatusCode::kInvalidArgument, "must be `open`"},
      {[](Caller& c) { c.Open(9); }, absl::StatusCode::kFailedPrecondition, "protocol version 9"},
      {[](Caller& c) { c.Open(1), c.Open(1); }, absl::StatusCode::kInvalidArgument, "sent twice"},
      {[](Caller& c) { c.stream().Write({}); }, absl::StatusCode::kInvalidArgument, "this one none"},
      {[&](Caller& c) { c.Open(1), c.Send(Request(5, {"a"})), c.Send(Request(5, {"a"})); },
       absl::StatusCode::kInvalidArgument, "request_id 5 is still in flight"},
  };
  for (const Case& c : cases) {
    Caller caller(*stub_, /*open=*/false);
    c.act(caller);
    const absl::Status status = caller.End();
    EXPECT_EQ(status.code(), c.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST_F(LabelStreamTest, BytesThatAreNoMessageEndTheStream) {
  Serve();
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto stream = stub.PrepareCall(&context, "/polystill.v1.TeacherService/LabelStream", &queue);
  const auto wait = [&] {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
  };
  stream->StartCall(nullptr);
  wait();
  const grpc::Slice slice("\x0a\xff\xff\xff");
  stream->Write(grpc::ByteBuffer(&slice, 1), nullptr);
  wait();
  grpc::Status status;
  stream->Finish(&status, nullptr);
  wait();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("not a polystill.v1.LabelStreamRequest"));
}

TEST_F(LabelStreamTest, CreditsAreKept) {
  Serve();
  Caller caller(*stub_);
  backend_->SetClosed(true);
  caller.Send(Request(1, {"a", "b", "c", "d"}));
  caller.Send(Request(2, {"a", "b", "c"}));
  caller.Send(Request(3, {"a", "b"}));  // one too many
  const v1::LabelReply refused = caller.Reply();
  EXPECT_EQ(refused.request_id(), 3u);
  EXPECT_EQ(refused.code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_GT(refused.retry_after_ms(), 0);
  backend_->SetClosed(false);
  EXPECT_THAT((std::vector<uint64_t>{caller.Reply().request_id(), caller.Reply().request_id()}),
              UnorderedElementsAre(1, 2));
  caller.Send(Request(4, {"a", "b", "c", "d"}));
  EXPECT_EQ(caller.Reply().code(), 0);
}

TEST_F(LabelStreamTest, AFullQueueIsSaidAtOnce) {
  options_.queue.max_records = 4;
  Serve();
  Caller caller(*stub_);
  backend_->SetClosed(true);
  caller.Send(Request(1, {"a"}));
  backend_->WaitUntilBegun(1);
  caller.Send(Request(2, {"a", "b", "c"}));
  caller.Send(Request(3, {"a", "b"}));
  const v1::LabelReply refused = caller.Reply();
  EXPECT_EQ(refused.request_id(), 3u);
  EXPECT_EQ(refused.code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(refused.retry_after_ms(), options_.retry_after_ms);
  v1::LabelReply reply;
  EXPECT_TRUE(absl::IsResourceExhausted(Label(Request(9, {"a", "b"}), &reply)));
}

TEST_F(LabelStreamTest, CancelAnswersAndDropsTheWork) {
  Serve();
  Caller caller(*stub_);
  backend_->SetClosed(true);
  caller.Send(Request(1, {"a"}));
  backend_->WaitUntilBegun(1);
  caller.Send(Request(2, {"b"}));
  caller.Cancel(2);
  caller.Cancel(99);  // unknown: answered already, or never asked
  const v1::LabelReply cancelled = caller.Reply();
  EXPECT_EQ(cancelled.request_id(), 2u);
  EXPECT_EQ(cancelled.code(), static_cast<int>(absl::StatusCode::kCancelled));
  caller.Send(Request(2, {"c", "d"}));  // the id is free again
  backend_->SetClosed(false);
  EXPECT_EQ(caller.Reply().request_id(), 1u);
  const v1::LabelReply again = caller.Reply();
  EXPECT_EQ(again.request_id(), 2u);
  EXPECT_EQ(again.labels(0).dense().shape(0), 2);
  EXPECT_EQ(backend_->rows(), 3u);
}

// Answers of 4 MiB each: more than 64 MiB of them are under way.
TEST_F(LabelStreamTest, CancelsAreHeardWhileRequestsAreHeld) {
  embedding_width_ = 1 << 20;
  options_.stream_credits = 64;
  Serve();
  Caller caller(*stub_);
  backend_->SetClosed(true);
  const auto send = [&](uint64_t id) {
    v1::LabelRequest request = Request(id, {"a"});
    request.mutable_spec()->add_outputs("embedding");
    caller.Send(request);
  };
  send(1);
  backend_->WaitUntilBegun(1);
  for (uint64_t id = 2; id <= 20; ++id) send(id);
  for (const uint64_t id : {20, 2, 19}) {  // held, begun, held
    caller.Cancel(id);
    const v1::LabelReply reply = caller.Reply();
    EXPECT_EQ(reply.request_id(), id);
    EXPECT_EQ(reply.code(), static_cast<int>(absl::StatusCode::kCancelled));
  }
  backend_->SetClosed(false);
  std::set<uint64_t> answered;
  for (int i = 0; i < 17; ++i) {
    const v1::LabelReply reply = caller.Reply();
    EXPECT_EQ(reply.code(), 0) << reply.message();
    EXPECT_EQ(reply.labels(0).dense().data().size(), size_t{4} << 20);
    answered.insert(reply.request_id());
  }
  EXPECT_EQ(answered.size(), 17u);
  EXPECT_EQ(backend_->rows(), 17u);
}

TEST_F(LabelStreamTest, TheIdOfARequestThatIsHeldIsTaken) {
  embedding_width_ = 1 << 20;
  options_.stream_credits = 64;
  Serve();
  Caller caller(*stub_);
  backend_->SetClosed(true);
  v1::LabelRequest request = Request(1, {"a"});
  request.mutable_spec()->add_outputs("embedding");
  for (uint64_t id = 1; id <= 20; ++id) {
    request.set_request_id(id);
    caller.Send(request);
  }
  caller.Send(request);
  const absl::Status status = caller.End();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("request_id 20 is still in flight"));
}

TEST_F(LabelStreamTest, LateWorkNeverReachesTheModel) {
  Serve();
  Caller caller(*stub_);
  backend_->SetClosed(true);
  caller.Send(Request(1, {"a"}));
  backend_->WaitUntilBegun(1);
  v1::LabelReply reply;
  EXPECT_TRUE(absl::IsDeadlineExceeded(Label(Request(2, {"b"}), &reply, /*deadline_ms=*/20)));
  v1::LabelRequest hasty = Request(3, {"c"});
  hasty.set_timeout_ms(1);
  caller.Send(hasty);
  EXPECT_TRUE(absl::IsDeadlineExceeded(Label(Request(4, {"d"}), &reply, /*deadline_ms=*/20)));
  // The server's clock begins with what it receives: all that came before this answer is late 20 ms after it.
  caller.Send(Request(5, {}));
  EXPECT_EQ(caller.Reply().request_id(), 5u);
  const auto late_by = std::chrono::steady_clock::now() + std::chrono::milliseconds(21);
  while (std::chrono::steady_clock::now() < late_by) std::this_thread::yield();
  backend_->SetClosed(false);
  EXPECT_EQ(caller.Reply().request_id(), 1u);
  const v1::LabelReply late = caller.Reply();
  EXPECT_EQ(late.request_id(), 3u);
  EXPECT_EQ(late.code(), static_cast<int>(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(backend_->rows(), 1u);
}

TEST_F(LabelStreamTest, WorkOfACallerThatHasGoneIsDropped) {
  Serve();
  backend_->SetClosed(true);
  Caller first(*stub_);
  first.Send(Request(1, {"a"}));
  backend_->WaitUntilBegun(1);
  {
    Caller gone(*stub_);
    gone.Send(Request(1, {"b"}));
    gone.Send(Request(2, {}));
    EXPECT_EQ(gone.Reply().request_id(), 2u);  // so 1 is in the queue
  }
  while (service_.streams() > 1) std::this_thread::yield();
  first.Send(Request(2, {"c"}));
  backend_->SetClosed(false);
  EXPECT_EQ(first.Reply().code(), 0);
  EXPECT_EQ(first.Reply().code(), 0);
  EXPECT_EQ(backend_->rows(), 2u);
  EXPECT_TRUE(service_.Drain(std::chrono::seconds(60)));
}

TEST_F(LabelStreamTest, HalfCloseLetsWhatIsInFlightEnd) {
  Serve();
  Caller caller(*stub_);
  backend_->SetClosed(true);
  for (uint64_t id = 1; id <= 8; ++id) caller.Send(Request(id, {"a"}));
  caller.HalfClose();
  backend_->WaitUntilBegun(1);
  backend_->SetClosed(false);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(caller.Reply().code(), 0);
  EXPECT_TRUE(caller.End().ok());
}

TEST_F(LabelStreamTest, DrainFinishesWhatIsInFlightAndRefusesTheRest) {
  Serve();
  Caller busy(*stub_), idle(*stub_);
  backend_->SetClosed(true);
  busy.Send(Request(1, {"a"}));
  backend_->WaitUntilBegun(1);
  EXPECT_FALSE(service_.Drain(std::chrono::milliseconds(0)));
  EXPECT_TRUE(absl::IsUnavailable(idle.End()));
  busy.Send(Request(2, {"b"}));
  const v1::LabelReply refused = busy.Reply();
  EXPECT_EQ(refused.request_id(), 2u);
  EXPECT_EQ(refused.code(), static_cast<int>(absl::StatusCode::kUnavailable));
  v1::LabelReply reply;
  EXPECT_TRUE(absl::IsUnavailable(Label(Request(3, {"c"}), &reply)));
  EXPECT_TRUE(absl::IsUnavailable(Caller(*stub_).End()));
  backend_->SetClosed(false);
  EXPECT_EQ(busy.Reply().request_id(), 1u);
  EXPECT_TRUE(absl::IsUnavailable(busy.End()));
  EXPECT_TRUE(service_.Drain(std::chrono::seconds(60)));
}

// Errors cost no credits, so the bound for a caller that does not read is that it is not read from either.
TEST_F(LabelStreamTest, ACallerThatDoesNotReadIsNotReadFrom) {
  Serve();
  constexpr int kRequests = 20'000;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
  // A small fixed window for what the server sends, so that it fills after some hundred errors.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 65'536);
  const auto narrow = v1::TeacherService::NewStub(
      grpc::CreateCustomChannel(listening_.address, grpc::InsecureChannelCredentials(), arguments));
  auto stream = narrow->LabelStream(&context);
  v1::LabelStreamRequest message;
  message.mutable_open()->set_protocol_version(kProtocolVersion);
  stream->Write(message);
  *message.mutable_request() = Request(1, {"a"});
  message.mutable_request()->mutable_inputs(0)->set_id(std::string(10'000, 'i'));
  int written = 0;
  while (written < kRequests && stream->Write(message)) ++written;
  EXPECT_LT(written, kRequests);
  context.TryCancel();
  EXPECT_TRUE(service_.Drain(std::chrono::seconds(60)));
}

}  // namespace
}  // namespace polystill::teacher_server
