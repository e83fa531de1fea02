#include "tests/simulation/schedule.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "tests/simulation/coordinator.h"
#include "tests/simulation/faults.h"
#include "tests/simulation/teacher.h"
#include "tests/simulation/worker.h"

namespace polystill::simulation {
namespace {

// Once all faults are over, a run ends within this.
constexpr std::chrono::minutes kEndWithin{5};
// Far more than any run needs.
constexpr int64_t kMostEvents = 1'000'000;

}  // namespace

Outcome RunSchedule(uint64_t seed, const Bugs& bugs, bool verbose) {
  World world(seed, verbose);
  Cluster cluster(&world, bugs, DrawRun(&world));
  Faults faults(&cluster);
  History& history = cluster.history();
  cluster.Start();
  std::optional<Instant> quiet_since;
  while (!cluster.done() && history.violation().empty() && world.Next()) {
    faults.Look();
    if (faults.Over() && !quiet_since.has_value()) quiet_since = world.now();
    if (quiet_since.has_value() && world.now() - *quiet_since > kEndWithin) {
      history.Break(absl::StrCat("9: faults stopped ", kEndWithin.count(), " minutes ago, and the run has not ended"));
    }
    if (world.events() > kMostEvents) history.Break("9: the run does not end");
  }
  if (!cluster.done() && history.violation().empty()) history.Break("9: nothing happens any more");
  const Cluster::Measures& measures = cluster.measures();
  return {history.violation(), world.events(),    faults.count(),
          measures.left_out,   measures.given_up, measures.not_reached};
}

}  // namespace polystill::simulation
