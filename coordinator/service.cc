#include "coordinator/service.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/index_stream.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "runtime/utf8.h"

namespace polystill::coordinator {
namespace {

constexpr size_t kMaxReasonBytes = 1024;

// A call that ends at once with a status.
template <typename Reactor>
class Refused final : public Reactor {
 public:
  explicit Refused(const absl::Status& status) { this->Finish(ToGrpc(status)); }
  void OnDone() override { delete this; }
};

// Removes a stream that is done; it is deleted outside the lock.
template <typename Stream>
void Remove(Mutex* mutex, std::map<StreamId, std::shared_ptr<Stream>>* streams, StreamId id) {
  std::shared_ptr<Stream> gone;
  MutexLock lock(mutex);
  const auto found = streams->find(id);
  gone = std::move(found->second);
  streams->erase(found);
}

template <typename Stream>
void CloseThem(const std::map<StreamId, std::shared_ptr<Stream>>& streams) {
  for (const auto& [id, stream] : streams) stream->Close(ToGrpc(absl::UnavailableError("the coordinator ends")));
}

}  // namespace

template <typename Stream, typename Said>
Stream* Service::Open(std::map<StreamId, std::shared_ptr<Stream>>* streams) {
  MutexLock lock(&mutex_);
  const StreamId id = next_stream_++;
  const auto on_message = [this, id](auto message) { events_->Post(Said{id, std::move(message)}); };
  const auto on_closed = [this, id] { events_->Post(StreamClosed{id}); };
  const auto on_done = [this, id, streams] { Remove(&mutex_, streams, id); };
  const auto stream = std::make_shared<Stream>(typename Stream::Callbacks{on_message, on_closed, on_done});
  const bool full = workers_.size() + teachers_.size() >= options_.max_members;
  streams->emplace(id, stream);
  if (closed_) {
    stream->Close(ToGrpc(absl::UnavailableError("the coordinator ends")));
  } else if (full) {
    stream->Close(ToGrpc(absl::ResourceExhaustedError(
        absl::StrCat("the coordinator holds ", options_.max_members, " streams, its most; try again later"))));
  } else {
    events_->Post(StreamOpened{id});
    stream->ReadNext();
  }
  return stream.get();
}

Service::WorkStream* Service::Work(grpc::CallbackServerContext*) { return Open<WorkStream, WorkerSaid>(&workers_); }

Service::TeachStream* Service::Teach(grpc::CallbackServerContext*) {
  return Open<TeachStream, TeacherSaid>(&teachers_);
}

std::shared_ptr<Service::WorkStream> Service::FindWorker(StreamId stream) {
  MutexLock lock(&mutex_);
  const auto found = workers_.find(stream);
  return found == workers_.end() ? nullptr : found->second;
}

std::shared_ptr<Service::TeachStream> Service::FindTeacher(StreamId stream) {
  MutexLock lock(&mutex_);
  const auto found = teachers_.find(stream);
  return found == teachers_.end() ? nullptr : found->second;
}

void Service::NoteTraining(const v1::WorkerOrder& order) {
  MutexLock lock(&mutex_);
  if (order.has_assignment() && order.assignment().generation() > generation_) {
    generation_ = order.assignment().generation();
    training_.reset();
    if (order.assignment().job().kind() != v1::Job::KIND_TRAIN) return;
    training_.emplace();
    *training_->mutable_job() = order.assignment().job();
    *training_->mutable_teachers() = order.assignment().teachers();
  }
  if (order.has_stop()) training_.reset();
  if (order.has_teachers() && training_.has_value()) *training_->mutable_teachers() = order.teachers().teachers();
}

grpc::ServerUnaryReactor* Service::GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest* request,
                                          v1::GetJobReply* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::Status status = CheckProtocolVersion(request->protocol_version());
  if (status.ok()) {
    MutexLock lock(&mutex_);
    if (training_.has_value()) {
      *reply = *training_;
      reply->set_run(status_.run());
    } else {
      status = absl::NotFoundError("no training is under way");
    }
  }
  reactor->Finish(ToGrpc(status));
  return reactor;
}

void Service::Send(const SendToWorker& action) {
  NoteTraining(action.order);
  if (const auto stream = FindWorker(action.stream)) stream->Send(action.order);
}

void Service::Send(const SendToTeacher& action) {
  if (const auto stream = FindTeacher(action.stream)) stream->Send(action.order);
}

void Service::Close(StreamId id, const absl::Status& status) {
  if (const auto stream = FindWorker(id)) stream->Close(ToGrpc(status));
  if (const auto stream = FindTeacher(id)) stream->Close(ToGrpc(status));
}

void Service::ReadNext(StreamId id) {
  if (const auto stream = FindWorker(id)) stream->ReadNext();
  if (const auto stream = FindTeacher(id)) stream->ReadNext();
}

void Service::PutIndexes(Indexes indexes) {
  MutexLock lock(&mutex_);
  indexes_ = std::move(indexes);
}

grpc::ServerWriteReactor<v1::IndexChunk>* Service::GetIndex(grpc::CallbackServerContext*,
                                                            const v1::GetIndexRequest* request) {
  using Refusal = Refused<grpc::ServerWriteReactor<v1::IndexChunk>>;
  const absl::Status version = CheckProtocolVersion(request->protocol_version());
  if (!version.ok()) return new Refusal(version);
  MutexLock lock(&mutex_);
  if (!indexes_.has_value()) {
    return new Refusal(absl::UnavailableError("the coordinator has not read the corpus yet; try again later"));
  }
  const auto found = indexes_->find(request->digest());
  if (found == indexes_->end()) {
    return new Refusal(
        absl::NotFoundError(absl::StrCat("this run has no index with digest '", Excerpt(request->digest()), "'")));
  }
  if (index_calls_ >= options_.max_index_calls) {
    return new Refusal(absl::ResourceExhaustedError(
        absl::StrCat("the coordinator sends ", index_calls_, " indexes, its most; try again later")));
  }
  ++index_calls_;
  return new IndexStream(found->second, [this] {
    MutexLock lock(&mutex_);
    --index_calls_;
  });
}

template <typename Request>
absl::Status Service::CheckMeant(const Request& request) const {
  RETURN_IF_ERROR(CheckProtocolVersion(request.protocol_version()));
  if (request.run_id().empty() || request.run_id() == options_.run_id) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat("the coordinator that answers leads another run than '", Excerpt(request.run_id()), "'"));
}

grpc::ServerWriteReactor<v1::RunStatus>* Service::Watch(grpc::CallbackServerContext*, const v1::WatchRequest* request) {
  using Refusal = Refused<grpc::ServerWriteReactor<v1::RunStatus>>;
  const absl::Status meant = CheckMeant(*request);
  if (!meant.ok()) return new Refusal(meant);
  MutexLock lock(&mutex_);
  if (closed_) return new Refusal(absl::UnavailableError("the coordinator ends"));
  if (watchers_.size() >= options_.max_watchers) {
    return new Refusal(absl::ResourceExhaustedError(
        absl::StrCat("the coordinator has ", options_.max_watchers, " watchers, its most; try again later")));
  }
  const StreamId id = next_stream_++;
  const auto stream = std::make_shared<StatusStream>([this, id] { Remove(&mutex_, &watchers_, id); });
  watchers_.emplace(id, stream);
  stream->Publish(status_, status_is_last_);
  return stream.get();
}

grpc::ServerUnaryReactor* Service::Stop(grpc::CallbackServerContext* context, const v1::StopRequest* request,
                                        v1::StopReply*) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Status meant = CheckMeant(*request);
  if (meant.ok()) {
    MutexLock lock(&mutex_);
    if (!std::exchange(stop_asked_, true)) {
      events_->Post(StopAsked{std::string(Utf8Prefix(request->reason(), kMaxReasonBytes))});
    }
  }
  reactor->Finish(ToGrpc(meant));
  return reactor;
}

void Service::AllowScale(int fewest, int most) {
  MutexLock lock(&mutex_);
  fewest_workers_ = fewest;
  most_workers_ = most;
}

absl::Status Service::CheckScale(const v1::ScaleRequest& request) const {
  RETURN_IF_ERROR(CheckMeant(request));
  if (closed_ || status_is_last_) return absl::UnavailableError("the run has ended");
  if (most_workers_ == 0) return absl::UnavailableError("the run has not begun yet; try again later");
  if (request.workers() >= fewest_workers_ && request.workers() <= most_workers_) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("workers: ", request.workers(), " is not from ", fewest_workers_,
                                                 " (student.min_workers) to ", most_workers_,
                                                 " (student.max_workers), as the run file says"));
}

grpc::ServerUnaryReactor* Service::Scale(grpc::CallbackServerContext* context, const v1::ScaleRequest* request,
                                         v1::ScaleReply* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    status = CheckScale(*request);
    reply->set_workers(static_cast<int>(workers_.size()));
    if (status.ok()) events_->Post(ScaleAsked{request->workers()});
  }
  reactor->Finish(ToGrpc(status));
  return reactor;
}

void Service::Publish(const v1::RunStatus& status, bool last) {
  v1::RunStatus named = status;
  named.set_run_id(options_.run_id);
  std::vector<std::shared_ptr<StatusStream>> watchers;
  {
    MutexLock lock(&mutex_);
    status_ = named;
    status_is_last_ = last;
    for (const auto& [id, watcher] : watchers_) watchers.push_back(watcher);
  }
  for (const auto& watcher : watchers) watcher->Publish(named, last);
}

void Service::CloseAll() {
  std::map<StreamId, std::shared_ptr<WorkStream>> workers;
  std::map<StreamId, std::shared_ptr<TeachStream>> teachers;
  {
    MutexLock lock(&mutex_);
    closed_ = true;
    workers = workers_;
    teachers = teachers_;
  }
  CloseThem(workers);
  CloseThem(teachers);
}

}  // namespace polystill::coordinator
