#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "polystill/v1/teacher.pb.h"
#include "runtime/mutex.h"
#include "soft_labels/canary.h"
#include "soft_labels/client.h"
#include "soft_labels/pieces.h"
#include "soft_labels/replica_roster.h"
#include "soft_labels/replica_stream.h"
#include "soft_labels/router.h"

namespace polystill::soft_labels {

// Milliseconds of the steady clock.
int64_t SteadyMs();

// A call of LabelClient::Label on its way to the loop.
struct Question {
  v1::LabelSpec spec;
  std::vector<v1::LabelInput> inputs;
  LabelClient::Callback callback;
};
// A call of LabelClient::SetReplicas.
struct NewReplicas {
  ReplicaRoster::Replicas given;
};
// What a lookup of one of their addresses has brought.
struct FoundHosts {
  std::string address;
  HostAddresses hosts;
};
struct StopLoop {};

// What the loop's thread is told, by any thread. Thread-safe.
class Inbox {
 public:
  using Message = std::variant<StreamEvent, Question, NewReplicas, FoundHosts, StopLoop>;

  void Put(Message message);
  // Everything that came; waits for it, but at most `wait_ms` (Router::kNever: for ever).
  std::deque<Message> Take(int64_t wait_ms);

 private:
  Mutex mutex_;
  CondVar came_;
  std::deque<Message> messages_ ABSL_GUARDED_BY(mutex_);
};

// The thread behind a LabelClient: owns the streams, asks the router what to do, takes answers apart.
class ClientLoop {
 public:
  ClientLoop(std::vector<std::string> addresses, LabelClient::Options options);
  // Cancels everything; every callback has been called when it returns.
  ~ClientLoop();

  // Until a replica may be asked, or none can.
  absl::Status WaitUntilReady();
  // After WaitUntilReady has returned OK.
  const v1::DescribeReply& description() const { return description_; }
  void Ask(Question question) { inbox_->Put(std::move(question)); }
  void SetReplicas(NewReplicas replicas) { inbox_->Put(std::move(replicas)); }
  LabelClient::Counts counts();
  bool HasReplica() const { return has_replica_; }
  int64_t replica_count() const { return replica_count_; }

 private:
  struct Replica {
    std::string address;
    std::string name;  // by which inputs are divided
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<ReplicaStream> stream;  // null while there is none
    bool opened = false;
    // Of the last description.
    v1::DescribeReply description = {};
    bool awaits_canary = false;
    bool wanted = true;  // else it has left
  };

  void Run();
  void NoteCounts();
  void Act(const Router::Actions& actions);
  void Handle(StreamEvent& event);
  void Handle(Question& question);
  void Handle(NewReplicas& replicas);
  void Handle(FoundHosts& found);
  void LookUpNames(const ReplicaRoster::Actions& actions);
  // The replicas are those of the roster from now on.
  void UseRoster();
  void NoteTroubles();
  void AddReplica(const std::string& address, const std::string& server_id);
  void Handle(StopLoop&);
  absl::Status HandleMessage(int replica, Received received);
  void SendCanary(int replica);
  absl::Status HandleCanary(int replica, const StreamReply& message);
  void Judge();
  void Admit(int replica);
  // The replica of each input that may know its answer already; empty where none does sooner than others.
  std::vector<int> HomesOf(const std::vector<v1::LabelInput>& inputs, int64_t now_ms) const;
  absl::Status HandleReply(int replica, Received received);
  // FAILED_PRECONDITION when the replica is not the same teacher as the first.
  absl::Status CheckDescription(const v1::DescribeReply& reply) const;
  void HandleDone(int replica, const absl::Status& status);
  void EndPiece(uint64_t id, const absl::Status& status);
  void Settle(const absl::Status& status);
  bool AllStreamsGone() const;

  const LabelClient::Options options_;
  const std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();

  // Of the loop's thread.
  ReplicaRoster roster_;
  std::vector<Replica> replicas_;
  Router router_;
  // Null: replicas are not compared.
  std::unique_ptr<ParityJury> jury_;
  v1::LabelRequest canary_;
  std::map<uint64_t, std::shared_ptr<const Piece>> pieces_;
  uint64_t next_piece_ = 1;
  bool stopping_ = false;
  std::atomic<bool> has_replica_ = false;
  std::atomic<int64_t> replica_count_ = 0;
  v1::DescribeReply description_;  // of the first replica; read by others once settled_

  Mutex mutex_;
  CondVar settled_changed_;
  bool settled_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status outcome_ ABSL_GUARDED_BY(mutex_);
  std::string troubles_ ABSL_GUARDED_BY(mutex_);
  LabelClient::Counts counts_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;  // last: starts when everything else is there
};

}  // namespace polystill::soft_labels
