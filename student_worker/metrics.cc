#include "student_worker/metrics.h"

namespace polystill::student_worker {
WorkerMetrics::WorkerMetrics(Metrics* metrics)
    : data_wait_seconds_(metrics
                             ->AddCounters("polystill_student_data_wait_seconds_total",
                                           "Time that the step loop has waited for records and labels")
                             .Add({})),
      labels_(metrics->AddCounters("polystill_student_labels_total", "Labels that applied steps have used").Add({})),
      label_bytes_(metrics->AddCounters("polystill_student_label_bytes_total", "Payload of these labels").Add({})),
      requests_(metrics->AddCounters("polystill_student_label_requests_total", "Requests for labels, hedges included")
                    .Add({})),
      hedges_(metrics
                  ->AddCounters("polystill_student_hedged_requests_total",
                                "Requests sent to a second replica before the first had answered")
                  .Add({})),
      hedge_wins_(metrics->AddCounters("polystill_student_hedges_won_total", "Of these, answered first").Add({})),
      retries_(metrics
                   ->AddCounters("polystill_student_retried_requests_total",
                                 "Requests sent again after a broken stream, a refusal or a time-out")
                   .Add({})),
      refused_replicas_(metrics
                            ->AddCounters("polystill_student_refused_replicas_total",
                                          "Teacher replicas that are not used, e.g. as their answers differ")
                            .Add({})),
      prefetch_(metrics->AddGauges("polystill_student_prefetch_steps", "Steps that are got ready ahead").Add({})),
      examples_(metrics->AddCounters("polystill_examples_committed_total",
                                     "Records of this worker's slices of applied steps, by language")),
      steps_(metrics->AddCounters("polystill_student_steps_total", "Steps applied, by job")),
      loss_(metrics->AddGauges("polystill_student_loss", "Mean loss of this worker's slice of the last step, by job")),
      own_seconds_(
          metrics->AddGauges("polystill_student_own_seconds",
                             "What a step lately takes this worker itself, without waiting for others, by job")) {}

void WorkerMetrics::TookOwnSeconds(const std::string& job, double seconds) {
  own_seconds_.Add({{"job", job}}).Set(seconds);
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

void WorkerMetrics::Asked(const soft_labels::LabelClient::Counts& counts, int prefetch) {
  requests_.Increment(static_cast<double>(counts.requests));
  hedges_.Increment(static_cast<double>(counts.hedges));
  hedge_wins_.Increment(static_cast<double>(counts.hedge_wins));
  retries_.Increment(static_cast<double>(counts.retries));
  refused_replicas_.Increment(static_cast<double>(counts.refused_replicas));
  prefetch_.Set(prefetch);
}

}  // namespace polystill::student_worker
