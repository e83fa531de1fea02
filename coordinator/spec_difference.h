#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "polystill/v1/run.pb.h"

namespace polystill::coordinator {

// The keys, as people write them ("student.optimizer.lr"), in which two run files differ so that one cannot go on with
// the other's run: all but student.workers, threads, prefetch, checkpoint_every and keep_checkpoints. Each once, in the
// schema's order.
std::vector<std::string> DifferingKeys(const v1::RunSpec& began, const v1::RunSpec& now);

// OK when `now` may go on with the run that began as `began`: the specs are equal but for student.workers, threads,
// prefetch, checkpoint_every and keep_checkpoints. FAILED_PRECONDITION names the keys that differ.
absl::Status CheckSameRun(const v1::RunSpec& began, const v1::RunSpec& now);

}  // namespace polystill::coordinator
