#include "student_worker/roll_call.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"

namespace polystill::student_worker {
namespace {

constexpr double kEverySeconds = 0.5;
constexpr double kMostSteps = 1000;

// Replicas that have drifted apart are an error, never averaged away.
absl::Status CompareWeights(int64_t step, const std::vector<v1::RankNote>& notes) {
  for (size_t rank = 0; rank < notes.size(); ++rank) {
    if (notes[rank].weights_digest() == notes[0].weights_digest()) continue;
    return absl::InternalError(absl::StrCat("replicas apart after step ", step, ": rank 0 has weights ",
                                            notes[0].weights_digest(), ", rank ", rank, " has ",
                                            notes[rank].weights_digest()));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t StepsBetweenRollCalls(double step_seconds) {
  return static_cast<int64_t>(std::clamp(kEverySeconds / std::max(step_seconds, 1e-9), 1.0, kMostSteps));
}

absl::StatusOr<RollCall::Answer> RollCall::Hold(int64_t step, const v1::RankNote& note) {
  ASSIGN_OR_RETURN(const std::vector<std::string> answers, group_->AllGather(note.SerializeAsString()));
  std::vector<v1::RankNote> notes(answers.size());
  Answer together;
  double slowest = 0;
  for (size_t rank = 0; rank < answers.size(); ++rank) {
    if (!notes[rank].ParseFromString(answers[rank])) {
      return absl::InternalError(absl::StrCat("rank ", rank, " answered the roll call after step ", step,
                                              " with something else; do all ranks run the same build?"));
    }
    together.stop |= notes[rank].stop();
    together.regroup |= notes[rank].regroup();
    slowest = std::max(slowest, notes[rank].step_seconds());
    together.waited_seconds = std::max(together.waited_seconds, notes[rank].counted().data_wait_seconds());
  }
  RETURN_IF_ERROR(CompareWeights(step, notes));
  next_ = step + StepsBetweenRollCalls(slowest);
  return together;
}

}  // namespace polystill::student_worker
