#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <stop_token>
#include <string>

#include "student_worker/exit_codes.h"
#include "student_worker/signals.h"
#include "student_worker/worker.h"

namespace {

constexpr char kExamples[] =
    "Examples:\n"
    "  polystill-student --coordinator 127.0.0.1:7070\n"
    "  polystill-student --coordinator head-node:7070 --host $(hostname -I | cut -d' ' -f1)\n"
    "\n"
    "Exit status: 0 the run is done, 1 a job failed here or the coordinator was lost, 75 the run was stopped or "
    "failed\n"
    "elsewhere and may go on (start it again), 130 or 143 after SIGINT or SIGTERM (a job under way ends at its next "
    "step,\n"
    "with a checkpoint).";

}  // namespace

int main(int argc, char** argv) {
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
  app.add_option("--trace-records", options.trace_records,
                 "append the ids of each step's records to this file, a JSON object a line");
  CLI11_PARSE(app, argc, argv);
  spdlog::set_default_logger(spdlog::stderr_color_mt("student"));

  std::stop_source stop;
  const Signals signals(stop);
  const auto end = Work(options, stop);
  if (signals.received() != 0) return 128 + signals.received();
  if (end.ok()) return *end == polystill::v1::RunStatus::STATE_DONE ? kExitDone : kExitRunNotDone;
  spdlog::error("{}", std::string(end.status().message()));
  return kExitFailed;
}
