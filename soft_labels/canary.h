#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"
#include "soft_labels/array.h"
#include "soft_labels/reply_reader.h"
#include "soft_labels/router.h"

namespace polystill::soft_labels {

// What every replica of a teacher is asked before it is given work: a few records of token ids that follow from the
// teacher's vocabulary alone, for the logits and every feature that fit a message, as dense_fp32 (logits too wide for
// one: log-probabilities of some ids, by codec scores). Computed afresh: what a replica has cached was right once.
// Without request id and priority.
v1::LabelRequest CanaryRequest(const v1::DescribeReply& teacher);

// What a replica gave: an array for each output, or the error that it answered with.
using CanaryAnswer = absl::StatusOr<std::vector<Array>>;

CanaryAnswer ReadCanary(const StreamReply& message, const v1::DescribeReply& teacher, const v1::LabelRequest& canary);

// The largest absolute difference of two numbers at the same place; infinity where shapes differ, or one is an error
// and not the other; 0 between two errors of the same code.
double LargestDifference(const CanaryAnswer& a, const CanaryAnswer& b);

// Decides which replicas of a teacher agree. Once every replica has answered the canary or failed, or `patience_ms`
// after the first answer, the reference is chosen, for good: the answer with which the most agree, each with itself
// included, and of several such the first in the order of the replicas; an error only where all answered with one. Who
// differs more than `tolerance` from it is refused, then or whenever it answers: replicas that reconnect are asked
// again. So of two that differ the first in the list is right, and everyone who asks the same list refuses the same.
// Knows no clock. Not thread-safe.
class ParityJury {
 public:
  struct Verdict {
    int replica;
    // From the reference's answer.
    double difference;
    bool agrees;
    // Whose answer the reference is.
    int reference;
  };

  ParityJury(size_t replicas, double tolerance, int64_t patience_ms)
      : tolerance_(tolerance), patience_ms_(patience_ms), replicas_(replicas) {}

  // Another replica, with the next number.
  void Joined() { replicas_.emplace_back(); }

  void Answered(int replica, CanaryAnswer answer, int64_t now_ms);
  // The replica is gone, refused or full; what it answered before counts no more until it answers again.
  void Failed(int replica);
  // The verdicts that can be given now, each once for each answer.
  std::vector<Verdict> Step(int64_t now_ms);
  // When Step has something to do again if nothing else happens.
  int64_t next_ms() const;

 private:
  struct Replica {
    bool heard = false;  // has answered or failed
    std::optional<CanaryAnswer> answer;
    bool judged = false;
  };

  int Choose() const;

  const double tolerance_;
  const int64_t patience_ms_;
  std::vector<Replica> replicas_;
  std::optional<int64_t> first_answer_ms_;
  int reference_ = -1;
  std::optional<CanaryAnswer> truth_;
};

}  // namespace polystill::soft_labels
