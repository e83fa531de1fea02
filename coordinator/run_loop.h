#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "coordinator/event_queue.h"
#include "coordinator/resumption.h"
#include "coordinator/run_events.h"
#include "coordinator/run_machine.h"
#include "coordinator/service.h"
#include "coordinator/state_store.h"
#include "coordinator/teacher_probe.h"

namespace polystill::coordinator {

// The one thread that owns the machine: takes events, asks the machine, makes durable what must be, and only then tells
// workers, teachers and watchers.
class RunLoop {
 public:
  struct Options {
    std::function<Instant()> clock = [] { return std::chrono::steady_clock::now(); };
    // Time between two ticks of the machine: each looks at every member.
    std::chrono::milliseconds tick{100};
    // Shortest time between two statuses that watchers get.
    std::chrono::milliseconds publish_every{200};
    // Told, on the loop's thread, of each generation that is being formed: those before it are over. May be empty.
    std::function<void(int64_t)> begin_generation;
    // Sees, on the loop's thread, each status that watchers get. May be empty.
    std::function<void(const v1::RunStatus&)> observe;
  };
  // Starts writing the report elsewhere; ReportFinished is posted at the end.
  using ReportStarter = std::function<void(const WriteReport&, const v1::RunStatus&)>;

  // All pointers must outlive this object.
  RunLoop(RunConfig config, EventQueue* events, Service* service, StateStore* store, ReportStarter start_report,
          Options options);
  RunLoop(RunConfig config, EventQueue* events, Service* service, StateStore* store, ReportStarter start_report)
      : RunLoop(std::move(config), events, service, store, std::move(start_report), Options()) {}

  // Returns the final status once the run has ended.
  v1::RunStatus Run();

 private:
  void Handle(const Event& event);
  // False when something could not be made durable: the actions after it are not carried out.
  bool CarryOut(const Action& action);
  absl::Status Record(const Action& action);
  void PublishIfDue();

  EventQueue* const events_;
  Service* const service_;
  StateStore* const store_;
  const ReportStarter start_report_;
  const Options options_;
  TeacherProbe probe_;
  RunMachine machine_;
  bool ended_ = false;
  // A later coordinator has begun its term.
  bool superseded_ = false;
  Instant ticked_at_;
  int64_t published_revision_ = -1;
  Instant published_at_;
};

}  // namespace polystill::coordinator
