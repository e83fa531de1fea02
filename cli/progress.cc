#include "cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/text.h"

namespace polystill::cli {
namespace {

constexpr size_t kNameWidth = 18;
// A rate or a time left from less than this is noise. Seconds.
constexpr double kMeaningful = 0.5;
// Goes to the line's start and clears it (ECMA-48 EL).
constexpr char kRedraw[] = "\r\x1b[2K";

using Stage = v1::RunStatus::Stage;

// What `done` and `total` of a stage count (proto/polystill/v1/coordinator.proto).
std::string Unit(const Stage& stage) {
  if (stage.name() == "tokenizer") return "bytes";
  const bool of_records = stage.name() == "index" || stage.name() == "evaluate" || stage.name() == "labels";
  return of_records ? "records" : "steps";
}

bool CountsSteps(const Stage& stage) { return Unit(stage) == "steps"; }

std::string Bar(const Stage& stage, int width) {
  const double share = std::clamp(static_cast<double>(stage.done()) / static_cast<double>(stage.total()), 0.0, 1.0);
  const int filled = static_cast<int>(share * width);
  return absl::StrFormat("[%s%s] %3d%%", std::string(filled, '#'), std::string(width - filled, '-'),
                         static_cast<int>(share * 100));
}

void AddRate(const Stage& stage, double seconds, std::vector<std::string>* parts) {
  if (stage.records() <= 0 || seconds < kMeaningful) return;
  const double rate = static_cast<double>(stage.records()) / seconds;
  parts->push_back(absl::StrCat(WithThousands(static_cast<int64_t>(rate)), " records/s"));
}

void AddLoss(const Stage& stage, std::vector<std::string>* parts) {
  if (CountsSteps(stage) && stage.done() > 0 && std::isfinite(stage.loss())) {
    parts->push_back(absl::StrFormat("loss %.4f", stage.loss()));
  }
}

std::string TimesSlower(const v1::RunStatus::SlowWorker& slow) {
  return absl::StrFormat("worker %d (pid %d on %s), %.1f times as long for its own work as the others", slow.rank(),
                         slow.pid(), slow.host(), slow.ratio());
}

// Rate, loss, time left, how many are slow; or what it waits for.
std::vector<std::string> Facts(const Stage& stage, double seconds) {
  if (!stage.waiting_for().empty()) return {absl::StrCat("waiting for ", stage.waiting_for())};
  std::vector<std::string> facts;
  AddRate(stage, seconds, &facts);
  AddLoss(stage, &facts);
  // The tokeniser's second half, training, does not tell how far it is.
  if (stage.total() > 0 && stage.done() > 0 && seconds >= kMeaningful && stage.name() != "tokenizer") {
    const double left = seconds * static_cast<double>(stage.total() - stage.done()) / static_cast<double>(stage.done());
    facts.push_back(absl::StrCat(Duration(left), " left"));
  }
  const int slow = stage.slow_workers_size();
  if (slow > 0) facts.push_back(absl::StrCat(slow, slow == 1 ? " slow worker" : " slow workers"));
  return facts;
}

std::string Line(const Stage& stage, const std::vector<std::string>& parts) {
  return PadRight(stage.name() + " ", kNameWidth) + absl::StrJoin(parts, "  ");
}

}  // namespace

int TerminalWidth() {
  constexpr int kUsualWidth = 80;
  winsize size = {};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsualWidth;
}

std::string RunningLine(const Stage& stage, double seconds, int width) {
  const auto columns = static_cast<size_t>(std::max(width, 0));
  const std::vector<std::string> facts = Facts(stage, seconds);
  const std::string done = WithThousands(stage.done());
  // From roomy to tight: length of the bar, and whether the count is shown.
  constexpr std::pair<int, bool> kLayouts[] = {{24, true}, {12, true}, {12, false}, {6, false}};
  std::vector<std::string> parts;
  for (const auto& [bar, counts] : kLayouts) {
    parts.clear();
    if (stage.total() > 0) parts.push_back(Bar(stage, bar));
    if (stage.total() > 0 && counts) {
      parts.push_back(absl::StrCat(done, "/", WithThousands(stage.total()), " ", Unit(stage)));
    }
    if (stage.total() == 0 && stage.done() > 0) parts.push_back(absl::StrCat(done, " ", Unit(stage)));
    parts.insert(parts.end(), facts.begin(), facts.end());
    if (Line(stage, parts).size() <= columns) return Line(stage, parts);
  }
  while (!parts.empty() && Line(stage, parts).size() > columns) parts.pop_back();
  return Line(stage, parts).substr(0, columns);
}

std::string WorkerLines(const Stage& stage) {
  std::string lines;
  const auto add = [&lines](const std::string& what) {
    absl::StrAppend(&lines, "  ", std::string(kNameWidth, ' '), what, "\n");
  };
  for (const auto& slow : stage.slow_workers()) add(absl::StrCat("slow: ", TimesSlower(slow)));
  for (const auto& eviction : stage.evictions()) {
    add(absl::StrCat("left out after step ", WithThousands(eviction.step()), ": ", TimesSlower(eviction.worker())));
  }
  return lines;
}

std::string FinishedLine(const Stage& stage) {
  std::vector<std::string> parts;
  const std::string unit = Unit(stage);
  parts.push_back(absl::StrCat(WithThousands(stage.done()), " ", unit));
  if (unit != "records" && stage.records() > 0)
    parts.push_back(absl::StrCat(WithThousands(stage.records()), " records"));
  AddRate(stage, stage.seconds(), &parts);
  if (stage.labels() > 0) parts.push_back(absl::StrCat(WithThousands(stage.labels()), " soft labels"));
  AddLoss(stage, &parts);
  parts.push_back(Duration(stage.seconds()));
  return Line(stage, parts);
}

std::string ProgressView::Update(const v1::RunStatus& status, double age, int width) {
  std::string out;
  const std::string clear = terminal_ ? kRedraw : "";
  for (; written_ < status.stages_size() && status.stages(written_).finished(); ++written_) {
    absl::StrAppend(&out, clear, FinishedLine(status.stages(written_)), "\n");
    open_line_.clear();
  }
  const bool running = status.state() == v1::RunStatus::STATE_RUNNING && written_ < status.stages_size();
  if (!terminal_ || !running) return out;
  const Stage& stage = status.stages(written_);
  // One column stays free: some terminals wrap when the last one is written.
  const std::string line = RunningLine(stage, stage.seconds() + age, width - 1);
  if (line != open_line_) absl::StrAppend(&out, kRedraw, line);
  open_line_ = line;
  return out;
}

std::string ProgressView::Close() {
  const bool open = !open_line_.empty();
  open_line_.clear();
  return open ? "\n" : "";
}

}  // namespace polystill::cli
