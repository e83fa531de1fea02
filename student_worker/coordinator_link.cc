#include "student_worker/coordinator_link.h"

#include <grpcpp/grpcpp.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "corpus/index.h"
#include "runtime/random_id.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "student_worker/exit_codes.h"

namespace polystill::student_worker {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kHeartbeatEvery(1);
constexpr std::chrono::milliseconds kReportEvery(200);
// How often a wait for the coordinator looks whether it is to stop.
constexpr std::chrono::milliseconds kLookUpEvery(200);
// Between two tries to reach a coordinator that is away, and for one to say welcome.
constexpr std::chrono::milliseconds kGreetEvery(500);
constexpr std::chrono::seconds kGreetWithin(5);
// For the coordinator to answer the end of the stream.
constexpr std::chrono::seconds kCloseWithin(2);
// Largest index that is taken, in bytes.
constexpr size_t kMaxIndexBytes = size_t{1} << 31;

}  // namespace

CoordinatorLink::CoordinatorLink(const Options& options, Membership* membership, std::stop_source stop)
    : options_(options),
      membership_(membership),
      stop_(std::move(stop)),
      worker_id_(RandomId()),
      channel_(Connect(options.coordinator)),
      stub_(v1::CoordinatorService::NewStub(channel_)) {}

absl::StatusOr<std::unique_ptr<CoordinatorLink>> CoordinatorLink::Reach(const Options& options, Membership* membership,
                                                                        std::stop_source stop) {
  auto link = std::unique_ptr<CoordinatorLink>(new CoordinatorLink(options, membership, std::move(stop)));
  RETURN_IF_ERROR(Annotate(link->AwaitCoordinator(Clock::now() + options.patience), link->where()));
  return link;
}

absl::Status CoordinatorLink::Join() {
  const Clock::time_point give_up = Clock::now() + options_.patience;
  absl::StatusOr<std::unique_ptr<Session>> session = Greet();
  // One that dies before it has said welcome is started again.
  while (absl::IsUnavailable(session.status()) && Clock::now() < give_up && !stop_.stop_requested()) {
    std::this_thread::sleep_for(kLookUpEvery);
    RETURN_IF_ERROR(Annotate(AwaitCoordinator(give_up), where()));
    session = Greet();
  }
  if (!session.ok()) return Annotate(session.status(), where());
  spdlog::info("joined run {} at {} as {}", run_, options_.coordinator, options_.host);
  thread_ = std::thread([this, session = *std::move(session)]() mutable { Run(std::move(session)); });
  return absl::OkStatus();
}

absl::StatusOr<v1::GetJobReply> CoordinatorLink::GetJob() {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kGreetWithin);
  v1::GetJobRequest request;
  request.set_protocol_version(kProtocolVersion);
  v1::GetJobReply reply;
  RETURN_IF_ERROR(FromGrpc(stub_->GetJob(&context, request, &reply)));
  return reply;
}

absl::Status CoordinatorLink::AwaitCoordinator(Clock::time_point give_up) {
  while (!channel_->WaitForConnected(std::chrono::system_clock::now() + kLookUpEvery)) {
    if (stop_.stop_requested()) return absl::CancelledError("stopped before it answered");
    if (Clock::now() > give_up) {
      return absl::UnavailableError("nothing answers there; is it running, and is --coordinator right?");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<CoordinatorLink::Session>> CoordinatorLink::Greet() {
  auto session = std::make_unique<Session>();
  grpc::experimental::ChannelResetConnectionBackoff(channel_.get());  // its pauses grow beyond a second
  session->stream = stub_->Work(&session->context);
  {
    MutexLock lock(&mutex_);
    session_ = session.get();
    outbox_.clear();
    if (checkpoint_.has_value()) outbox_.push_back(*checkpoint_);
  }
  // What hangs is given up.
  std::atomic<bool> greeted = false;
  std::jthread watch([&](const std::stop_token& answered) {
    Mutex mutex;
    CondVar woken;
    const std::stop_callback wake(answered, [&] {
      MutexLock lock(&mutex);
      woken.NotifyAll();
    });
    const Clock::time_point deadline = Clock::now() + kGreetWithin;
    MutexLock lock(&mutex);
    while (!answered.stop_requested() && Clock::now() < deadline) woken.WaitFor(&mutex, deadline - Clock::now());
    if (!greeted) session->context.TryCancel();
  });
  const absl::Status status = ExchangeGreetings(session.get());
  greeted = status.ok();
  watch.request_stop();
  watch.join();
  if (status.ok()) return session;
  membership_->Disconnect();
  session->context.TryCancel();
  MutexLock lock(&mutex_);
  session_ = nullptr;
  return status;
}

absl::Status CoordinatorLink::ExchangeGreetings(Session* session) {
  v1::WorkerMessage message;
  auto& hello = *message.mutable_hello();
  hello.set_protocol_version(kProtocolVersion);
  hello.set_worker_id(worker_id_);
  hello.set_host(options_.host);
  hello.set_pid(getpid());
  Membership::Greeting greeting = membership_->Connect([this](v1::WorkerMessage said) { Send(std::move(said)); });
  *hello.mutable_standing() = std::move(greeting.standing);
  v1::WorkerOrder order;
  if (!session->stream->Write(message) || !session->stream->Read(&order)) {
    const absl::Status end = FromGrpc(session->stream->Finish());
    return end.ok() ? absl::UnavailableError("it ended the stream without a welcome") : end;
  }
  if (!order.has_welcome()) return absl::InternalError("its first order is not a welcome");
  RETURN_IF_ERROR(CheckProtocolVersion(order.welcome().protocol_version()));
  if (run_.empty()) run_ = order.welcome().run();
  if (run_ != order.welcome().run()) {
    return absl::FailedPreconditionError(absl::StrCat("it is of another run, ", order.welcome().run()));
  }
  if (!membership_->Welcomed(order.welcome().term())) {
    return absl::UnavailableError(absl::StrCat("its term, ", order.welcome().term(), ", is over"));
  }
  MutexLock lock(&mutex_);
  // What was said of checkpoints, also since it greets, comes before that the job is done.
  const auto place = std::find_if_not(outbox_.begin(), outbox_.end(),
                                      [](const v1::WorkerMessage& told) { return told.has_checkpointed(); });
  if (greeting.last_word.has_value()) outbox_.insert(place, *std::move(greeting.last_word));
  return absl::OkStatus();
}

CoordinatorLink::~CoordinatorLink() {
  if (!thread_.joinable()) return;  // never open
  {
    MutexLock lock(&mutex_);
    closing_ = true;
    changed_.NotifyAll();
    const Clock::time_point deadline = Clock::now() + kCloseWithin;
    while (!ended_ && Clock::now() < deadline) changed_.WaitFor(&mutex_, deadline - Clock::now());
    if (session_ != nullptr) session_->context.TryCancel();
  }
  thread_.join();
}

void CoordinatorLink::Run(std::unique_ptr<Session> session) {
  while (session != nullptr) {
    const absl::Status end = Serve(session.get());
    membership_->Disconnect();
    {
      MutexLock lock(&mutex_);
      session_ = nullptr;
    }
    session = GreetAgain(end);
  }
  {
    MutexLock lock(&mutex_);
    ended_ = true;
    changed_.NotifyAll();
    if (lost_.ok()) return;
  }
  stop_.request_stop();
  const Clock::time_point deadline = Clock::now() + options_.leave_within;
  MutexLock lock(&mutex_);
  while (!closing_ && Clock::now() < deadline) changed_.WaitFor(&mutex_, deadline - Clock::now());
  if (!closing_) options_.give_up();
}

absl::Status CoordinatorLink::Serve(Session* session) {
  std::thread writer([this, session] { WriteMessages(session); });
  v1::WorkerOrder order;
  while (session->stream->Read(&order)) {
    NoteOrder(order);
    membership_->Obey(order);
  }
  {
    MutexLock lock(&mutex_);
    session->over = true;
    changed_.NotifyAll();
  }
  writer.join();
  const absl::Status end = FromGrpc(session->stream->Finish());
  return end.ok() ? absl::UnavailableError("it closed the stream") : end;
}

std::unique_ptr<CoordinatorLink::Session> CoordinatorLink::GreetAgain(absl::Status why) {
  const Clock::time_point give_up = Clock::now() + options_.lost_patience;
  bool told = false;
  while (true) {
    {
      const Clock::time_point next = Clock::now() + kGreetEvery;
      MutexLock lock(&mutex_);
      while (!ends() && Clock::now() < std::min(next, give_up)) changed_.WaitFor(&mutex_, next - Clock::now());
      if (ends()) return nullptr;
    }
    if (absl::IsFailedPrecondition(why) || Clock::now() >= give_up) break;
    if (!std::exchange(told, true)) {
      spdlog::warn("the coordinator at {} is away: {}; work goes on, and so does the search for it",
                   options_.coordinator, std::string(why.message()));
    }
    auto session = Greet();
    if (session.ok()) {
      spdlog::info("the coordinator at {} is back", options_.coordinator);
      return *std::move(session);
    }
    why = session.status();
  }
  MutexLock lock(&mutex_);
  lost_ = absl::UnavailableError(absl::StrCat("lost the coordinator at ", options_.coordinator, ": ", why.message()));
  return nullptr;
}

absl::Status CoordinatorLink::Lost() {
  MutexLock lock(&mutex_);
  return lost_;
}

void CoordinatorLink::LeaveAtOnce() {
  spdlog::error("lost the coordinator, and cannot end what is under way; leaving at once");
  spdlog::default_logger()->flush();
  std::_Exit(kExitFailed);
}

void CoordinatorLink::NoteOrder(const v1::WorkerOrder& order) {
  if (!order.has_stop()) return;
  spdlog::info("the coordinator says stop: {}", order.stop().reason());
  MutexLock lock(&mutex_);
  dismissed_ = true;
  run_end_ = order.stop().state();
}

void CoordinatorLink::WriteMessages(Session* session) {
  while (std::optional<v1::WorkerMessage> message = NextMessage(session)) {
    // Not under this object's lock: the membership's is taken first.
    if (message->has_heartbeat()) *message->mutable_heartbeat() = membership_->Pulse();
    if (!session->stream->Write(*message)) return;  // broken: the reader tells
  }
  session->stream->WritesDone();
}

std::optional<v1::WorkerMessage> CoordinatorLink::NextMessage(Session* session) {
  const Clock::time_point heartbeat_due = Clock::now() + kHeartbeatEvery;
  MutexLock lock(&mutex_);
  while (true) {
    const Clock::time_point now = Clock::now();
    if (session->over) return std::nullopt;
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
  *checkpoint_.emplace().mutable_checkpointed() = checkpoint;
  if (session_ != nullptr) outbox_.push_back(*checkpoint_);
  changed_.NotifyAll();
}

void CoordinatorLink::Send(v1::WorkerMessage message) {
  MutexLock lock(&mutex_);
  progress_.reset();  // what follows ends the job that it was about
  outbox_.push_back(std::move(message));
  changed_.NotifyAll();
}

absl::StatusOr<v1::CorpusIndex> CoordinatorLink::GetIndex(const std::string& digest) {
  const std::stop_token leave = membership_->leave();
  const auto wake = [this] {
    MutexLock lock(&mutex_);
    changed_.NotifyAll();
  };
  const std::stop_callback at_stop(stop_.get_token(), wake), at_leave(leave, wake);
  while (true) {
    absl::StatusOr<v1::CorpusIndex> index = FetchIndex(digest, leave);
    if (index.ok()) return index;
    const Clock::time_point next = Clock::now() + kGreetEvery;
    const bool passes =
        thread_.joinable() && (absl::IsUnavailable(index.status()) || absl::IsResourceExhausted(index.status()));
    MutexLock lock(&mutex_);
    while (passes && Clock::now() < next && !stop_.stop_requested() && !leave.stop_requested()) {
      changed_.WaitFor(&mutex_, next - Clock::now());
    }
    if (stop_.stop_requested()) return absl::CancelledError("stopped while the index was being fetched");
    if (leave.stop_requested()) return absl::AbortedError("left while the index was being fetched");
    if (!passes) return index;
  }
}

absl::StatusOr<v1::CorpusIndex> CoordinatorLink::FetchIndex(const std::string& digest, const std::stop_token& leave) {
  grpc::ClientContext context;
  const auto try_cancel = [&context] { context.TryCancel(); };
  const std::stop_callback at_stop(stop_.get_token(), try_cancel), at_leave(leave, try_cancel);
  v1::GetIndexRequest request;
  request.set_protocol_version(kProtocolVersion);
  request.set_digest(digest);
  const auto stream = stub_->GetIndex(&context, request);
  std::string bytes;
  v1::IndexChunk chunk;
  while (bytes.size() <= kMaxIndexBytes && stream->Read(&chunk)) bytes += chunk.data();
  if (bytes.size() > kMaxIndexBytes) context.TryCancel();
  RETURN_IF_ERROR(Annotate(FromGrpc(stream->Finish()), absl::StrCat("index ", digest)));
  v1::CorpusIndex index;
  if (!index.ParseFromString(bytes) || corpus::IndexDigest(index) != digest) {
    return absl::DataLossError(absl::StrCat("the index that the coordinator sent has not the digest ", digest));
  }
  return index;
}

}  // namespace polystill::student_worker
