#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>

#include "coordinator/run_coordinator.h"

int main(int argc, char** argv) {
  polystill::coordinator::CoordinatorOptions options;
  CLI::App app("Decides what a run does next: indexes the corpus, hands jobs to workers, writes the report.",
               "polystill-coordinator");
  app.add_option("--spec", options.spec, "run file")->required();
  app.add_option("--set", options.settings, "key=value, takes precedence over the run file; may be repeated")
      ->take_all()
      ->allow_extra_args(false);
  app.add_option("--listen", options.listen, "host:port; port 0 for any free one")->capture_default_str();
  app.add_option("--advertise", options.advertise, "host that workers and teachers are told");
  app.add_flag("--insecure", options.insecure, "listen without TLS on another address than loopback");
  app.add_option("--metrics", options.metrics, "host:port at which Prometheus reads /metrics; none when left out");
  app.add_option("--address-file", options.address_file, "gets the bound host:port");
  CLI::Option* overwrite = app.add_flag("--overwrite", options.overwrite, "delete an earlier run in the same folder");
  CLI::Option* resume =
      app.add_flag("--resume", options.resume, "go on with the run in the folder, after a stop or a crash")
          ->excludes(overwrite);
  app.add_flag("--resume-or-start", options.resume_or_start,
               "as --resume when the folder holds a run, else start it: for supervisors, which know one command")
      ->excludes(overwrite)
      ->excludes(resume);
  app.add_flag("--dry-run", options.dry_run, "read the corpus and say what the run would do and need; write nothing");
  CLI11_PARSE(app, argc, argv);
  spdlog::set_default_logger(spdlog::stderr_logger_mt("coordinator"));
  return polystill::coordinator::RunCoordinator(options);
}
