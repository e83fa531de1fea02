#include "teacher_server/service.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/rpc.h"

namespace polystill::teacher_server {
namespace {

// A stream that is refused.
class RefusedStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit RefusedStream(const absl::Status& status) { Finish(ToGrpc(status)); }

 private:
  void OnDone() override { delete this; }
};

// For a teacher to be loaded, or calls to end; of full queues the engine says more.
constexpr int64_t kRetryAfterMs = 250;

grpc::ServerUnaryReactor* FinishWith(grpc::CallbackServerContext* context, const absl::Status& status) {
  if (absl::IsUnavailable(status) || absl::IsResourceExhausted(status)) AddRetryAfter(context, kRetryAfterMs);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

}  // namespace

void TeacherService::Serve(std::unique_ptr<Engine> engine) {
  MutexLock lock(&mutex_);
  engine_ = std::move(engine);
  if (state_ == State::kLoading) state_ = State::kServing;
}

bool TeacherService::Drain(std::chrono::milliseconds patience) {
  std::vector<std::shared_ptr<teacher_server::LabelStream>> streams;
  {
    MutexLock lock(&mutex_);
    state_ = State::kDraining;
    streams.assign(streams_.begin(), streams_.end());
  }
  for (const auto& stream : streams) stream->Drain();
  streams.clear();
  const auto end = std::chrono::steady_clock::now() + patience;
  MutexLock lock(&mutex_);
  while (calls_ > 0 || !streams_.empty()) {
    const auto left = end - std::chrono::steady_clock::now();
    if (left <= left.zero()) return false;
    idle_.WaitFor(&mutex_, left);
  }
  return true;
}

absl::Status TeacherService::Admit() const {
  switch (state_) {
    case State::kLoading:
      return absl::UnavailableError("the teacher is not loaded yet; try again later");
    case State::kDraining:
      return absl::UnavailableError("the teacher server is draining; ask another replica");
    case State::kServing:
      return absl::OkStatus();
  }
  return absl::InternalError("unknown state");
}

grpc::ServerUnaryReactor* TeacherService::Describe(grpc::CallbackServerContext* context,
                                                   const v1::DescribeRequest* request, v1::DescribeReply* reply) {
  absl::Status status = CheckProtocolVersion(request->protocol_version());
  MutexLock lock(&mutex_);
  status.Update(Admit());
  if (status.ok()) *reply = engine_->description();
  return FinishWith(context, status);
}

grpc::ServerUnaryReactor* TeacherService::Label(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                grpc::ByteBuffer* reply) {
  {
    MutexLock lock(&mutex_);
    absl::Status status = Admit();
    if (calls_ >= kMaxCalls) status.Update(absl::ResourceExhaustedError("too many calls at once; try again later"));
    if (!status.ok()) return FinishWith(context, status);
    ++calls_;
  }
  return new LabelCall(engine_.get(), context, *request, reply, [this] { CallGone(); });
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* TeacherService::LabelStream(grpc::CallbackServerContext*) {
  std::shared_ptr<teacher_server::LabelStream> stream;
  {
    MutexLock lock(&mutex_);
    absl::Status status = Admit();
    if (streams_.size() >= kMaxStreams) {
      status.Update(absl::ResourceExhaustedError("too many label streams; ask another replica"));
    }
    if (!status.ok()) return new RefusedStream(status);
    stream = std::make_shared<teacher_server::LabelStream>(
        engine_.get(), [this](teacher_server::LabelStream* gone) { StreamGone(gone); });
    streams_.insert(stream);
  }
  stream->Start();
  return stream.get();
}

void TeacherService::CallGone() {
  MutexLock lock(&mutex_);
  --calls_;
  idle_.NotifyAll();
}

void TeacherService::StreamGone(teacher_server::LabelStream* gone) {
  std::shared_ptr<teacher_server::LabelStream> last;  // destroyed after the mutex is free
  MutexLock lock(&mutex_);
  const auto found = std::find_if(streams_.begin(), streams_.end(), [&](const auto& s) { return s.get() == gone; });
  last = *found;
  streams_.erase(found);
  idle_.NotifyAll();
}

}  // namespace polystill::teacher_server
