#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"
#include "teacher_server/backend.h"
#include "teacher_server/batcher.h"
#include "teacher_server/cache_thread.h"
#include "teacher_server/cached_answers.h"
#include "teacher_server/label_cache.h"
#include "teacher_server/labeller.h"

namespace polystill::teacher_server {

struct EngineOptions {
  // Records that one request may hold. Lowered where the answer would not fit a message.
  int32_t max_records_per_request = 256;
  // Records in flight of one stream. Lowered where the answers of one stream could fill more than 64 MiB.
  int32_t stream_credits = 2'048;
  // Batches that are labelled at once, each by a thread of its own.
  int threads = 1;
  BatchLimits batch = {};
  QueueLimits queue = {};
  // Memory for token ids of the texts asked for last.
  int64_t memo_bytes = 256 << 20;
  // The hint sent with RESOURCE_EXHAUSTED and UNAVAILABLE.
  int64_t retry_after_ms = 50;
};

// `options` with its limits of records lowered to what answers of dense logits allow. (Requests whose answers are
// larger, by features, tokens or rows that do not fit a message, are checked one by one.)
EngineOptions FitToTeacher(EngineOptions options, const v1::Signature& signature);

// A loaded teacher that answers: checks requests, batches and labels them. Knows no RPC. Thread-safe.
class Engine {
 public:
  using Done = std::function<void(absl::StatusOr<Answer>)>;

  // `options` went through FitToTeacher. `metrics` may be null; with a `cache`, which outlives the engine, each label
  // is computed once.
  Engine(Teacher teacher, EngineOptions options, Batcher::Now now = std::chrono::steady_clock::now,
         TeacherMetrics* metrics = nullptr, LabelCache* cache = nullptr);

  const v1::DescribeReply& description() const { return description_; }
  // What GetHead gives, described by description().head(); empty when there is none.
  const std::string& head_bytes() const { return labeller_.head().bytes; }

  // Checks and queues a request; never blocks. `done` is called exactly once, by a thread of the engine's, unless the
  // result is not OK: RESOURCE_EXHAUSTED when the queue is full, and those of CheckRequest and CheckAnswerSize. The
  // answer's deadline is `deadline` or timeout_ms from now, whichever comes first; work that is late or `cancelled`
  // before its turn is dropped.
  absl::Status Ask(v1::LabelRequest request, Time deadline, std::shared_ptr<const std::atomic<bool>> cancelled,
                   Done done);

  // The message that carries an answer, or what went wrong.
  v1::LabelReply Reply(uint64_t request_id, absl::StatusOr<Answer> answer) const;

 private:
  absl::Status Check(v1::LabelRequest request, Time deadline, std::shared_ptr<const std::atomic<bool>> cancelled,
                     Done done);
  absl::Status Queue(v1::LabelRequest request, Time deadline, std::shared_ptr<const std::atomic<bool>> cancelled,
                     Done done);

  const EngineOptions options_;
  const Batcher::Now now_;
  TeacherMetrics* const metrics_;
  const v1::DescribeReply description_;
  Labeller labeller_;
  std::optional<CachedAnswers> cached_;
  Batcher batcher_;  // after all that its threads use
  std::optional<CacheThread> cache_thread_;
};

}  // namespace polystill::teacher_server
