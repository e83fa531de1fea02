#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/mutex.h"
#include "teacher_server/label_segments.h"
#include "teacher_server/metrics.h"

namespace polystill::teacher_server {

// Labels by key (soft_labels/label_key.h), so that each is computed once, however many ask for it and when:
//
//   1. Somebody is at work on the key: wait for that, and get its label, or its error.
//   2. Otherwise look on the disk.
//   3. Not there: get a lease, the right and the duty to compute the label. Its answer goes to all who wait, and to the
//      disk. A lease that is given up (its caller has cancelled) goes on to the next who waits; so does one whose work
//      was refused (the queue was full, or the caller's part of it), which others may have room for: at most
//      kMaxTakeovers times, then the refusal is everybody's.
//
// The first label stored under a key is the label. Thread-safe; outlives its leases.
class LabelCache {
 public:
  // How often a lease goes on because its work was refused.
  static constexpr int kMaxTakeovers = 4;

  // As a codec has encoded it.
  using Label = std::shared_ptr<const std::string>;

  // Exactly one at a time for each key. Movable; not thread-safe.
  class Lease {
   public:
    Lease(Lease&& other) noexcept
        : cache_(std::exchange(other.cache_, nullptr)), key_(std::move(other.key_)), takeovers_(other.takeovers_) {}
    Lease& operator=(Lease&&) = delete;
    // Not answered: given up.
    ~Lease();

    // Ends the lease: calls everybody who waits, then stores the label. CANCELLED, DEADLINE_EXCEEDED and
    // RESOURCE_EXHAUSTED are about the one who held it: the lease is given up.
    void Answer(absl::StatusOr<Label> label) &&;

   private:
    friend class LabelCache;
    Lease(LabelCache* cache, std::string key, int takeovers = 0)
        : cache_(cache), key_(std::move(key)), takeovers_(takeovers) {}

    LabelCache* cache_;
    std::string key_;
    int takeovers_;  // so far
  };

  // The label, the error of the one who should have computed it (CANCELLED to those who have cancelled), or the lease.
  using Outcome = std::variant<Label, absl::Status, Lease>;
  // Must not block; may ask again.
  using Waiter = std::function<void(Outcome)>;

  // `metrics` may be null.
  LabelCache(std::unique_ptr<LabelSegments> segments, TeacherMetrics* metrics);

  // Calls `waiter` exactly once: within this call, or later from the thread that answers or gives up the lease. Reads
  // the disk. `cancelled`: set when nobody needs the label any more; such a waiter gets no lease.
  void Ask(const std::string& key, std::shared_ptr<const std::atomic<bool>> cancelled, Waiter waiter);

  // How many labels were on the disk, and how many were not, so far.
  int64_t found() const { return found_; }
  int64_t missed() const { return missed_; }

 private:
  struct Waiting {
    std::shared_ptr<const std::atomic<bool>> cancelled;
    Waiter waiter;
  };
  using Queue = std::deque<Waiting>;

  // What lies on the disk; null when there is nothing of use.
  Label Read(const std::string& key);
  void Store(const std::string& key, const std::string& label);
  void Finish(const std::string& key, const absl::StatusOr<Label>& answer);
  void HandOver(const std::string& key, int takeovers);
  // All who wait for a key.
  Queue TakeWaiting(const std::string& key);
  // The next one who waits. False, and the key is free, when nobody does.
  bool NextOrFree(const std::string& key, Waiting* next);
  void Count();

  const std::unique_ptr<LabelSegments> segments_;
  TeacherMetrics* const metrics_;
  std::atomic<int64_t> found_ = 0;
  std::atomic<int64_t> missed_ = 0;

  Mutex mutex_;
  // Keys that somebody is at work on, with those who wait.
  std::unordered_map<std::string, Queue> in_progress_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace polystill::teacher_server
