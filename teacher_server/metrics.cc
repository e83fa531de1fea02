#include "teacher_server/metrics.h"

namespace polystill::teacher_server {
namespace {

prometheus::Gauge& AddGauge(Metrics* metrics, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(metrics->registry()).Add({});
}

prometheus::Counter& AddCounter(Metrics* metrics, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(metrics->registry()).Add({});
}

prometheus::Histogram& AddHistogram(Metrics* metrics, const char* name, const char* help,
                                    const prometheus::Histogram::BucketBoundaries& bounds) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(metrics->registry()).Add({}, bounds);
}

}  // namespace

TeacherMetrics::TeacherMetrics(Metrics* metrics)
    : queue_records_(AddGauge(metrics, "polystill_teacher_queue_records", "Records that wait for the model")),
      queue_tokens_(AddGauge(metrics, "polystill_teacher_queue_tokens", "Tokens of the records that wait, at most")),
      queue_seconds_(AddHistogram(metrics, "polystill_teacher_queue_seconds",
                                  "Time from a request's arrival to its batch", SecondsBuckets())),
      batch_records_(
          AddHistogram(metrics, "polystill_teacher_batch_records", "Records of a batch of the model", SizeBuckets())),
      batch_tokens_(AddHistogram(metrics, "polystill_teacher_batch_tokens", "Tokens of a batch of the model, at most",
                                 SizeBuckets())),
      compute_seconds_(AddHistogram(metrics, "polystill_teacher_compute_seconds",
                                    "Time of a batch: tokenising, forward, encoding", SecondsBuckets())),
      labels_(AddCounter(metrics, "polystill_teacher_labels_total", "Labels given: records times outputs")),
      label_bytes_(AddCounter(metrics, "polystill_teacher_label_bytes_total", "Payload of the labels given")),
      requests_(prometheus::BuildCounter()
                    .Name("polystill_teacher_requests_total")
                    .Help("Requests answered, by code")
                    .Register(metrics->registry())) {}

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
