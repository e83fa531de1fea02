#include "student_worker/metrics.h"

namespace polystill::student_worker {
WorkerMetrics::WorkerMetrics(Metrics* metrics)
    : data_wait_seconds_(metrics
                             ->AddCounters("polystill_student_data_wait_seconds_total",
                                           "Time that the step loop has waited for records and labels")
                             .Add({})),
      labels_(metrics->AddCounters("polystill_student_labels_total", "Labels that applied steps have used").Add({})),
      label_bytes_(metrics->AddCounters("polystill_student_label_bytes_total", "Payload of these labels").Add({})),
      examples_(metrics->AddCounters("polystill_examples_committed_total",
                                     "Records of this worker's slices of applied steps, by language")),
      steps_(metrics->AddCounters("polystill_student_steps_total", "Steps applied, by job")),
      loss_(metrics->AddGauges("polystill_student_loss", "Mean loss of this worker's slice of the last step, by job")) {
}

void WorkerMetrics::Stepped(const std::string& job, const Batch& batch, double loss, double wait_seconds) {
  data_wait_seconds_.Increment(wait_seconds);
  labels_.Increment(static_cast<double>(batch.label_count));
  label_bytes_.Increment(static_cast<double>(batch.label_bytes));
  for (const auto& [language, records] : batch.languages) {
    examples_.Add({{"lang", language}}).Increment(static_cast<double>(records));
  }
  steps_.Add({{"job", job}}).Increment();
  loss_.Add({{"job", job}}).Set(loss);
}

}  // namespace polystill::student_worker
