#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "coordinator/event_queue.h"
#include "coordinator/member_stream.h"
#include "coordinator/run_events.h"
#include "coordinator/status_stream.h"
#include "polystill/v1/coordinator.grpc.pb.h"
#include "runtime/mutex.h"

namespace polystill::coordinator {

// CoordinatorService on gRPC's callback API: turns what arrives into events, and carries out what the loop says. It
// decides nothing. Thread-safe; must live longer than the server that serves it, and than its streams: call CloseAll,
// then Shutdown of the server.
class Service final : public v1::CoordinatorService::CallbackService {
 public:
  struct Options {
    // Streams of workers and teachers, and Watch calls, at a time; more are refused with RESOURCE_EXHAUSTED.
    size_t max_members = 16'384;
    size_t max_watchers = 256;
    // GetIndex calls at a time: each worker makes one.
    size_t max_index_calls = 16'384;
    // RunStatus.run_id; calls that mean another run are refused.
    std::string run_id = {};
  };
  Service(EventQueue* events, Options options) : events_(events), options_(std::move(options)) {}
  explicit Service(EventQueue* events) : Service(events, Options()) {}

  void Send(const SendToWorker& action);
  void Send(const SendToTeacher& action);
  void Close(StreamId stream, const absl::Status& status);
  // The last message of `stream` was handled: its next one may come.
  void ReadNext(StreamId stream);

  // What Watch calls see from now on; `last`: they end with it.
  void Publish(const v1::RunStatus& status, bool last);

  // What GetIndex gives, by digest, from now on; before, it is refused with UNAVAILABLE.
  using Indexes = std::map<std::string, std::shared_ptr<const std::string>>;
  void PutIndexes(Indexes indexes);

  // From now on Scale may ask for so many workers; before, it is refused with UNAVAILABLE.
  void AllowScale(int fewest, int most);

  // Ends all streams and refuses new ones.
  void CloseAll();

 private:
  using WorkStream = MemberStream<v1::WorkerMessage, v1::WorkerOrder>;
  using TeachStream = MemberStream<v1::TeacherMessage, v1::TeacherOrder>;

  WorkStream* Work(grpc::CallbackServerContext* context) override;
  TeachStream* Teach(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest* request,
                                   v1::GetJobReply* reply) override;
  grpc::ServerWriteReactor<v1::IndexChunk>* GetIndex(grpc::CallbackServerContext* context,
                                                     const v1::GetIndexRequest* request) override;
  grpc::ServerWriteReactor<v1::RunStatus>* Watch(grpc::CallbackServerContext* context,
                                                 const v1::WatchRequest* request) override;
  grpc::ServerUnaryReactor* Stop(grpc::CallbackServerContext* context, const v1::StopRequest* request,
                                 v1::StopReply* reply) override;
  grpc::ServerUnaryReactor* Scale(grpc::CallbackServerContext* context, const v1::ScaleRequest* request,
                                  v1::ScaleReply* reply) override;
  absl::Status CheckScale(const v1::ScaleRequest& request) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // FAILED_PRECONDITION: a request of another version of the protocol; NOT_FOUND: it means another run.
  template <typename Request>
  absl::Status CheckMeant(const Request& request) const;
  // What GetJob gives from now on, by what members of the newest generation are told.
  void NoteTraining(const v1::WorkerOrder& order);
  template <typename Stream, typename Said>
  Stream* Open(std::map<StreamId, std::shared_ptr<Stream>>* streams);
  std::shared_ptr<WorkStream> FindWorker(StreamId stream) ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<TeachStream> FindTeacher(StreamId stream) ABSL_LOCKS_EXCLUDED(mutex_);

  EventQueue* const events_;
  const Options options_;

  Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  StreamId next_stream_ ABSL_GUARDED_BY(mutex_) = 1;
  // A stream is removed by its own on_done.
  std::map<StreamId, std::shared_ptr<WorkStream>> workers_ ABSL_GUARDED_BY(mutex_);
  std::map<StreamId, std::shared_ptr<TeachStream>> teachers_ ABSL_GUARDED_BY(mutex_);
  std::map<StreamId, std::shared_ptr<StatusStream>> watchers_ ABSL_GUARDED_BY(mutex_);
  v1::RunStatus status_ ABSL_GUARDED_BY(mutex_);
  bool status_is_last_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<Indexes> indexes_ ABSL_GUARDED_BY(mutex_);
  int64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;
  // Of it; nothing where it does not train.
  std::optional<v1::GetJobReply> training_ ABSL_GUARDED_BY(mutex_);
  size_t index_calls_ ABSL_GUARDED_BY(mutex_) = 0;
  int fewest_workers_ ABSL_GUARDED_BY(mutex_) = 0;
  int most_workers_ ABSL_GUARDED_BY(mutex_) = 0;
  // One Stop is enough: more would only fill the queue.
  bool stop_asked_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace polystill::coordinator
