#include "cli/progress.h"

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
constexpr int kBarWidth = 24;
// A rate or a time left from less than this is noise. Seconds.
constexpr double kMeaningful = 0.5;
// Goes to the line's start and clears it (ECMA-48 EL).
constexpr char kRedraw[] = "\r\x1b[2K";

using Stage = v1::RunStatus::Stage;

bool CountsSteps(const Stage& stage) {
  return stage.name() != "index" && stage.name() != "tokenizer" && stage.name() != "evaluate";
}

std::string Unit(const Stage& stage) { return CountsSteps(stage) ? "steps" : "records"; }

std::string Bar(const Stage& stage) {
  const double share = std::clamp(static_cast<double>(stage.done()) / static_cast<double>(stage.total()), 0.0, 1.0);
  const int filled = static_cast<int>(share * kBarWidth);
  return absl::StrFormat("[%s%s] %3d%%", std::string(filled, '#'), std::string(kBarWidth - filled, '-'),
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

}  // namespace

std::string RunningLine(const Stage& stage, double seconds, int width) {
  std::vector<std::string> parts;
  if (stage.total() > 0) {
    parts.push_back(Bar(stage));
    parts.push_back(absl::StrCat(WithThousands(stage.done()), "/", WithThousands(stage.total()), " ", Unit(stage)));
  } else if (stage.done() > 0) {
    parts.push_back(absl::StrCat(WithThousands(stage.done()), " ", Unit(stage)));
  }
  if (!stage.waiting_for().empty()) {
    parts.push_back(absl::StrCat("waiting for ", stage.waiting_for()));
  } else {
    AddRate(stage, seconds, &parts);
    AddLoss(stage, &parts);
    if (stage.total() > 0 && stage.done() > 0 && seconds >= kMeaningful) {
      const double left =
          seconds * static_cast<double>(stage.total() - stage.done()) / static_cast<double>(stage.done());
      parts.push_back(absl::StrCat(Duration(left), " left"));
    }
  }
  std::string line = PadRight(stage.name(), kNameWidth);
  for (const std::string& part : parts) {
    if (line.size() + 2 + part.size() > static_cast<size_t>(std::max(width, 0))) continue;
    absl::StrAppend(&line, line.back() == ' ' ? "" : "  ", part);
  }
  return line.substr(0, static_cast<size_t>(std::max(width, 0)));
}

std::string FinishedLine(const Stage& stage) {
  std::vector<std::string> parts;
  if (CountsSteps(stage)) parts.push_back(absl::StrCat(WithThousands(stage.done()), " steps"));
  const int64_t records = CountsSteps(stage) ? stage.records() : std::max(stage.records(), stage.done());
  if (records > 0) parts.push_back(absl::StrCat(WithThousands(records), " records"));
  AddRate(stage, stage.seconds(), &parts);
  if (stage.labels() > 0) parts.push_back(absl::StrCat(WithThousands(stage.labels()), " soft labels"));
  AddLoss(stage, &parts);
  parts.push_back(Duration(stage.seconds()));
  return PadRight(stage.name(), kNameWidth) + absl::StrJoin(parts, "  ");
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
