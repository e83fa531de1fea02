#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/run.pb.h"

namespace polystill::coordinator {

// Number of trained numbers of a job's model.
using CountParameters = std::function<absl::StatusOr<int64_t>(const v1::Job& job)>;

// What a run would do and need, as people read it: records and passes of each language, steps of each job, processes,
// label bytes, disk. Reads the corpus, writes nothing. The errors of IndexJobs.
absl::StatusOr<std::string> DescribeDryRun(const v1::RunSpec& spec, const CountParameters& parameters);

}  // namespace polystill::coordinator
