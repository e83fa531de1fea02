#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace polystill::evaluation {

struct ReportedModel {
  std::string name;
  // Folder of its package; empty for a teacher that runs elsewhere.
  std::string package;
  // Lower-case hex SHA-256.
  std::string digest;
  // Unset where the package is out of reach.
  std::optional<int64_t> parameters;
  // text or source_text.
  std::string reads;
};

// What the report says beside the table.
struct RunFacts {
  std::string run;
  // "accuracy", "macro_f1": what the table shows; both when empty.
  std::vector<std::string> metrics;
  // Soft labels of the distillation: how many, their payload in bytes, how they were encoded.
  int64_t label_count = 0;
  int64_t label_bytes = 0;
  std::string codec;
  std::optional<ReportedModel> teacher;
  ReportedModel student;
  int workers = 0;
  struct File {
    std::string path;
    std::string sha256;
    int64_t bytes = 0;
  };
  std::vector<File> files;
  // Training -> steps that it took, and those that were planned: fewer with early stopping.
  struct Steps {
    std::string job;
    int64_t taken = 0;
    int64_t planned = 0;
  };
  std::vector<Steps> steps;
  // Stage -> seconds, in the order of the stages.
  std::vector<std::pair<std::string, double>> seconds;
};

// Computes the table from the file of predictions and writes report.json, atomically:
//
//   run          name of the run
//   languages    LANGUAGE -> {records, MODEL: {accuracy, macro_f1}, ...}
//   mean         {records: sum, MODEL: {accuracy, macro_f1}}: unweighted over the languages
//   labels       {classes, count, bytes, codec}
//   teacher      {name, package, digest, parameters, reads}; null without one
//   student      {name, package, digest, parameters, reads, workers}
//   corpus       {files: [{path, sha256, bytes}]}
//   steps        {JOB: {taken, planned}}: early stopping takes fewer than planned
//   seconds      {STAGE: seconds}
//   predictions  path of the file of predictions
//
// INVALID_ARGUMENT when there is no record; otherwise the errors of PredictionsReader and WriteFileAtomically.
absl::Status WriteReport(const RunFacts& facts, const std::string& predictions, const std::string& report);

}  // namespace polystill::evaluation
