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
      server_id_(options_.server_id.empty() ? ServerId(options_.address) : options_.server_id),
      thread_([this] {
        const absl::Status status = Run();
        MutexLock lock(&mutex_);
        ended_(leaving_ ? absl::CancelledError("left the run") : status);
      }) {}

Registration::~Registration() {
  {
    MutexLock lock(&mutex_);
    leaving_ = true;
    changed_.NotifyAll();
    if (context_ != nullptr) context_->TryCancel();
  }
  thread_.join();
}

absl::Status Registration::Run() {
  RETURN_IF_ERROR(WaitForCoordinator());
  using Clock = std::chrono::steady_clock;
  // Until it has been welcomed once, it tries again only while a process before it of the same name is not forgotten,
  // or when the connection broke: the coordinator may have died just then.
  Clock::time_point give_up = Clock::now() + milliseconds(options_.connect_ms);
  bool member = false;
  while (true) {
    absl::Status why;
    if (const std::optional<absl::Status> ordered = Serve(&why); ordered.has_value()) return *ordered;
    if (absl::IsFailedPrecondition(why)) return Annotate(why, absl::StrCat("coordinator ", options_.coordinator));
    if (welcomed_) {
      member = true;
      give_up = Clock::now() + milliseconds(options_.lost_patience_ms);
      spdlog::warn("the coordinator at {} is away: {}; this server looks for it, and answers meanwhile",
                   options_.coordinator, std::string(why.message()));
    }
    if (!Pause()) return absl::CancelledError("left the run");
    const bool may_pass = member || absl::IsAlreadyExists(why) || absl::IsUnavailable(why);
    if (may_pass && Clock::now() < give_up) continue;
    return absl::UnavailableError(
        absl::StrCat("the coordinator at ", options_.coordinator, " is lost: ", why.message()));
  }
}

bool Registration::Pause() {
  const auto next = std::chrono::steady_clock::now() + milliseconds(options_.greet_every_ms);
  MutexLock lock(&mutex_);
  while (!leaving_ && std::chrono::steady_clock::now() < next) {
    changed_.WaitFor(&mutex_, next - std::chrono::steady_clock::now());
  }
  return !leaving_;
}

std::optional<absl::Status> Registration::Serve(absl::Status* why) {
  welcomed_ = false;
  {
    MutexLock lock(&mutex_);
    if (leaving_) return absl::CancelledError("left the run");
    over_ = closed_ = false;
    context_ = std::make_unique<grpc::ClientContext>();
    stream_ = stub_->Teach(context_.get());
  }
  Greet();
  std::thread heartbeats([this] { Heartbeats(); });
  const std::optional<absl::Status> ordered = Obey();
  Tell(&over_);
  heartbeats.join();  // from here on this thread alone uses the stream
  if (ordered.has_value()) SayGoodbye();
  const absl::Status end = FromGrpc(stream_->Finish());
  *why = end.ok() ? absl::CancelledError("it closed the stream") : end;
  return ordered;
}

void Registration::Greet() {
  v1::TeacherMessage hello;
  hello.mutable_hello()->set_protocol_version(kProtocolVersion);
  hello.mutable_hello()->set_server_id(server_id_);
  hello.mutable_hello()->set_teacher(options_.teacher);
  hello.mutable_hello()->set_address(options_.address);
  hello.mutable_hello()->set_pid(getpid());
  hello.mutable_hello()->set_digest(digest_);
  Send(hello);
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
    if (!closed_) context_->TryCancel();
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
    if (absl::IsAborted(status)) break;
    if (stop || !status.ok()) return status;
  }
  return std::nullopt;
}

absl::Status Registration::CarryOut(const v1::TeacherOrder& order, bool* stop) {
  switch (order.message_case()) {
    case v1::TeacherOrder::kWelcome:
      return Welcome(order.welcome());
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

absl::Status Registration::Welcome(const v1::TeacherOrder::Welcome& welcome) {
  RETURN_IF_ERROR(Annotate(CheckProtocolVersion(welcome.protocol_version()), "coordinator"));
  if (welcome.term() < term_) {  // another one has followed it: what it orders does not count
    MutexLock lock(&mutex_);
    context_->TryCancel();
    return absl::AbortedError("its term is over");
  }
  if (term_ != 0) spdlog::info("the coordinator at {} is back", options_.coordinator);
  term_ = welcome.term();
  welcomed_ = true;
  return absl::OkStatus();
}

absl::Status Registration::LoadPackage(const v1::TeacherOrder::Load& order) {
  const absl::StatusOr<std::string> digest = load_(order);
  v1::TeacherMessage message;
  if (digest.ok()) {
    message.mutable_ready()->set_digest(*digest);
    digest_ = *digest;
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
