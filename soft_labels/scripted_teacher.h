#pragma once

#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "polystill/v1/teacher.grpc.pb.h"
#include "runtime/mutex.h"
#include "runtime/rpc.h"
#include "soft_labels/client.h"
#include "soft_labels/dense.h"

// For tests: teacher servers that do what a script says, and questions to them.
namespace polystill::soft_labels {

using Stream = grpc::ServerReaderWriter<v1::LabelStreamReply, v1::LabelStreamRequest>;

inline constexpr char kDigest[] = "d1";

inline v1::DescribeReply Description(const std::string& digest = kDigest) {
  v1::DescribeReply reply;
  reply.set_protocol_version(kProtocolVersion);
  reply.set_name("fake");
  reply.set_digest(digest);
  reply.mutable_signature()->set_input(v1::Signature::INPUT_TEXT);
  for (const char* label : {"a", "b"}) reply.mutable_signature()->add_labels(label);
  reply.set_stream_credits(8);
  reply.set_max_records_per_request(4);
  return reply;
}

// A teacher server, on a free port unless `listen` names one; its n-th stream is played by the n-th script. The last
// script plays the rest too.
class ScriptedTeacher : public v1::TeacherService::Service {
 public:
  using Script = std::function<grpc::Status(Stream&)>;

  explicit ScriptedTeacher(std::vector<Script> scripts, const std::string& listen = "127.0.0.1:0")
      : scripts_(scripts.begin(), scripts.end()), listening_(Listen(listen, {this}).value()) {}
  ~ScriptedTeacher() override { listening_.server->Shutdown(std::chrono::system_clock::now()); }

  const std::string& address() const { return listening_.address; }
  int port() const { return listening_.port; }

 private:
  grpc::Status LabelStream(grpc::ServerContext*, Stream* stream) override {
    Script script;
    {
      MutexLock lock(&mutex_);
      script = scripts_.front();
      if (scripts_.size() > 1) scripts_.pop_front();
    }
    return script(*stream);
  }

  Mutex mutex_;
  std::deque<Script> scripts_ ABSL_GUARDED_BY(mutex_);
  ListeningServer listening_;
};

// The next request; an empty one when the client has gone. Skips cancels.
inline v1::LabelRequest NextRequest(Stream& stream) {
  v1::LabelStreamRequest message;
  while (stream.Read(&message)) {
    if (message.has_request()) return message.request();
  }
  return {};
}

inline bool Open(Stream& stream, const v1::DescribeReply& description = Description()) {
  v1::LabelStreamRequest message;
  if (!stream.Read(&message) || !message.has_open()) return false;
  v1::LabelStreamReply reply;
  *reply.mutable_opened() = description;
  return stream.Write(reply);
}

// Logits of a record: the number in its id, and minus that.
inline v1::LabelReply Answer(const v1::LabelRequest& request, const std::string& digest = kDigest) {
  std::vector<float> logits;
  for (const v1::LabelInput& input : request.inputs()) {
    const float number = std::stof(input.id());
    logits.insert(logits.end(), {number, -number});
  }
  v1::LabelReply reply;
  reply.set_request_id(request.request_id());
  reply.set_teacher_digest(digest);
  *reply.add_labels() = EncodeDense(request.spec().codec(), logits, request.inputs_size(), 2).value();
  return reply;
}

inline void Say(Stream& stream, const v1::LabelReply& reply) {
  v1::LabelStreamReply message;
  *message.mutable_reply() = reply;
  stream.Write(message);
}

inline v1::LabelReply Refusal(const v1::LabelRequest& request, absl::StatusCode code, const std::string& message) {
  v1::LabelReply reply;
  reply.set_request_id(request.request_id());
  reply.set_code(static_cast<int>(code));
  reply.set_message(message);
  reply.set_retry_after_ms(1);
  return reply;
}

// Answers until the client goes.
inline grpc::Status Obey(Stream& stream) {
  if (!Open(stream)) return grpc::Status::OK;
  while (true) {
    const v1::LabelRequest request = NextRequest(stream);
    if (request.inputs_size() == 0) return grpc::Status::OK;
    Say(stream, Answer(request));
  }
}

inline LabelClient::Options FastOptions() {
  LabelClient::Options options;
  options.give_up_after_ms = 20'000;
  options.backoff = {.first_ms = 1, .max_ms = 5};
  return options;
}

inline std::vector<v1::LabelInput> Inputs(int first, int count) {
  std::vector<v1::LabelInput> inputs(count);
  for (int i = 0; i < count; ++i) {
    inputs[i].set_id(std::to_string(first + i));
    inputs[i].set_text("text");
  }
  return inputs;
}

inline v1::LabelSpec Spec(v1::Codec codec = v1::CODEC_DENSE_FP32) {
  v1::LabelSpec spec;
  spec.set_codec(codec);
  return spec;
}

inline std::future<absl::StatusOr<LabelClient::Labels>> Ask(LabelClient& client, std::vector<v1::LabelInput> inputs,
                                                            v1::LabelSpec spec = Spec()) {
  auto promise = std::make_shared<std::promise<absl::StatusOr<LabelClient::Labels>>>();
  client.Label(std::move(spec), std::move(inputs),
               [promise](absl::StatusOr<LabelClient::Labels> labels) { promise->set_value(std::move(labels)); });
  return promise->get_future();
}

}  // namespace polystill::soft_labels
