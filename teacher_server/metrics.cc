#include "teacher_server/metrics.h"

namespace polystill::teacher_server {
TeacherMetrics::TeacherMetrics(Metrics* metrics)
    : queue_records_(metrics->AddGauges("polystill_teacher_queue_records", "Records that wait for the model")),
      queue_tokens_(metrics->AddGauges("polystill_teacher_queue_tokens", "Tokens of the records that wait, at most")),
      labels_(metrics->AddCounters("polystill_teacher_labels_total", "Labels given: records times outputs")),
      tenant_labels_(metrics->AddCounters("polystill_teacher_tenant_labels_total", "Labels given, by tenant")),
      training_{queue_records_.Add({{"priority", "training"}}), queue_tokens_.Add({{"priority", "training"}}),
                labels_.Add({{"priority", "training"}})},
      on_demand_{queue_records_.Add({{"priority", "on_demand"}}), queue_tokens_.Add({{"priority", "on_demand"}}),
                 labels_.Add({{"priority", "on_demand"}})},
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
      label_bytes_(metrics->AddCounters("polystill_teacher_label_bytes_total", "Payload of the labels given").Add({})),
      requests_(metrics->AddCounters("polystill_teacher_requests_total", "Requests answered, by code")),
      cache_lookups_(metrics->AddCounters("polystill_teacher_cache_lookups_total", "Labels looked up in the cache")),
      cache_hits_(cache_lookups_.Add({{"result", "hit"}})),
      cache_shared_(cache_lookups_.Add({{"result", "shared"}})),
      cache_misses_(cache_lookups_.Add({{"result", "miss"}})),
      cache_refused_(cache_lookups_.Add({{"result", "refused"}})),
      cache_bytes_(metrics->AddGauges("polystill_teacher_cache_bytes", "Labels in the cache, on the disk").Add({})),
      cache_dropped_bytes_(
          metrics->AddCounters("polystill_teacher_cache_dropped_bytes_total", "Labels that had to make room").Add({})),
      backend_restarts_(
          metrics->AddCounters("polystill_backend_restarts_total", "Python processes started again").Add({})) {}

void TeacherMetrics::Waiting(v1::Priority priority, const Load& load) {
  Of(priority).queue_records.Set(static_cast<double>(load.records));
  Of(priority).queue_tokens.Set(static_cast<double>(load.tokens));
}

void TeacherMetrics::Queued(double seconds) { queue_seconds_.Observe(seconds); }

void TeacherMetrics::Computed(int64_t records, int64_t tokens, double seconds) {
  batch_records_.Observe(static_cast<double>(records));
  batch_tokens_.Observe(static_cast<double>(tokens));
  compute_seconds_.Observe(seconds);
}

void TeacherMetrics::Answered(const absl::Status& status) {
  requests_.Add({{"code", absl::StatusCodeToString(status.code())}}).Increment();
}

void TeacherMetrics::Labelled(v1::Priority priority, const std::string& tenant, int64_t labels, int64_t bytes) {
  Of(priority).labels.Increment(static_cast<double>(labels));
  label_bytes_.Increment(static_cast<double>(bytes));
  std::string name = tenant.empty() ? "none" : tenant;  // to Prometheus an empty label is no label
  {
    MutexLock lock(&mutex_);
    if (!tenants_.contains(name) && tenants_.size() == kMaxTenants) name = "other";
    if (name != "other") tenants_.insert(name);
  }
  tenant_labels_.Add({{"tenant", name}}).Increment(static_cast<double>(labels));
}

void TeacherMetrics::CacheLookedUp(CacheLookup lookup) {
  switch (lookup) {
    case CacheLookup::kHit:
      return cache_hits_.Increment();
    case CacheLookup::kShared:
      return cache_shared_.Increment();
    case CacheLookup::kMiss:
      return cache_misses_.Increment();
    case CacheLookup::kRefused:
      return cache_refused_.Increment();
  }
}

void TeacherMetrics::CacheHolds(int64_t bytes, int64_t dropped) {
  cache_bytes_.Set(static_cast<double>(bytes));
  cache_dropped_bytes_.Increment(static_cast<double>(dropped));
}

}  // namespace polystill::teacher_server
