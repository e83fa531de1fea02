#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"
#include "teacher_server/label_cache.h"
#include "teacher_server/label_task.h"

namespace polystill::teacher_server {

// A label for each output of each record: [records][outputs].
using LabelParts = std::vector<std::vector<LabelCache::Label>>;

// How requests are named, and answers taken apart and put together again; pure functions, called by several threads.
struct AnswerParts {
  // The keys of a request's labels: [records][outputs].
  std::function<std::vector<std::vector<std::string>>(const v1::LabelRequest&)> keys;
  // An answer to the request, as the labels of each record alone; an error is the caller's.
  std::function<absl::StatusOr<LabelParts>(const v1::LabelRequest&, const Answer&)> cut;
  // And back.
  std::function<absl::StatusOr<Answer>(const v1::LabelRequest&, const LabelParts&)> join;
};

// A label cache before whoever computes answers:
//
//   1. Ask the cache for each label of a request.
//   2. The records of which a label is neither there nor being computed for another go on, as one request.
//   3. Its answer is cut, completes the request together with what was there, and then goes into the cache.
//   4. A lease that comes later, because another has given it up, is a request of its own.
//
// Nobody waits for another's label while holding back work of his own. Thread-safe.
class CachedAnswers {
 public:
  using Done = std::function<void(absl::StatusOr<Answer>)>;
  // As Engine::Ask: `done` is called once, from any thread, unless the status is not OK.
  using Compute = std::function<absl::Status(v1::LabelRequest, Requester, Done)>;

  // `cache` outlives this and whatever is under way.
  CachedAnswers(LabelCache* cache, AnswerParts parts, Compute compute)
      : cache_(cache), parts_(std::move(parts)), compute_(std::move(compute)) {}

  // Calls `done` exactly once, within this call or later, with the answer or the first error. Reads the disk. This
  // outlives all that is under way.
  void Ask(v1::LabelRequest request, Requester requester, Done done);

 private:
  struct Call;
  struct Leased;

  void Take(const std::shared_ptr<Call>& call, int record, int output, LabelCache::Outcome outcome);
  void ComputeLeased(const std::shared_ptr<Call>& call, std::vector<Leased> leased);
  void Finish(const std::shared_ptr<Call>& call, const v1::LabelRequest& request, std::vector<Leased> leased,
              const absl::StatusOr<Answer>& answer);
  void Place(const std::shared_ptr<Call>& call, int record, int output, LabelCache::Label label);

  LabelCache* const cache_;
  const AnswerParts parts_;
  const Compute compute_;
};

}  // namespace polystill::teacher_server
