#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "evaluation/latency.h"

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

// What a model takes to use.
struct ModelCost {
  // "teacher" or "student".
  std::string role;
  // Unset where the package does not tell.
  std::optional<int64_t> parameters;
  // Of all files of its package.
  int64_t bytes = 0;
  // Empty where it was not measured.
  Latencies latency;
};

// What the report says beside the table.
struct RunFacts {
  std::string run;
  // Names of the metrics that the table shows; report.json has all.
  std::vector<std::string> metrics;
  // `top_k` counts a record as right when its class is among so many.
  int top_k = 1;
  // Of the intervals; none with 0 resamples.
  int resamples = 0;
  uint64_t seed = 0;
  // Soft labels of the distillation: how many, their payload in bytes, how they were encoded.
  int64_t label_count = 0;
  int64_t label_bytes = 0;
  std::string codec;
  std::optional<ReportedModel> teacher;
  ReportedModel student;
  int workers = 0;
  // Teacher and student, as far as their packages are at hand.
  std::vector<ModelCost> costs;
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
  // Workers that were left out of a training for being slow.
  struct Eviction {
    std::string job;
    std::string worker;
    std::string host;
    int64_t pid = 0;
    // Its time for its own work by that of the others, after so many steps.
    double ratio = 0;
    int64_t step = 0;
  };
  std::vector<Eviction> evictions;
  // Stage -> seconds, in the order of the stages.
  std::vector<std::pair<std::string, double>> seconds;
};

// Computes the table from the file of predictions and writes report.json, atomically:
//
//   run          name of the run
//   task         as in the run file
//   metrics      names of the metrics that the table shows
//   top_k        k of the metric top_k
//   bootstrap    {resamples, groups, seed} of the intervals; null without
//   languages    LANGUAGE -> {records, MODEL: SCORES, ...}
//   mean         {records: sum, MODEL: SCORES}: unweighted over the languages, a class's over those that have it
//   differences  MODEL -> METRIC -> {difference, interval}: mean of the distilled student minus that of MODEL
//   labels       {classes, count, bytes, codec}
//   teacher      {name, package, digest, parameters, reads}; null without one
//   student      {name, package, digest, parameters, reads, workers}
//   models       {teacher, student: {parameters, bytes of the package, latency: {BATCH: {forward_ms, text_ms}}},
//                speedup: {BATCH: {forward, text}}: the teacher's times by the student's}; as far as they are known
//   corpus       {files: [{path, sha256, bytes}]}
//   steps        {JOB: {taken, planned}}: early stopping takes fewer than planned
//   evictions    [{job, worker, host, pid, ratio, step}]: workers left out for being slow (student.evict_slower_than)
//   seconds      {STAGE: seconds}
//   predictions  path of the file of predictions
//
// SCORES: {METRIC: value for each of kMetrics that the task has, intervals: {METRIC: [low, high]}
// (evaluation/bootstrap.h; left out without), classes: {LABEL: {precision, recall, f1, support}} for each class in gold
// or prediction, with task multi_label for each label}. `records` counts the rows of the file: words with task
// token_classification.
//
// INVALID_ARGUMENT when there is no record; CANCELLED, with nothing written, soon after `stop`; otherwise the errors of
// PredictionsReader and WriteFileAtomically.
absl::Status WriteReport(const RunFacts& facts, const std::string& predictions, const std::string& report,
                         const std::stop_token& stop = {});

}  // namespace polystill::evaluation
