#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>
#include <vector>

#include "cli/check_command.h"
#include "cli/exit_codes.h"
#include "cli/html_report.h"
#include "cli/run_command.h"
#include "cli/siblings.h"

namespace {

using namespace polystill::cli;

constexpr char kFooter[] =
    "Examples:\n"
    "  polystill check run.yaml                      says what is wrong with a run file, or what it would do\n"
    "  polystill check --keys                        all keys of a run file, with defaults\n"
    "  polystill run run.yaml                        runs it on this machine\n"
    "  polystill run run.yaml --set student.epochs=2 --set output=runs/short\n"
    "  polystill report runs/short                   makes its report.html again\n"
    "  polystill coordinator --spec run.yaml --listen 0.0.0.0:7000 --insecure      on a cluster: one coordinator,\n"
    "  polystill teacher --coordinator HOST:7000 --teacher NAME                    teacher servers\n"
    "  polystill student --coordinator HOST:7000                                   and student workers\n"
    "\n"
    "Exit codes: 0 fine, 1 the run failed, 2 wrong usage or run file, 130 interrupted.";

// The programs that `polystill ROLE ...` becomes, and what the help says of them.
constexpr std::pair<const char*, const char*> kRoles[] = {
    {"coordinator", "the process that leads a run (see its own --help)"},
    {"teacher", "a teacher server, of a run or on its own"},
    {"student", "a student worker of a run"}};

int Become(const std::string& role, const std::vector<std::string>& arguments) {
  const auto folder = ProgramFolder();
  const absl::Status status = folder.ok() ? BecomeSibling(*folder, role, arguments) : folder.status();
  std::cerr << "polystill: " << status.message() << std::endl;
  return kExitFailed;
}

int MakeHtmlReport(const std::string& run_folder) {
  const auto folder = ProgramFolder();
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
  const auto folder = ProgramFolder();
  if (!folder.ok()) {
    std::cerr << "polystill: " << folder.status().message() << std::endl;
    return kExitFailed;
  }
  options.programs = *folder;
  options.terminal = ::isatty(STDOUT_FILENO) == 1;
  return Run(options, std::cout, std::cerr);
}

}  // namespace

int main(int argc, char** argv) {
  for (const auto& [role, help] : kRoles) {
    if (argc > 1 && argv[1] == std::string(role)) return Become(role, {argv + 2, argv + argc});
  }
  CLI::App app("Distils large teacher models into small multilingual students.", "polystill");
  app.footer(kFooter);
  app.set_version_flag("--version", "polystill " POLYSTILL_VERSION);
  app.require_subcommand(1);
  RunOptions options;
  CLI::App* run = app.add_subcommand("run", "run a run file on this machine, with progress and a table at the end");
  AddRunFile(run, &options);
  run->get_option("FILE")->required();
  run->add_flag("--overwrite", options.overwrite, "delete an earlier run in the same output folder");
  CLI::App* check = app.add_subcommand("check", "validate a run file and say what it would do, without running it");
  AddRunFile(check, &options);
  bool keys = false;
  CLI::Option* keys_flag = check->add_flag("--keys", keys, "print the reference of all keys instead");
  check->get_option("FILE")->excludes(keys_flag);
  std::string run_folder;
  CLI::App* report = app.add_subcommand("report", "make report.html of a finished run, as `run` does at its end");
  report->add_option("RUN_FOLDER", run_folder, "the run's output folder")->required();
  for (const auto& [role, help] : kRoles) app.add_subcommand(role, help);
  try {
    app.parse(argc, argv);
    if (*check && !keys && options.run_file.empty()) throw CLI::RequiredError("FILE or --keys");
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitFine : kExitUsage;
  }
  if (*run) return RunHere(options);
  if (*report) return MakeHtmlReport(run_folder);
  return keys ? PrintKeys(std::cout) : CheckRunFile(options.run_file, options.settings, std::cout, std::cerr);
}
