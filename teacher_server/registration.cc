#include "teacher_server/registration.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/counter_rng.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "runtime/utf8.h"

namespace polystill::teacher_server {
namespace {

using std::chrono::milliseconds;

// Addresses are unique among the servers that run at a time; the start distinguishes one after another.
std::string ServerId(const std::string& address) {
  const uint64_t start = std::chrono::system_clock::now().time_since_epoch().count();
  return absl::StrCat(address, "-", getpid(), "-", absl::Hex(CombineKey(NameWord(address), start)));
}

}  // namespace

Registration::Registration(Options options, Load load, Ended ended)
    : options_(std::move(options)),
      load_(std::move(load)),
      ended_(std::move(ended)),
      channel_(Connect(options_.coordinator)),
      stub_(v1::CoordinatorService::NewStub(channel_)),
      thread_([this] {
        const absl::Status status = Run();
        MutexLock lock(&mutex_);
        ended_(leaving_ ? absl::CancelledError("left the run") : status);
      }) {}

Registration::~Registration() {
  Tell(&leaving_);
  context_.TryCancel();
  thread_.join();
}

absl::Status Registration::Run() {
  RETURN_IF_ERROR(WaitForCoordinator());
  stream_ = stub_->Teach(&context_);
  v1::TeacherMessage hello;
  hello.mutable_hello()->set_protocol_version(kProtocolVersion);
  hello.mutable_hello()->set_server_id(ServerId(options_.address));
  hello.mutable_hello()->set_teacher(options_.teacher);
  hello.mutable_hello()->set_address(options_.address);
  hello.mutable_hello()->set_pid(getpid());
  Send(hello);
  std::thread heartbeats([this] { Heartbeats(); });
  const std::optional<absl::Status> ordered = Obey();
  Tell(&over_);
  heartbeats.join();  // from here on this thread alone uses the stream
  if (ordered.has_value()) SayGoodbye();
  const grpc::Status end = stream_->Finish();
  if (ordered.has_value()) return *ordered;
  return absl::UnavailableError(absl::StrCat("the coordinator at ", options_.coordinator,
                                             " is lost: ", end.ok() ? "it closed the stream" : end.error_message()));
}

void Registration::Tell(bool* flag) {
  MutexLock lock(&mutex_);
  *flag = true;
  changed_.NotifyAll();
}

void Registration::SayGoodbye() {
  stream_->WritesDone();
  std::thread impatience([this] {
    const auto end = std::chrono::steady_clock::now() + milliseconds(options_.goodbye_ms);
    MutexLock lock(&mutex_);
    while (!closed_ && std::chrono::steady_clock::now() < end) {
      changed_.WaitFor(&mutex_, end - std::chrono::steady_clock::now());
    }
    if (!closed_) context_.TryCancel();
  });
  v1::TeacherOrder ignored;
  while (stream_->Read(&ignored)) {
  }
  Tell(&closed_);
  impatience.join();
}

absl::Status Registration::WaitForCoordinator() {
  const auto end = std::chrono::steady_clock::now() + milliseconds(options_.connect_ms);
  while (!channel_->WaitForConnected(std::chrono::system_clock::now() + milliseconds(100))) {
    MutexLock lock(&mutex_);
    if (leaving_) return absl::CancelledError("left the run");
    if (std::chrono::steady_clock::now() >= end) {
      return absl::UnavailableError(absl::StrCat("no coordinator answers at ", options_.coordinator, " within ",
                                                 options_.connect_ms, " ms; check --coordinator"));
    }
  }
  return absl::OkStatus();
}

std::optional<absl::Status> Registration::Obey() {
  v1::TeacherOrder order;
  bool stop = false;
  while (stream_->Read(&order)) {
    const absl::Status status = CarryOut(order, &stop);
    if (stop || !status.ok()) return status;
  }
  return std::nullopt;
}

absl::Status Registration::CarryOut(const v1::TeacherOrder& order, bool* stop) {
  switch (order.message_case()) {
    case v1::TeacherOrder::kWelcome:
      return Annotate(CheckProtocolVersion(order.welcome().protocol_version()), "coordinator");
    case v1::TeacherOrder::kLoad:
      return LoadPackage(order.load());
    case v1::TeacherOrder::kStop:
      spdlog::info("the coordinator says stop: {}", order.stop().reason());
      *stop = true;
      return absl::OkStatus();
    default:
      return absl::InternalError("the coordinator gave an order that this build does not know");
  }
}

absl::Status Registration::LoadPackage(const v1::TeacherOrder::Load& order) {
  const absl::StatusOr<std::string> digest = load_(order);
  v1::TeacherMessage message;
  if (digest.ok()) {
    message.mutable_ready()->set_digest(*digest);
  } else {
    message.mutable_failed()->set_code(static_cast<int>(digest.status().code()));
    message.mutable_failed()->set_message(EscapeUnlessUtf8(std::string(digest.status().message())));
  }
  Send(message);
  return digest.status();
}

void Registration::Heartbeats() {
  v1::TeacherMessage message;
  message.mutable_heartbeat();
  const milliseconds period(options_.heartbeat_ms);
  while (true) {
    const auto due = std::chrono::steady_clock::now() + period;
    {
      MutexLock lock(&mutex_);
      while (!over_ && std::chrono::steady_clock::now() < due) {
        changed_.WaitFor(&mutex_, due - std::chrono::steady_clock::now());
      }
      if (over_) return;
    }
    if (!Send(message)) return;
  }
}

bool Registration::Send(const v1::TeacherMessage& message) {
  MutexLock lock(&write_mutex_);
  return stream_->Write(message);
}

}  // namespace polystill::teacher_server
