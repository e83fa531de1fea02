#include "student_worker/coordinator_link.h"

#include <grpcpp/grpcpp.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "corpus/index.h"
#include "runtime/random_id.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "runtime/utf8.h"
#include "student_worker/exit_codes.h"

namespace polystill::student_worker {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kHeartbeatEvery(1);
constexpr std::chrono::milliseconds kReportEvery(200);
// How often a wait for the coordinator looks whether it is to stop.
constexpr std::chrono::milliseconds kLookUpEvery(200);
// For the coordinator to answer the end of the stream.
constexpr std::chrono::seconds kCloseWithin(2);
// Largest index that is taken, in bytes.
constexpr size_t kMaxIndexBytes = size_t{1} << 31;

}  // namespace

CoordinatorLink::CoordinatorLink(const Options& options, std::stop_source stop)
    : options_(options),
      stop_(std::move(stop)),
      channel_(Connect(options.coordinator)),
      stub_(v1::CoordinatorService::NewStub(channel_)) {}

absl::StatusOr<std::unique_ptr<CoordinatorLink>> CoordinatorLink::Open(const Options& options, std::stop_source stop) {
  auto link = std::unique_ptr<CoordinatorLink>(new CoordinatorLink(options, std::move(stop)));
  const std::string where = absl::StrCat("coordinator at ", options.coordinator);
  RETURN_IF_ERROR(Annotate(link->AwaitCoordinator(), where));
  RETURN_IF_ERROR(Annotate(link->Greet(), where));
  link->writer_ = std::thread([link = link.get()] { link->WriteMessages(); });
  link->reader_ = std::thread([link = link.get()] { link->ReadOrders(); });
  return link;
}

absl::Status CoordinatorLink::AwaitCoordinator() {
  const auto deadline = std::chrono::system_clock::now() + options_.patience;
  while (!channel_->WaitForConnected(std::chrono::system_clock::now() + kLookUpEvery)) {
    if (stop_.stop_requested()) return absl::CancelledError("stopped before it answered");
    if (std::chrono::system_clock::now() > deadline) {
      return absl::UnavailableError("nothing answers there; is it running, and is --coordinator right?");
    }
  }
  return absl::OkStatus();
}

absl::Status CoordinatorLink::Greet() {
  std::stop_callback cancel(stop_.get_token(), [this] { context_.TryCancel(); });
  stream_ = stub_->Work(&context_);
  v1::WorkerMessage message;
  auto& hello = *message.mutable_hello();
  hello.set_protocol_version(kProtocolVersion);
  hello.set_worker_id(RandomId());
  hello.set_host(options_.host);
  hello.set_pid(getpid());
  v1::WorkerOrder order;
  if (!stream_->Write(message) || !stream_->Read(&order)) {
    const absl::Status end = FromGrpc(stream_->Finish());
    return end.ok() ? absl::UnavailableError("it ended the stream without a welcome") : end;
  }
  if (!order.has_welcome()) return absl::InternalError("its first order is not a welcome");
  RETURN_IF_ERROR(CheckProtocolVersion(order.welcome().protocol_version()));
  run_ = order.welcome().run();
  MutexLock lock(&mutex_);
  term_ = order.welcome().term();
  spdlog::info("joined run {} at {} as {}", run_, options_.coordinator, options_.host);
  return absl::OkStatus();
}

CoordinatorLink::~CoordinatorLink() {
  if (!writer_.joinable()) return;  // never open
  {
    MutexLock lock(&mutex_);
    closing_ = true;
    changed_.NotifyAll();
  }
  writer_.join();
  {
    const Clock::time_point deadline = Clock::now() + kCloseWithin;
    MutexLock lock(&mutex_);
    while (!ended_ && Clock::now() < deadline) changed_.WaitFor(&mutex_, deadline - Clock::now());
  }
  context_.TryCancel();
  reader_.join();
}

void CoordinatorLink::ReadOrders() {
  v1::WorkerOrder order;
  while (stream_->Read(&order)) TakeOrder(std::move(order));
  const absl::Status end = FromGrpc(stream_->Finish());
  {
    MutexLock lock(&mutex_);
    ended_ = true;
    if (!dismissed_ && !closing_) {
      const std::string reason = end.ok() ? "it closed the stream" : std::string(end.message());
      lost_ = absl::UnavailableError(absl::StrCat("lost the coordinator at ", options_.coordinator, ": ", reason));
    }
    changed_.NotifyAll();
  }
  stop_.request_stop();
  WatchLeaving();
}

void CoordinatorLink::WatchLeaving() {
  const Clock::time_point deadline = Clock::now() + options_.leave_within;
  MutexLock lock(&mutex_);
  if (lost_.ok()) return;
  while (!closing_ && Clock::now() < deadline) changed_.WaitFor(&mutex_, deadline - Clock::now());
  if (!closing_) options_.give_up();
}

void CoordinatorLink::LeaveAtOnce() {
  spdlog::error("lost the coordinator, and cannot end what is under way; leaving at once");
  spdlog::default_logger()->flush();
  std::_Exit(kExitFailed);
}

void CoordinatorLink::TakeOrder(v1::WorkerOrder order) {
  if (order.has_stop()) {
    spdlog::info("the coordinator says stop: {}", order.stop().reason());
    MutexLock lock(&mutex_);
    dismissed_ = true;
    run_end_ = order.stop().state();
  } else if (order.has_assignment()) {
    MutexLock lock(&mutex_);
    if (order.assignment().term() < term_) {
      return spdlog::warn("refused an assignment of term {}: the current one is {}", order.assignment().term(), term_);
    }
    term_ = order.assignment().term();
    assignments_.push_back(std::move(*order.mutable_assignment()));
    changed_.NotifyAll();
  }
  if (order.has_stop()) stop_.request_stop();
}

void CoordinatorLink::WriteMessages() {
  while (const std::optional<v1::WorkerMessage> message = NextMessage()) {
    if (!stream_->Write(*message)) return;  // broken: the reader tells
  }
  stream_->WritesDone();
}

std::optional<v1::WorkerMessage> CoordinatorLink::NextMessage() {
  const Clock::time_point heartbeat_due = Clock::now() + kHeartbeatEvery;
  MutexLock lock(&mutex_);
  while (true) {
    const Clock::time_point now = Clock::now();
    if (!outbox_.empty()) {
      v1::WorkerMessage message = std::move(outbox_.front());
      outbox_.pop_front();
      return message;
    }
    if (closing_) return std::nullopt;
    if (progress_.has_value() && now >= progress_due_) {
      progress_due_ = now + kReportEvery;
      return std::exchange(progress_, std::nullopt);
    }
    if (now >= heartbeat_due) {
      v1::WorkerMessage message;
      message.mutable_heartbeat();
      return message;
    }
    const Clock::time_point due = progress_.has_value() ? std::min(progress_due_, heartbeat_due) : heartbeat_due;
    changed_.WaitFor(&mutex_, due - now);
  }
}

absl::StatusOr<std::optional<v1::WorkerOrder::Assignment>> CoordinatorLink::NextAssignment() {
  std::stop_callback wake(stop_.get_token(), [this] {
    MutexLock lock(&mutex_);
    changed_.NotifyAll();
  });
  MutexLock lock(&mutex_);
  while (assignments_.empty() && !stop_.stop_requested()) changed_.Wait(&mutex_);
  if (!lost_.ok()) return lost_;
  if (stop_.stop_requested()) return std::nullopt;
  v1::WorkerOrder::Assignment assignment = std::move(assignments_.front());
  assignments_.pop_front();
  return assignment;
}

v1::RunStatus::State CoordinatorLink::RunEnd() {
  MutexLock lock(&mutex_);
  return run_end_;
}

void CoordinatorLink::Report(const v1::WorkerMessage::Progress& progress) {
  MutexLock lock(&mutex_);
  progress_.emplace();
  *progress_->mutable_progress() = progress;
  changed_.NotifyAll();
}

void CoordinatorLink::TellCheckpoint(const v1::WorkerMessage::Checkpointed& checkpoint) {
  MutexLock lock(&mutex_);
  *outbox_.emplace_back().mutable_checkpointed() = checkpoint;
  changed_.NotifyAll();
}

void CoordinatorLink::Send(v1::WorkerMessage message) {
  MutexLock lock(&mutex_);
  progress_.reset();  // what follows ends the job that it was about
  outbox_.push_back(std::move(message));
  changed_.NotifyAll();
}

void CoordinatorLink::SendDone(const v1::WorkerMessage::Done& done) {
  v1::WorkerMessage message;
  *message.mutable_done() = done;
  Send(std::move(message));
}

void CoordinatorLink::SendFailed(int64_t generation, const absl::Status& status) {
  v1::WorkerMessage message;
  auto& failed = *message.mutable_failed();
  failed.set_generation(generation);
  failed.set_code(static_cast<int>(status.code()));
  failed.set_message(EscapeUnlessUtf8(std::string(status.message())));
  Send(std::move(message));
}

absl::StatusOr<v1::CorpusIndex> CoordinatorLink::GetIndex(const std::string& digest) {
  grpc::ClientContext context;
  std::stop_callback cancel(stop_.get_token(), [&context] { context.TryCancel(); });
  v1::GetIndexRequest request;
  request.set_protocol_version(kProtocolVersion);
  request.set_digest(digest);
  const auto stream = stub_->GetIndex(&context, request);
  std::string bytes;
  v1::IndexChunk chunk;
  while (bytes.size() <= kMaxIndexBytes && stream->Read(&chunk)) bytes += chunk.data();
  if (bytes.size() > kMaxIndexBytes) context.TryCancel();
  const absl::Status end = FromGrpc(stream->Finish());
  if (!end.ok() && stop_.stop_requested()) return absl::CancelledError("stopped while the index was being fetched");
  RETURN_IF_ERROR(Annotate(end, absl::StrCat("index ", digest)));
  v1::CorpusIndex index;
  if (!index.ParseFromString(bytes) || corpus::IndexDigest(index) != digest) {
    return absl::DataLossError(absl::StrCat("the index that the coordinator sent has not the digest ", digest));
  }
  return index;
}

}  // namespace polystill::student_worker
