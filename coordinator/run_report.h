#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/run_events.h"
#include "evaluation/report.h"
#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/run.pb.h"

namespace polystill::coordinator {

// What the coordinator knows of a finished run, for its report.
struct FinishedRun {
  v1::RunSpec spec;
  v1::RunStatus status;
  std::vector<PlannedJob> jobs;
  // Digests of the packages of teachers, by name, and of the student.
  std::map<std::string, std::string> teacher_digests;
  std::string student_digest;
  std::vector<std::shared_ptr<const v1::CorpusIndex>> indexes;
};

// The facts of the report. Fails as ReadParameters does.
absl::StatusOr<evaluation::RunFacts> FactsOf(const FinishedRun& run);

// Number of parameters of the model in a package: `model.parameters` of its teacher.yaml; unset when that says none.
// NOT_FOUND or DATA_LOSS, naming the file and the key.
absl::StatusOr<std::optional<int64_t>> ReadParameters(const std::string& package);

// Writes <output>/report.json from <output>/predictions.parquet and gives its path. CANCELLED soon after `stop`.
absl::StatusOr<std::string> WriteRunReport(const FinishedRun& run, const std::stop_token& stop = {});

}  // namespace polystill::coordinator
