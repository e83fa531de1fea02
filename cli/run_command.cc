#include "cli/run_command.h"

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "cli/children.h"
#include "cli/exit_codes.h"
#include "cli/html_report.h"
#include "cli/launch.h"
#include "cli/log_tail.h"
#include "cli/progress.h"
#include "cli/report_table.h"
#include "cli/restarts.h"
#include "cli/run_watcher.h"
#include "cli/signals.h"
#include "coordinator/run_file.h"
#include "coordinator/run_folder.h"
#include "coordinator/spec_difference.h"
#include "coordinator/status_file.h"
#include "runtime/cores.h"
#include "runtime/files.h"
#include "runtime/status.h"
#include "student_worker/exit_codes.h"

namespace polystill::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kRedraw{100};
constexpr milliseconds kAddressWithin{60'000};
// After a process that the run needs died: for the coordinator to notice, find the cause and end the run.
constexpr milliseconds kNoticeWithin{10'000};
// After the run has ended: for everybody to leave by themselves; once the coordinator has left; after SIGTERM.
constexpr milliseconds kLeaveWithin{20'000};
constexpr milliseconds kStraggle{1'000};
constexpr milliseconds kTermPatience{5'000};
// A stopped training writes a checkpoint first (coordinator::RunMachine::kSaveWithin, and some).
constexpr milliseconds kSaveWithin{150'000};
// For Python to draw report.html.
constexpr milliseconds kDrawWithin{120'000};

constexpr char kHtmlReporter[] = "report";
constexpr char kCoordinator[] = "coordinator";

std::string ReportOf(const v1::RunSpec& spec) { return absl::StrCat(spec.output(), "/", coordinator::kReportFile); }

std::string StatusPathOf(const v1::RunSpec& spec) { return absl::StrCat(spec.output(), "/", coordinator::kStatusFile); }

bool HoldsRun(const v1::RunSpec& spec) { return fs::exists(absl::StrCat(spec.output(), "/", coordinator::kStateFile)); }

// The least time when there is no such file.
fs::file_time_type LastWritten(const std::string& path) {
  std::error_code none;
  return fs::last_write_time(path, none);
}

void DropLabelCaches(const v1::RunSpec& spec) {
  std::error_code left;  // it does no harm there
  fs::remove_all(LabelCachesOf(spec), left);
}

absl::Status PrintTableOf(const v1::RunSpec& spec, std::ostream& out) {
  const std::string path = ReportOf(spec);
  ASSIGN_OR_RETURN(const std::string report, ReadFile(path));
  const absl::StatusOr<std::string> table = ReportTable(report);
  RETURN_IF_ERROR(Annotate(table.status(), path));
  out << "\n" << *table << std::endl;
  return absl::OkStatus();
}

// Whether a run may begin, or go on, in its folder: what can be told without starting anything.
absl::Status CheckFolder(const RunOptions& options, const v1::RunSpec& spec) {
  const bool holds_a_run = HoldsRun(spec);
  if (!options.resume) {
    if (options.overwrite || !holds_a_run) return absl::OkStatus();
    return absl::AlreadyExistsError(absl::StrCat(spec.output(),
                                                 ": holds an earlier run; choose another output, go on with that run "
                                                 "with --resume, or delete it with --overwrite"));
  }
  if (!holds_a_run) {
    return absl::NotFoundError(
        absl::StrCat(spec.output(), ": holds no run to resume; leave --resume out to start one"));
  }
  const std::string began_with = absl::StrCat(spec.output(), "/", coordinator::kSpecFile);
  if (!fs::exists(began_with)) return absl::OkStatus();  // the coordinator knows more
  ASSIGN_OR_RETURN(const coordinator::RunFile began, coordinator::ReadRunFile(began_with, {}));
  return coordinator::CheckSameRun(began.spec, spec);
}

class Session {
 public:
  Session(const RunOptions& options, v1::RunSpec spec, std::ostream& out, std::ostream& err)
      : options_(options),
        spec_(std::move(spec)),
        out_(out),
        err_(err),
        children_(absl::StrCat(spec_.output(), "/logs"), &signals_),
        view_(options.terminal),
        status_file_before_(LastWritten(StatusPathOf(spec_))) {}

  int Run();

 private:
  absl::Status StartAll();
  void Follow();
  void Draw();
  // Starts those again that a signal killed, and does without those that can be spared; says so once of each. False
  // when one has ended without which the run cannot go on.
  bool CopesWithTheEnded();
  // When a child that has ended is started again, if it is.
  std::optional<Clock::time_point> RestartOf(ChildProcess* child);
  absl::Status Restart(ChildProcess* child);
  // Those that the run wants beside the ones that are there.
  absl::Status StartMoreStudents();
  void EndAll();
  bool Succeeded();
  std::string Reason() const;
  int Finish();
  int Fail(const absl::Status& status);
  int PrintReport();
  std::string ResumeCommand() const;
  std::string MakeHtmlReport();

  const RunOptions options_;
  const v1::RunSpec spec_;
  std::ostream& out_;
  std::ostream& err_;
  Signals signals_;
  Children children_;
  std::unique_ptr<RunWatcher> watcher_;
  ProgressView view_;
  v1::RunStatus status_;
  // When an earlier process of this run wrote the status file last; the least time without one.
  const fs::file_time_type status_file_before_;
  bool interrupted_ = false;
  // Children that have ended and that the run was said to do without.
  std::set<const ChildProcess*> spared_;
  Restarts restarts_;
  // Of children that have ended.
  std::map<const ChildProcess*, std::optional<Clock::time_point>> restart_at_;
  // Of the coordinator, once it listens.
  std::string address_;
  // By name.
  std::map<std::string, Launch> launches_;
  int students_ = 0;
  // The coordinator was told to end the run.
  bool leaving_ = false;
};

int Session::Run() {
  const absl::Status started = StartAll();
  if (!started.ok() && !interrupted_) return Fail(started);
  if (started.ok()) Follow();
  EndAll();
  return Finish();
}

absl::Status Session::StartAll() {
  const std::string address_file = absl::StrCat(children_.log_folder(), "/coordinator-", ::getpid(), ".address");
  Launch coordinator = LaunchCoordinator(options_.programs, options_.run_file, options_.settings, "127.0.0.1:0");
  coordinator.argv.insert(coordinator.argv.end(), {"--address-file", address_file});
  if (options_.overwrite) coordinator.argv.push_back("--overwrite");
  if (options_.resume) coordinator.argv.push_back("--resume");
  // Appended to: until the coordinator holds the folder, the log may be another run's.
  RETURN_IF_ERROR(children_.Start(coordinator, true));
  const absl::StatusOr<std::string> address = children_.AwaitAddress("coordinator", address_file, kAddressWithin);
  interrupted_ = absl::IsCancelled(address.status());
  RETURN_IF_ERROR(address.status());
  address_ = *address;
  for (const Launch& launch : LaunchMembers(options_.programs, spec_, address_, UsableCores())) {
    RETURN_IF_ERROR(children_.Start(launch, options_.resume));
    launches_.emplace(launch.name, launch);
  }
  students_ = spec_.student().workers();
  // Only now: it starts threads, and a fork should not meet any.
  watcher_ = std::make_unique<RunWatcher>(address_);
  return absl::OkStatus();
}

// Until the run has ended, or nothing more is to be expected of it.
void Session::Follow() {
  std::optional<Clock::time_point> give_up;
  while (true) {
    const bool asked = AsksToEnd(signals_.Wait(kRedraw));
    Draw();
    children_.Poll();
    if (HasEnded(status_)) break;
    if (asked) {
      interrupted_ = true;
      out_ << view_.Close() << "stopping; once more ends it at once" << std::endl;
      leaving_ = watcher_->Stop("stopped by the user").ok();
      return;
    }
    const bool goes_on = CopesWithTheEnded() && StartMoreStudents().ok();
    if (!goes_on && children_.HasEnded("coordinator")) break;
    if (!goes_on && !give_up.has_value()) give_up = Clock::now() + kNoticeWithin;
    if (give_up.has_value() && Clock::now() >= *give_up) break;
  }
  // The last word may still be on its way.
  const Clock::time_point deadline = Clock::now() + std::chrono::seconds(1);
  while (!HasEnded(status_) && children_.HasEnded("coordinator") && Clock::now() < deadline) {
    signals_.Wait(kRedraw);
    Draw();
  }
}

bool Session::CopesWithTheEnded() {
  const std::vector<ChildProcess*> ended = children_.ended();  // a restart changes it
  for (ChildProcess* const child : ended) {
    if (spared_.contains(child)) continue;
    if (const auto at = RestartOf(child); at.has_value()) {
      if (Clock::now() >= *at && !Restart(child).ok()) return false;
      continue;
    }
    // Of a student that ended well the coordinator knows that it has left.
    const bool dismissed = child->succeeded() && child->name() != kCoordinator;
    if (!dismissed && !CanSpare(child->name(), spec_, status_, children_.CountLeft(kStudentPrefix))) return false;
    spared_.insert(child);
    out_ << view_.Close() << child->name() << " " << child->Poll().value_or("ended") << "; the run goes on without it"
         << std::endl;
  }
  return true;
}

std::optional<Clock::time_point> Session::RestartOf(ChildProcess* child) {
  if (child->exit_status().has_value()) return std::nullopt;  // it has ended by itself, and would again
  const auto [at, is_new] = restart_at_.try_emplace(child);
  if (is_new) at->second = restarts_.Next(child->name(), Clock::now());
  return at->second;
}

absl::Status Session::Restart(ChildProcess* child) {
  out_ << view_.Close() << child->name() << " " << child->Poll().value_or("ended") << "; it is started again"
       << std::endl;
  restart_at_.erase(child);
  if (child->name() != kCoordinator) return children_.Restart(child, launches_.at(child->name()));
  // Where the others look for it.
  Launch launch = LaunchCoordinator(options_.programs, options_.run_file, options_.settings, address_);
  if (HoldsRun(spec_)) launch.argv.push_back("--resume");
  return children_.Restart(child, launch);
}

absl::Status Session::StartMoreStudents() {
  if (status_.current() >= status_.stages_size()) return absl::OkStatus();
  for (; students_ < status_.stages(status_.current()).workers_wanted(); ++students_) {
    const Launch launch = LaunchStudent(options_.programs, spec_, address_, students_);
    RETURN_IF_ERROR(children_.Start(launch, options_.resume));
    launches_.emplace(launch.name, launch);
  }
  return absl::OkStatus();
}

void Session::Draw() {
  const RunWatcher::Seen seen = watcher_->Latest();
  status_ = seen.status;
  const double age = std::chrono::duration<double>(Clock::now() - seen.at).count();
  out_ << view_.Update(status_, age, options_.terminal ? TerminalWidth() : 0) << std::flush;
}

void Session::EndAll() {
  out_ << view_.Close() << std::flush;
  // Whoever has not heard the coordinator's order when it leaves (it was still starting, say) never will.
  const bool ordered = leaving_ || HasEnded(status_);
  const bool saving = leaving_ || status_.state() == v1::RunStatus::STATE_STOPPED;
  const milliseconds limit = saving ? kSaveWithin : kLeaveWithin;
  if (ordered && children_.WaitFor("coordinator", limit) && children_.WaitForAll(kStraggle)) return;
  children_.EndAll(kTermPatience);
}

// Why the run failed: the coordinator's word. When it left before anybody had asked it, what it wrote in this run.
std::string Session::Reason() const {
  if (!status_.reason().empty()) return status_.reason();
  if (LastWritten(StatusPathOf(spec_)) != status_file_before_) {
    const absl::StatusOr<v1::RunStatus> written = coordinator::ReadStatusFile(StatusPathOf(spec_));
    if (written.ok() && !written->reason().empty()) return written->reason();
  }
  if (const int count = status_.left_out_size(); count > 0) return status_.left_out(count - 1);
  return "a process of it ended";
}

// The coordinator's word, or, when that was lost, its exit status.
bool Session::Succeeded() {
  if (HasEnded(status_)) return status_.state() == v1::RunStatus::STATE_DONE;
  for (const ChildProcess* child : children_.ended()) {
    if (child->name() == "coordinator") return child->succeeded();
  }
  return false;
}

int Session::Finish() {
  if (watcher_ != nullptr) Draw();
  if (Succeeded()) {
    DropLabelCaches(spec_);
    return PrintReport();
  }
  if (interrupted_ || status_.state() == v1::RunStatus::STATE_STOPPED) {
    err_ << "polystill: stopped; what is finished lies in " << spec_.output() << std::endl;
    if (HoldsRun(spec_)) {
      err_ << "go on with: " << ResumeCommand() << std::endl;
    }
    return kExitInterrupted;
  }
  return Fail(absl::InternalError(Reason()));
}

// Also what became of the first process that ended badly: the others followed it.
int Session::Fail(const absl::Status& status) {
  children_.Poll();
  out_ << view_.Close() << std::flush;
  err_ << "polystill: the run failed: " << status.message() << "\n";
  for (ChildProcess* child : children_.ended()) {
    if (child->succeeded() || child->exit_status() == student_worker::kExitRunNotDone) continue;
    err_ << Obituary(child);
    break;
  }
  err_ << "logs: " << children_.log_folder() << std::endl;
  // Without a watcher the coordinator did not come up: the folder may be another run's.
  if (watcher_ != nullptr && HoldsRun(spec_)) {
    err_ << "once that is mended, go on with: " << ResumeCommand() << std::endl;
  }
  return kExitFailed;
}

// What a person types; settings are quoted for the shell.
std::string Session::ResumeCommand() const {
  std::string command = absl::StrCat("polystill run ", options_.run_file);
  for (const std::string& setting : options_.settings) absl::StrAppend(&command, " --set '", setting, "'");
  return command + " --resume";
}

int Session::PrintReport() {
  const absl::Status printed = PrintTableOf(spec_, out_);
  if (!printed.ok()) return Fail(printed);
  out_ << MakeHtmlReport() << "\n" << ReportOf(spec_) << std::endl;
  return kExitFine;
}

// The path of report.html, or why there is none: a run without it is a whole run.
std::string Session::MakeHtmlReport() {
  const auto command = HtmlReportCommand(options_.programs, spec_.output());
  absl::Status status = command.status();
  if (status.ok()) status = children_.Start({kHtmlReporter, *command}, false);
  if (status.ok() && children_.WaitForAll(kDrawWithin)) {
    for (const ChildProcess* child : children_.ended()) {
      if (child->name() != kHtmlReporter) continue;
      if (child->succeeded()) return absl::StrCat(spec_.output(), "/", coordinator::kHtmlReportFile);
      // Its last line: log tails have a mark before each.
      const std::string tail = LogTail(child->log(), child->log_start(), 1);
      const std::string why(absl::StripAsciiWhitespace(absl::StripPrefix(absl::StripAsciiWhitespace(tail), "|")));
      status = absl::UnavailableError(why.empty() ? "Python failed" : why);
    }
  }
  children_.EndAll(kTermPatience);
  if (status.ok()) status = absl::DeadlineExceededError("Python was not done in time");
  return absl::StrCat("no ", coordinator::kHtmlReportFile, ": ", status.message(), "; then: polystill report ",
                      spec_.output());
}

}  // namespace

int Run(RunOptions options, std::ostream& out, std::ostream& err) {
  const absl::StatusOr<coordinator::RunFile> run = coordinator::ReadRunFile(options.run_file, options.settings);
  if (!run.ok()) {
    err << run.status().message() << std::endl;
    return kExitUsage;
  }
  if (options.resume_or_start) options.resume = HoldsRun(run->spec);
  const absl::Status folder = CheckFolder(options, run->spec);
  if (!folder.ok()) {
    err << folder.message() << std::endl;
    return kExitUsage;
  }
  // The report comes last: with it, all is done.
  if (options.resume && fs::exists(ReportOf(run->spec))) {
    DropLabelCaches(run->spec);
    out << "run " << run->spec.name() << " is done already" << std::endl;
    const absl::Status printed = PrintTableOf(run->spec, out);
    if (!printed.ok()) {
      err << printed.message() << std::endl;
      return kExitFailed;
    }
    out << ReportOf(run->spec) << std::endl;
    return kExitFine;
  }
  return Session(options, run->spec, out, err).Run();
}

}  // namespace polystill::cli
