#include "teacher_server/service.h"

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/rpc.h"
#include "runtime/utf8.h"
#include "teacher_server/call_tenant.h"

namespace polystill::teacher_server {
namespace {

// A stream that is refused.
class RefusedStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit RefusedStream(const absl::Status& status) { Finish(ToGrpc(status)); }

 private:
  void OnDone() override { delete this; }
};

// Gives the teacher's head away, piece by piece, or refuses to.
class HeadCall final : public grpc::ServerWriteReactor<v1::HeadChunk> {
 public:
  explicit HeadCall(const absl::Status& status) { Finish(ToGrpc(status)); }
  // `head` outlives it; `gone` is called last.
  HeadCall(const absl::Status& status, std::string_view head, std::function<void()> gone)
      : left_(head), gone_(std::move(gone)) {
    status.ok() ? WriteNext() : Finish(ToGrpc(status));
  }

 private:
  static constexpr size_t kChunkBytes = 1 << 20;

  void WriteNext() {
    if (left_.empty()) return Finish(grpc::Status::OK);
    chunk_.set_data(std::string(left_.substr(0, kChunkBytes)));
    left_.remove_prefix(chunk_.data().size());
    StartWrite(&chunk_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) left_ = {};  // nobody reads any more
    WriteNext();
  }
  void OnDone() override {
    if (gone_) gone_();
    delete this;
  }

  std::string_view left_;
  const std::function<void()> gone_;
  v1::HeadChunk chunk_;
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

absl::Status TeacherService::AdmitCall() {
  MutexLock lock(&mutex_);
  absl::Status status = Admit();
  if (calls_ >= kMaxCalls) status.Update(absl::ResourceExhaustedError("too many calls at once; try again later"));
  if (status.ok()) ++calls_;
  return status;
}

grpc::ServerWriteReactor<v1::HeadChunk>* TeacherService::GetHead(grpc::CallbackServerContext*,
                                                                 const v1::GetHeadRequest* request) {
  absl::Status status = CheckProtocolVersion(request->protocol_version());
  if (status.ok()) status = AdmitCall();
  if (!status.ok()) return new HeadCall(status);
  const v1::DescribeReply& description = engine_->description();
  if (!description.has_head() || request->digest() != description.head().digest()) {
    status = absl::NotFoundError(absl::StrCat("teacher '", description.name(), "' has ",
                                              description.has_head() ? "another output head" : "no output head to give",
                                              " than one with digest '", Excerpt(request->digest()), "'"));
  }
  return new HeadCall(status, engine_->head_bytes(), [this] { CallGone(); });
}

grpc::ServerUnaryReactor* TeacherService::Label(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                grpc::ByteBuffer* reply) {
  if (const absl::Status status = AdmitCall(); !status.ok()) return FinishWith(context, status);
  return new LabelCall(engine_.get(), context, *request, reply, [this] { CallGone(); });
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* TeacherService::LabelStream(
    grpc::CallbackServerContext* context) {
  const absl::StatusOr<std::string> tenant = TenantOf(*context);
  std::shared_ptr<teacher_server::LabelStream> stream;
  {
    MutexLock lock(&mutex_);
    absl::Status status = Admit();
    if (streams_.size() >= kMaxStreams) {
      status.Update(absl::ResourceExhaustedError("too many label streams; ask another replica"));
    }
    status.Update(tenant.status());
    if (!status.ok()) return new RefusedStream(status);
    stream = std::make_shared<teacher_server::LabelStream>(
        engine_.get(), *tenant, [this](teacher_server::LabelStream* gone) { StreamGone(gone); });
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
