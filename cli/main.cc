#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cli/check_command.h"
#include "cli/exit_codes.h"
#include "cli/html_report.h"
#include "cli/run_command.h"
#include "cli/siblings.h"
#include "cli/status_command.h"
#include "coordinator/run_file.h"
#include "runtime/files.h"
#include "runtime/nearest_name.h"

namespace {

using namespace polystill::cli;

constexpr char kFooter[] =
    "Examples:\n"
    "  polystill check run.yaml                      says what is wrong with a run file, or what it would do\n"
    "  polystill check --keys                        all keys of a run file, with defaults\n"
    "  polystill run run.yaml                        runs it on this machine\n"
    "  polystill run run.yaml --set student.epochs=2 --set output=runs/short\n"
    "  polystill run run.yaml --resume               goes on after a stop or a crash\n"
    "  polystill run run.yaml --dry-run              reads the corpus and says what it would do and need\n"
    "  polystill status runs/short                   where it stands\n"
    "  polystill stop runs/short                     stops it at its next step, with a checkpoint\n"
    "  polystill scale runs/short 4                  lets it have four workers from its next step on\n"
    "  polystill predict --student runs/short --text 'a text'                      asks what came out of it\n"
    "  polystill report runs/short                   makes its report.html again\n"
    "  polystill label --teacher my-package --corpus data --out labels             labels to learn from later\n"
    "On a cluster: one coordinator, teacher servers and student workers\n"
    "  polystill coordinator --spec run.yaml --listen 0.0.0.0:7000 --advertise HEAD-NODE --insecure\n"
    "  polystill teacher --coordinator HEAD-NODE:7000 --teacher NAME --listen 0.0.0.0:0 --advertise $(hostname) \\\n"
    "      --insecure\n"
    "  polystill student --coordinator HEAD-NODE:7000\n"
    "\n"
    "Exit codes: 0 fine, 1 the run failed, 2 wrong usage or run file, 130 interrupted.";

// The commands of this program itself.
constexpr char kRun[] = "run";
constexpr char kCheck[] = "check";
constexpr char kStatus[] = "status";
constexpr char kStop[] = "stop";
constexpr char kScale[] = "scale";
constexpr char kReport[] = "report";
constexpr char kExport[] = "export";

// The programs that `polystill ROLE ...` becomes, and what the help says of them.
constexpr std::pair<const char*, const char*> kRoles[] = {
    {"coordinator", "the process that leads a run (see its own --help)"},
    {"teacher", "a teacher server, of a run or on its own"},
    {"student", "a student worker of a run"},
    {"predict", "ask a trained student about texts"},
    {"label", "write a teacher's soft labels of a corpus, to learn from without it"},
    {kExport, "write a trained student as TorchScript"}};

int Become(const std::string& role, const std::vector<std::string>& arguments) {
  const auto folder = polystill::ProgramFolder();
  // polystill-export is the program of python/ that makes teacher packages.
  const std::string program = role == kExport ? "torchscript" : role;
  const absl::Status status = folder.ok() ? BecomeSibling(*folder, program, arguments) : folder.status();
  std::cerr << "polystill: " << status.message() << std::endl;
  return kExitFailed;
}

// CLI11 alone would say no more of a wrong command than that one is required.
absl::Status CheckCommand(const std::string& command) {
  std::vector<std::string> known = {kRun, kCheck, kStatus, kStop, kScale, kReport};
  for (const auto& [role, help] : kRoles) known.push_back(role);
  if (command.rfind('-', 0) == 0 || std::find(known.begin(), known.end(), command) != known.end()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown command '", command, "'", polystill::Suggestion(command, known)));
}

int MakeHtmlReport(const std::string& run_folder) {
  const auto folder = polystill::ProgramFolder();
  const absl::StatusOr<std::vector<std::string>> command =
      folder.ok() ? HtmlReportCommand(*folder, run_folder) : folder.status();
  const absl::Status status = command.ok() ? BecomeProgram(*command) : command.status();
  std::cerr << "polystill report: " << status.message() << std::endl;
  return kExitFailed;
}

void AddRunFile(CLI::App* command, RunOptions* options) {
  command->add_option("FILE", options->run_file, "run file (YAML)");
  command
      ->add_option("--set", options->settings,
                   "KEY=VALUE, e.g. student.epochs=2: instead of what the file says; may be repeated")
      ->allow_extra_args(false)
      ->take_all()
      ->type_name("KEY=VALUE");
}

int RunHere(RunOptions options) {
  const auto folder = polystill::ProgramFolder();
  if (!folder.ok()) {
    std::cerr << "polystill: " << folder.status().message() << std::endl;
    return kExitFailed;
  }
  options.programs = *folder;
  options.terminal = ::isatty(STDOUT_FILENO) == 1;
  return Run(options, std::cout, std::cerr);
}

// The coordinator has the means to read a corpus.
int DryRun(const RunOptions& options) {
  if (const auto run = polystill::coordinator::ReadRunFile(options.run_file, options.settings); !run.ok()) {
    std::cerr << run.status().message() << std::endl;
    return kExitUsage;
  }
  std::vector<std::string> arguments = {"--spec", options.run_file, "--dry-run"};
  for (const std::string& setting : options.settings) arguments.insert(arguments.end(), {"--set", setting});
  return Become("coordinator", arguments);
}

}  // namespace

int main(int argc, char** argv) {
  for (const auto& [role, help] : kRoles) {
    if (argc > 1 && argv[1] == std::string(role)) return Become(role, {argv + 2, argv + argc});
  }
  if (const absl::Status status = argc > 1 ? CheckCommand(argv[1]) : absl::OkStatus(); !status.ok()) {
    std::cerr << "polystill: " << status.message() << " (see polystill --help)" << std::endl;
    return kExitUsage;
  }
  CLI::App app("Distils large teacher models into small multilingual students.", "polystill");
  app.footer(kFooter);
  app.set_version_flag("--version", "polystill " POLYSTILL_VERSION);
  app.require_subcommand(1);
  RunOptions options;
  CLI::App* run = app.add_subcommand(kRun, "run a run file on this machine, with progress and a table at the end");
  AddRunFile(run, &options);
  run->get_option("FILE")->required();
  CLI::Option* overwrite =
      run->add_flag("--overwrite", options.overwrite, "delete an earlier run in the same output folder");
  CLI::Option* resume =
      run->add_flag("--resume", options.resume, "go on with the run in the output folder, after a stop or a crash")
          ->excludes(overwrite);
  CLI::Option* resume_or_start =
      run->add_flag("--resume-or-start", options.resume_or_start,
                    "as --resume when the output folder holds a run, else start it: for batch systems and the like")
          ->excludes(overwrite)
          ->excludes(resume);
  bool dry_run = false;
  run->add_flag("--dry-run", dry_run, "read the corpus and say what the run would do and need; write nothing")
      ->excludes(overwrite)
      ->excludes(resume)
      ->excludes(resume_or_start);
  std::string run_folder;
  bool json = false;
  CLI::App* status = app.add_subcommand(kStatus, "where a run stands, or how it ended");
  status->add_option("RUN_FOLDER", run_folder, "output folder of the run")->required();
  status->add_flag("--json", json, "as JSON");
  CLI::App* stop = app.add_subcommand(kStop, "stop a run at its next step, with a checkpoint, and wait for it");
  stop->add_option("RUN_FOLDER", run_folder, "output folder of the run")->required();
  int workers = 0;
  CLI::App* scale = app.add_subcommand(kScale, "change the number of student workers of a run that is under way");
  scale->add_option("RUN_FOLDER", run_folder, "output folder of the run")->required();
  scale->add_option("WORKERS", workers, "from student.min_workers to student.max_workers")->required();
  CLI::App* check = app.add_subcommand(kCheck, "validate a run file and say what it would do, without running it");
  AddRunFile(check, &options);
  bool keys = false;
  CLI::Option* keys_flag = check->add_flag("--keys", keys, "print the reference of all keys instead");
  check->get_option("FILE")->excludes(keys_flag);
  CLI::App* report = app.add_subcommand(kReport, "make report.html of a finished run, as `run` does at its end");
  report->add_option("RUN_FOLDER", run_folder, "the run's output folder")->required();
  for (const auto& [role, help] : kRoles) app.add_subcommand(role, help);
  try {
    app.parse(argc, argv);
    if (*check && !keys && options.run_file.empty()) throw CLI::RequiredError("FILE or --keys");
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitFine : kExitUsage;
  }
  if (*run && dry_run) return DryRun(options);
  if (*run) return RunHere(options);
  if (*status) return ShowStatus(run_folder, json, std::cout, std::cerr);
  if (*stop) return StopRun(run_folder, std::cout, std::cerr);
  if (*scale) return ScaleRun(run_folder, workers, std::cout, std::cerr);
  if (*report) return MakeHtmlReport(run_folder);
  return keys ? PrintKeys(std::cout) : CheckRunFile(options.run_file, options.settings, std::cout, std::cerr);
}
