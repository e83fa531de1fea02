#include "teacher_server/service.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <thread>

#include "runtime/rpc.h"
#include "runtime/tenant.h"
#include "soft_labels/dense.h"
#include "teacher_server/wire.h"

namespace polystill::teacher_server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

constexpr int kClasses = 2;

// Logits are (sum of the ids, their number) of a record, or (id, its place) of a token; "embedding" is the first id,
// "hidden.1" the ids. An id of kPoison gives NaN. Forwards wait while the gate is closed.
class FakeBackend final : public Backend {
 public:
  static constexpr int32_t kPoison = 66;  // 'B'

  explicit FakeBackend(bool judges_tokens) : judges_tokens_(judges_tokens) {}

  absl::StatusOr<std::vector<at::Tensor>> Forward(const Question& question) override {
    MutexLock lock(&mutex_);
    ++begun_;
    changed_.NotifyAll();
    while (closed_) changed_.Wait(&mutex_);
    rows_ += question.ids.size();
    std::vector<at::Tensor> numbers;
    for (const std::string& output : question.outputs) {
      std::vector<float> values;
      for (size_t i = 0; i < question.ids.size(); ++i) Append(output, question, i, &values);
      const int64_t width = output == "embedding" || output == "hidden.1" ? 1 : kClasses;
      numbers.push_back(at::tensor(values, at::kFloat).view({-1, width}));
    }
    return numbers;
  }
  void SetClosed(bool closed) {
    MutexLock lock(&mutex_);
    closed_ = closed;
    changed_.NotifyAll();
  }
  void WaitUntilBegun(int forwards) {
    MutexLock lock(&mutex_);
    while (begun_ < forwards) changed_.Wait(&mutex_);
  }
  size_t rows() {
    MutexLock lock(&mutex_);
    return rows_;
  }
  int begun() {
    MutexLock lock(&mutex_);
    return begun_;
  }

 private:
  void Append(const std::string& output, const Question& question, size_t i, std::vector<float>* values) const {
    const std::vector<int32_t>& ids = question.ids[i];
    if (output == "embedding") {
      values->push_back(ids[0]);
    } else if (output == "hidden.1") {
      values->insert(values->end(), ids.begin(), ids.end());
    } else if (judges_tokens_) {
      for (const int32_t place : question.positions[i])
        values->insert(values->end(), {1.0f * ids[place], 1.0f * place});
    } else {
      const bool poisoned = std::find(ids.begin(), ids.end(), kPoison) != ids.end();
      const float sum = std::accumulate(ids.begin(), ids.end(), 0);
      values->insert(values->end(), {poisoned ? std::numeric_limits<float>::quiet_NaN() : sum, 1.0f * ids.size()});
    }
  }

  const bool judges_tokens_;
  Mutex mutex_;
  CondVar changed_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  int begun_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t rows_ ABSL_GUARDED_BY(mutex_) = 0;
};

class ServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    listening_ = Listen("127.0.0.1:0", {&service_}).value();
    channel_ = Connect(listening_.address);
    stub_ = v1::TeacherService::NewStub(channel_);
    options_.max_records_per_request = 4;
    options_.stream_credits = 8;
    options_.batch.max_delay = std::chrono::microseconds(0);
  }
  void TearDown() override {
    if (backend_ != nullptr) backend_->SetClosed(false);
    listening_.server->Shutdown(std::chrono::system_clock::now());
  }

  // A teacher of texts; a text's ids are its bytes.
  void Serve(v1::Signature::Input input = v1::Signature::INPUT_TEXT, v1::Task task = v1::TASK_CLASSIFICATION) {
    Teacher teacher{.name = "fake", .digest = "d1"};
    teacher.signature.set_input(input);
    teacher.signature.set_vocab_size(256);
    teacher.signature.set_max_length(16);
    for (int i = 0; i < kClasses; ++i) teacher.signature.add_labels("label" + std::to_string(i));
    teacher.signature.set_task(task);
    for (const char* name : {"embedding", "hidden.1"}) {
      v1::Feature& feature = teacher.features.emplace_back();
      feature.set_name(name);
      feature.set_width(1);
    }
    teacher.tokenizer_sha256 = "sha";
    auto backend = std::make_unique<FakeBackend>(task == v1::TASK_TOKEN_CLASSIFICATION);
    backend_ = backend.get();
    teacher.backend = std::move(backend);
    teacher.encode = [](std::string_view text) { return std::vector<int32_t>(text.begin(), text.end()); };
    const EngineOptions options = FitToTeacher(options_, teacher.signature);
    service_.Serve(std::make_unique<Engine>(std::move(teacher), options));
  }

  v1::LabelRequest Request(uint64_t id, const std::vector<std::string>& texts) {
    v1::LabelRequest request;
    request.set_protocol_version(kProtocolVersion);
    request.set_request_id(id);
    for (const std::string& text : texts) {
      auto* input = request.add_inputs();
      input->set_id("rec-" + text.substr(0, 9));
      input->set_text(text);
    }
    return request;
  }

  absl::Status Label(const v1::LabelRequest& request, v1::LabelReply* reply, int64_t deadline_ms = 60'000) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(deadline_ms));
    return FromGrpc(stub_->Label(&context, request, reply));
  }

  TeacherService service_;
  ListeningServer listening_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::TeacherService::Stub> stub_;
  EngineOptions options_;
  FakeBackend* backend_ = nullptr;
};

// A stream stepped by hand.
class Caller {
 public:
  explicit Caller(v1::TeacherService::Stub& stub, bool open = true) : Caller(stub, {}, open) {}
  Caller(v1::TeacherService::Stub& stub, const std::vector<std::string>& tenants, bool open = true) {
    for (const std::string& tenant : tenants) context_.AddMetadata(kTenantKey, tenant);
    stream_ = stub.LabelStream(&context_);
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    if (!open) return;
    Open(kProtocolVersion);
    description_ = Read().opened();
  }
  ~Caller() {
    if (!ended_) context_.TryCancel(), End();
  }
  void Open(int version) {
    v1::LabelStreamRequest message;
    message.mutable_open()->set_protocol_version(version);
    stream_->Write(message);
  }
  bool Send(const v1::LabelRequest& request) {
    v1::LabelStreamRequest message;
    *message.mutable_request() = request;
    return stream_->Write(message);
  }
  void Cancel(uint64_t id) {
    v1::LabelStreamRequest message;
    message.mutable_cancel()->set_request_id(id);
    stream_->Write(message);
  }
  v1::LabelStreamReply Read() {
    v1::LabelStreamReply message;
    more_ = stream_->Read(&message);
    return message;
  }
  v1::LabelReply Reply() { return Read().reply(); }
  void HalfClose() { stream_->WritesDone(); }
  absl::Status End() {
    ended_ = true;
    while (more_) Read();
    return FromGrpc(stream_->Finish());
  }
  const v1::DescribeReply& description() const { return description_; }
  grpc::ClientContext& context() { return context_; }
  grpc::ClientReaderWriter<v1::LabelStreamRequest, v1::LabelStreamReply>& stream() { return *stream_; }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::LabelStreamRequest, v1::LabelStreamReply>> stream_;
  v1::DescribeReply description_;
  bool more_ = true;
  bool ended_ = false;
};

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

TEST_F(ServiceTest, BreakingTheProtocolEndsTheStream) {
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

TEST_F(ServiceTest, BytesThatAreNoMessageEndTheStream) {
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

TEST_F(ServiceTest, CreditsAreKept) {
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

TEST_F(ServiceTest, AFullQueueIsSaidAtOnce) {
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

TEST_F(ServiceTest, CancelAnswersAndDropsTheWork) {
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

TEST_F(ServiceTest, LateWorkNeverReachesTheModel) {
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
  EXPECT_TRUE(absl::IsDeadlineExceeded(Label(Request(4, {"d"}), &reply, /*deadline_ms=*/20)));  // 3 is late by now
  backend_->SetClosed(false);
  EXPECT_EQ(caller.Reply().request_id(), 1u);
  const v1::LabelReply late = caller.Reply();
  EXPECT_EQ(late.request_id(), 3u);
  EXPECT_EQ(late.code(), static_cast<int>(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(backend_->rows(), 1u);
}

TEST_F(ServiceTest, WorkOfACallerThatHasGoneIsDropped) {
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

TEST_F(ServiceTest, HalfCloseLetsWhatIsInFlightEnd) {
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

TEST_F(ServiceTest, DrainFinishesWhatIsInFlightAndRefusesTheRest) {
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
TEST_F(ServiceTest, ACallerThatDoesNotReadIsNotReadFrom) {
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
