#include "cli/run_watcher.h"

#include "runtime/rpc.h"

namespace polystill::cli {
namespace {

constexpr std::chrono::milliseconds kReconnectPause{200};
constexpr std::chrono::seconds kStopDeadline{2};

}  // namespace

RunWatcher::RunWatcher(const std::string& address)
    : stub_(v1::CoordinatorService::NewStub(Connect(address))), thread_([this] { Follow(); }) {}

RunWatcher::~RunWatcher() {
  {
    MutexLock lock(&mutex_);
    closing_ = true;
    if (context_ != nullptr) context_->TryCancel();
    closing_changed_.NotifyAll();
  }
  thread_.join();
}

RunWatcher::Seen RunWatcher::Latest() const {
  MutexLock lock(&mutex_);
  return latest_;
}

absl::Status RunWatcher::Stop(const std::string& reason) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kStopDeadline);
  v1::StopRequest request;
  request.set_protocol_version(kProtocolVersion);
  request.set_reason(reason);
  request.set_run_id(Latest().status.run_id());
  v1::StopReply reply;
  return FromGrpc(stub_->Stop(&context, request, &reply));
}

void RunWatcher::Follow() {
  do {
    FollowOnce();
  } while (!HasEnded(Latest().status) && Pause());
}

void RunWatcher::FollowOnce() {
  grpc::ClientContext context;
  {
    MutexLock lock(&mutex_);
    if (closing_) return;
    context_ = &context;
  }
  v1::WatchRequest request;
  request.set_protocol_version(kProtocolVersion);
  request.set_run_id(Latest().status.run_id());
  const auto stream = stub_->Watch(&context, request);
  v1::RunStatus status;
  while (stream->Read(&status)) {
    MutexLock lock(&mutex_);
    latest_ = {status, std::chrono::steady_clock::now()};
  }
  stream->Finish();
  MutexLock lock(&mutex_);
  context_ = nullptr;
}

bool RunWatcher::Pause() {
  const auto until = std::chrono::steady_clock::now() + kReconnectPause;
  MutexLock lock(&mutex_);
  while (!closing_) {
    const auto left = until - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0)) return true;
    closing_changed_.WaitFor(&mutex_, left);
  }
  return false;
}

}  // namespace polystill::cli
