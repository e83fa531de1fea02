#include "teacher_server/metrics.h"

namespace polystill::teacher_server {
TeacherMetrics::TeacherMetrics(Metrics* metrics)
    : queue_records_(metrics->AddGauges("polystill_teacher_queue_records", "Records that wait for the model").Add({})),
      queue_tokens_(
          metrics->AddGauges("polystill_teacher_queue_tokens", "Tokens of the records that wait, at most").Add({})),
      queue_seconds_(
          metrics->AddHistograms("polystill_teacher_queue_seconds", "Time from a request's arrival to its batch")
              .Add({}, SecondsBuckets())),
      batch_records_(metrics->AddHistograms("polystill_teacher_batch_records", "Records of a batch of the model")
                         .Add({}, SizeBuckets())),
      batch_tokens_(metrics->AddHistograms("polystill_teacher_batch_tokens", "Tokens of a batch of the model, at most")
                        .Add({}, SizeBuckets())),
      compute_seconds_(
          metrics->AddHistograms("polystill_teacher_compute_seconds", "Time of a batch: tokenising, forward, encoding")
              .Add({}, SecondsBuckets())),
      labels_(metrics->AddCounters("polystill_teacher_labels_total", "Labels given: records times outputs").Add({})),
      label_bytes_(metrics->AddCounters("polystill_teacher_label_bytes_total", "Payload of the labels given").Add({})),
      requests_(metrics->AddCounters("polystill_teacher_requests_total", "Requests answered, by code")) {}

void TeacherMetrics::Waiting(int64_t records, int64_t tokens) {
  queue_records_.Set(static_cast<double>(records));
  queue_tokens_.Set(static_cast<double>(tokens));
}

void TeacherMetrics::Queued(double seconds) { queue_seconds_.Observe(seconds); }

void TeacherMetrics::Computed(int64_t records, int64_t tokens, double seconds) {
  batch_records_.Observe(static_cast<double>(records));
  batch_tokens_.Observe(static_cast<double>(tokens));
  compute_seconds_.Observe(seconds);
}

void TeacherMetrics::Answered(const absl::Status& status, int64_t labels, int64_t bytes) {
  requests_.Add({{"code", absl::StatusCodeToString(status.code())}}).Increment();
  labels_.Increment(static_cast<double>(labels));
  label_bytes_.Increment(static_cast<double>(bytes));
}

}  // namespace polystill::teacher_server
