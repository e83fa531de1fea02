#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <stop_token>
#include <string>

#include "collectives/background.h"
#include "runtime/allocator.h"
#include "student_worker/exit_codes.h"
#include "student_worker/signals.h"
#include "student_worker/worker.h"

namespace {

constexpr char kExamples[] =
    "Examples:\n"
    "  polystill-student --coordinator 127.0.0.1:7070\n"
    "  polystill-student --coordinator head-node:7070 --host $(hostname -I | cut -d' ' -f1)\n"
    "\n"
    "Exit status: 0 the run is done, 1 a job failed here or the coordinator did not come back, 75 the run was stopped "
    "or "
    "failed\n"
    "elsewhere and may go on (start it again), 130 or 143 after SIGINT or SIGTERM (a job under way ends at its next "
    "step,\n"
    "with a checkpoint).";

}  // namespace

int main(int argc, char** argv) {
  polystill::KeepFreedMemory();
  using namespace polystill::student_worker;
  WorkerOptions options;
  CLI::App app("A worker of a Polystill run: trains with the other workers, and evaluates, as the coordinator says.",
               "polystill-student");
  app.footer(kExamples);
  app.add_option("--coordinator", options.coordinator, "host:port of the run's coordinator")->required();
  app.add_option("--host", options.host,
                 "name or address of this machine at which other workers reach it\n"
                 "(default: 127.0.0.1 when the coordinator is on loopback, else the machine's name)");
  app.add_option("--gpu", options.gpu, "which of this machine's GPUs to train on, with device: cuda in the run file")
      ->check(CLI::Range(0, 1023))
      ->capture_default_str();
  app.add_option("--metrics", options.metrics, "host:port at which Prometheus reads /metrics; none when left out");
  app.add_flag("--insecure", options.insecure, "allow --metrics on another address than loopback, without TLS");
  double patience_seconds = std::chrono::duration<double>(options.coordinator_patience).count();
  app.add_option("--coordinator-patience", patience_seconds,
                 "seconds to look for a coordinator that is away, while work goes on")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app.add_option("--trace-records", options.trace_records,
                 "append the ids of each step's records to this file, a JSON object a line");
  CLI11_PARSE(app, argc, argv);
  options.coordinator_patience = std::chrono::milliseconds(static_cast<int64_t>(1000 * patience_seconds));
  spdlog::set_default_logger(spdlog::stderr_color_mt("student"));

  std::stop_source stop;
  const Signals signals(stop);
  const auto end = Work(options, stop);
  if (!end.ok() && signals.received() == 0) spdlog::error("{}", std::string(end.status().message()));
  const int failed = end.ok() ? kExitRunNotDone : kExitFailed;
  const bool done = end.ok() && *end == polystill::v1::RunStatus::STATE_DONE;
  const int status = signals.received() != 0 ? 128 + signals.received() : done ? kExitDone : failed;
  if (polystill::collectives::CountInBackground() == 0) return status;
  // A thread that is still stuck in a join must not find the statics gone.
  spdlog::default_logger()->flush();
  std::_Exit(status);
}
