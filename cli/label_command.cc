#include "cli/label_command.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cli/children.h"
#include "cli/exit_codes.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/text.h"
#include "runtime/cores.h"
#include "runtime/files.h"
#include "runtime/mutex.h"
#include "runtime/status.h"
#include "soft_labels/store_folder.h"

namespace polystill::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using soft_labels::LabelProgress;
using std::chrono::milliseconds;

constexpr milliseconds kRedraw{100};
// For a server to load its package.
constexpr milliseconds kAddressWithin{300'000};
constexpr milliseconds kTermPatience{5'000};
constexpr char kStage[] = "labels";

// Whether the options are at fault, so that the same command would end the same way.
bool IsUsage(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) || absl::IsAlreadyExists(status) || absl::IsInvalidArgument(status);
}

class LabelSession {
 public:
  LabelSession(LabelCommandOptions options, std::ostream& out, std::ostream& err)
      : options_(std::move(options)),
        out_(out),
        err_(err),
        children_(absl::StrCat(options_.job.out, "/logs"), &signals_),
        view_(options_.terminal) {}

  int Run() {
    absl::Status status = TeachersReady();
    if (status.ok()) status = Follow();
    children_.EndAll(kTermPatience);
    out_ << view_.Close() << std::flush;
    return Finish(status);
  }

 private:
  absl::Status TeachersReady();
  absl::Status StartServers();
  absl::Status Follow();
  // False once no server is left; says of each that ended that it did.
  bool ServersLeft();
  void Draw();
  // Whether this process has written labels.
  bool HasBegun();
  int Finish(const absl::Status& status);
  bool has_package() const { return fs::is_directory(options_.teacher); }

  LabelCommandOptions options_;
  std::ostream& out_;
  std::ostream& err_;
  Signals signals_;
  Children children_;
  ProgressView view_;
  const Clock::time_point began_ = Clock::now();
  bool lost_servers_ = false;
  size_t told_ = 0;  // of children_.ended()
  std::atomic<bool> stop_ = false;
  Mutex mutex_;
  LabelProgress seen_ ABSL_GUARDED_BY(mutex_);
};

absl::Status LabelSession::TeachersReady() {
  RETURN_IF_ERROR(soft_labels::CheckStoreFolder(options_.job.out));
  if (has_package()) return StartServers();
  for (const absl::string_view address : absl::StrSplit(options_.teacher, ',')) {
    const std::string text(absl::StripAsciiWhitespace(address));
    if (text.find(':') == std::string::npos || text.find('/') != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat("--teacher ", options_.teacher,
                                                     ": is no folder of a teacher package, and '", text,
                                                     "' is not host:port of a teacher server"));
    }
    options_.job.teachers.push_back(text);
  }
  return absl::OkStatus();
}

absl::Status LabelSession::StartServers() {
  const int cores = options_.threads > 0 ? options_.threads : UsableCores();
  const std::string threads = std::to_string(std::max(1, cores / options_.replicas));
  std::vector<std::pair<std::string, std::string>> files;
  for (int i = 0; i < options_.replicas; ++i) {
    const std::string name = absl::StrCat("teacher-", i);
    const std::string file = absl::StrCat(children_.log_folder(), "/", name, "-", ::getpid(), ".address");
    Launch launch{name,
                  {absl::StrCat(options_.programs, "/polystill-teacher"), "--package", options_.teacher, "--listen",
                   "127.0.0.1:0", "--address-file", file, "--threads", threads}};
    if (options_.cuda) launch.argv.insert(launch.argv.end(), {"--cuda", "--gpu", std::to_string(i)});
    fs::remove(file);  // of a killed job with the same process id, as in a container
    RETURN_IF_ERROR(children_.Start(launch, /*append=*/true));
    files.emplace_back(name, file);
  }
  for (const auto& [name, file] : files) {
    const absl::StatusOr<std::string> address = children_.AwaitAddress(name, file, kAddressWithin);
    lost_servers_ = absl::IsUnavailable(address.status());
    RETURN_IF_ERROR(address.status());
    options_.job.teachers.push_back(*address);
  }
  return absl::OkStatus();
}

absl::Status LabelSession::Follow() {
  std::future<absl::Status> job = std::async(std::launch::async, [this] {
    return soft_labels::RunLabelJob(options_.job, stop_, [this](const LabelProgress& progress) {
      MutexLock lock(&mutex_);
      seen_ = progress;
    });
  });
  while (job.wait_for(milliseconds(0)) != std::future_status::ready) {
    if (AsksToEnd(signals_.Wait(kRedraw))) {
      // A job that reads the corpus, or waits for a server that is gone, does not see `stop_`; nothing is lost by
      // leaving in its middle.
      if (stop_) std::_Exit(kExitInterrupted);
      stop_ = true;
      out_ << view_.Close() << "stopping; once more ends it at once" << std::endl;
    }
    if (!ServersLeft()) stop_ = lost_servers_ = true;
    if (!stop_) Draw();
  }
  Draw();
  return job.get();
}

bool LabelSession::ServersLeft() {
  children_.Poll();
  for (; told_ < children_.ended().size(); ++told_) {
    ChildProcess* const child = children_.ended()[told_];
    if (children_.all_ended()) return false;
    out_ << view_.Close() << child->name() << " " << child->Poll().value_or("ended") << "; the others go on"
         << std::endl;
  }
  return !has_package() || !children_.all_ended();
}

void LabelSession::Draw() {
  v1::RunStatus status;
  status.set_state(v1::RunStatus::STATE_RUNNING);
  v1::RunStatus::Stage& stage = *status.add_stages();
  stage.set_name(kStage);
  stage.set_seconds(std::chrono::duration<double>(Clock::now() - began_).count());
  {
    MutexLock lock(&mutex_);
    stage.set_done(seen_.done);
    stage.set_total(seen_.total);
    stage.set_records(seen_.labelled);
    stage.set_finished(seen_.total > 0 && seen_.done == seen_.total);
  }
  out_ << view_.Update(status, 0, TerminalWidth()) << std::flush;
}

bool LabelSession::HasBegun() {
  MutexLock lock(&mutex_);
  return seen_.labelled > 0;
}

int LabelSession::Finish(const absl::Status& status) {
  if (status.ok()) {
    out_ << options_.job.out << std::endl;
    return kExitFine;
  }
  if (absl::IsCancelled(status) && !lost_servers_) {
    err_ << "polystill label: stopped; what is finished lies in " << options_.job.out
         << "; the same command goes on with it" << std::endl;
    return kExitInterrupted;
  }
  err_ << "polystill label: " << (lost_servers_ ? "no teacher server is left" : status.message()) << "\n";
  for (ChildProcess* child : children_.ended()) {
    if (child->succeeded()) continue;
    err_ << Obituary(child);
    break;
  }
  const bool usage = IsUsage(status) && !HasBegun();
  if (!usage) err_ << "once that is mended, the same command goes on\n";
  err_ << std::flush;
  return usage ? kExitUsage : kExitFailed;
}

}  // namespace

int Label(LabelCommandOptions options, std::ostream& out, std::ostream& err) {
  options.job.out = fs::absolute(options.job.out).lexically_normal().string();
  return LabelSession(std::move(options), out, err).Run();
}

}  // namespace polystill::cli
