#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "coordinator/run_machine.h"
#include "tests/simulation/cluster.h"

namespace polystill::simulation {

// A coordinator process around the real RunMachine: carries its actions out as coordinator::RunLoop does. One object is
// one life; whoever takes over is another.
class Coordinator final : public Process {
 public:
  Coordinator(Cluster* cluster, int number);

  void Start();
  void Kill() override;
  // In the middle of carrying out its next actions.
  void KillSoon() { actions_left_ = static_cast<int>(world().Draw(0, 6)); }
  void Scale(int workers) { Handle(coordinator::ScaleAsked{workers}); }

  // A worker or teacher opens a stream and says hello; `id`: the worker's. `lost`: called in its process.
  using Lost = std::function<void(const Link*)>;
  Link* Accept(Process* client, const v1::WorkerMessage* hello, const std::string& id, Lost lost);
  Link* Accept(Process* client, const v1::TeacherMessage* hello, Lost lost);
  void Hear(const Link* link, const v1::WorkerMessage& message);
  void Hear(const Link* link, const v1::TeacherMessage& message);

  int64_t term() const { return content_.term; }
  v1::RunStatus Status() const { return machine_->Status(now()); }

 private:
  Instant now() const { return world().now(); }
  Link* Open(Process* client, Lost lost, coordinator::StreamId known);
  void Handle(const coordinator::Event& event);
  void CarryOut(std::vector<coordinator::Action> actions);
  bool CarryOut(const coordinator::Action& action);
  void Send(const coordinator::SendToWorker& action);
  void Send(const coordinator::SendToTeacher& action);
  void CloseStream(coordinator::StreamId stream);
  void CheckStale(const v1::WorkerMessage& message, const coordinator::Event& event);
  void Tick();
  void Prepare();

  Cluster& cluster_;
  DurableStore::Content content_;
  std::optional<coordinator::RunMachine> machine_;
  bool prepared_ = false;
  // Actions until it dies; -1: it does not.
  int actions_left_ = -1;
  // The machine's streams.
  std::map<coordinator::StreamId, Link*> links_;
  // Of the workers on them.
  std::map<coordinator::StreamId, std::string> ids_;
  // Bug newcomer_is_member: worker's id -> its first stream.
  std::map<std::string, coordinator::StreamId> first_streams_;
  std::map<const Link*, coordinator::StreamId> streams_;
};

}  // namespace polystill::simulation
