#pragma once

#include <ATen/ATen.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "runtime/rpc.h"
#include "runtime/tenant.h"
#include "teacher_server/service.h"

// A teacher service on a free port with a model that tests can hold up, and a caller of it that is stepped by hand.
namespace polystill::teacher_server {

inline constexpr int kClasses = 2;

// Logits are (sum of the ids, their number) of a record, or (id, its place) of a token; "embedding" is the first id, as
// often as it is wide, "hidden.1" the ids. An id of kPoison gives NaN. Forwards wait while the gate is closed.
class FakeBackend final : public Backend {
 public:
  static constexpr int32_t kPoison = 66;  // 'B'

  FakeBackend(bool judges_tokens, int embedding_width)
      : judges_tokens_(judges_tokens), embedding_width_(embedding_width) {}

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
      const int64_t width = output == "embedding" ? embedding_width_ : output == "hidden.1" ? 1 : kClasses;
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
      values->insert(values->end(), embedding_width_, ids[0]);
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
  const int embedding_width_;
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
      feature.set_width(std::string(name) == "embedding" ? embedding_width_ : 1);
    }
    teacher.tokenizer_sha256 = "sha";
    auto backend = std::make_unique<FakeBackend>(task == v1::TASK_TOKEN_CLASSIFICATION, embedding_width_);
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
  int embedding_width_ = 1;
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

}  // namespace polystill::teacher_server
