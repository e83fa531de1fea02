#include "teacher_server/label_cache.h"

#include <spdlog/spdlog.h>

namespace polystill::teacher_server {
namespace {

LabelCache::Outcome OutcomeOf(const absl::StatusOr<LabelCache::Label>& answer) {
  if (answer.ok()) return *answer;
  return answer.status();
}

}  // namespace

LabelCache::Lease::~Lease() {
  if (cache_ != nullptr) cache_->HandOver(key_, takeovers_);
}

void LabelCache::Lease::Answer(absl::StatusOr<Label> label) && {
  LabelCache* const cache = std::exchange(cache_, nullptr);
  const absl::Status& status = label.status();
  if (absl::IsCancelled(status) || absl::IsDeadlineExceeded(status)) return cache->HandOver(key_, takeovers_);
  if (absl::IsResourceExhausted(status) && takeovers_ < kMaxTakeovers) return cache->HandOver(key_, takeovers_ + 1);
  if (label.ok()) {
    // Those who wait need not wait for the disk; who comes while it is written, waits for that.
    for (Waiting& waiting : cache->TakeWaiting(key_)) waiting.waiter(*label);
    cache->Store(key_, **label);
  }
  cache->Finish(key_, label);
}

LabelCache::LabelCache(std::unique_ptr<LabelSegments> segments, TeacherMetrics* metrics)
    : segments_(std::move(segments)), metrics_(metrics) {
  Count();
}

void LabelCache::Ask(const std::string& key, std::shared_ptr<const std::atomic<bool>> cancelled, Waiter waiter) {
  {
    MutexLock lock(&mutex_);
    const auto [found, first] = in_progress_.try_emplace(key);
    if (!first) {
      if (metrics_ != nullptr) metrics_->CacheLookedUp(CacheLookup::kShared);
      return found->second.push_back({std::move(cancelled), std::move(waiter)});
    }
  }
  // From here on the key is this thread's: nobody stores a label between the look at the disk and the lease.
  const Label label = Read(key);
  if (label == nullptr) return waiter(Lease(this, key));
  waiter(label);
  Finish(key, label);
}

LabelCache::Label LabelCache::Read(const std::string& key) {
  absl::StatusOr<std::string> label = segments_->Get(key);
  const bool refused = absl::IsDataLoss(label.status());
  if (refused) spdlog::warn("{}; it is computed again", std::string(label.status().message()));
  if (metrics_ != nullptr) {
    metrics_->CacheLookedUp(label.ok() ? CacheLookup::kHit : refused ? CacheLookup::kRefused : CacheLookup::kMiss);
  }
  ++(label.ok() ? found_ : missed_);
  if (label.ok()) Count();  // it may have been copied
  return label.ok() ? std::make_shared<const std::string>(*std::move(label)) : nullptr;
}

void LabelCache::Store(const std::string& key, const std::string& label) {
  segments_->Put(key, label);
  Count();
}

void LabelCache::Count() {
  if (metrics_ != nullptr) metrics_->CacheHolds(segments_->bytes(), segments_->TakeDroppedBytes());
}

LabelCache::Queue LabelCache::TakeWaiting(const std::string& key) {
  MutexLock lock(&mutex_);
  return std::exchange(in_progress_.at(key), {});
}

bool LabelCache::NextOrFree(const std::string& key, Waiting* next) {
  MutexLock lock(&mutex_);
  const auto found = in_progress_.find(key);
  if (found->second.empty()) {
    in_progress_.erase(found);
    return false;
  }
  *next = std::move(found->second.front());
  found->second.pop_front();
  return true;
}

void LabelCache::Finish(const std::string& key, const absl::StatusOr<Label>& answer) {
  Waiting next;
  while (NextOrFree(key, &next)) next.waiter(OutcomeOf(answer));
}

void LabelCache::HandOver(const std::string& key, int takeovers) {
  Waiting next;
  while (NextOrFree(key, &next)) {
    if (next.cancelled == nullptr || !*next.cancelled) return next.waiter(Lease(this, key, takeovers));
    next.waiter(absl::CancelledError("cancelled before it was answered"));
  }
}

}  // namespace polystill::teacher_server
