#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"
#include "soft_labels/outputs.h"
#include "teacher_server/backend.h"
#include "teacher_server/batcher.h"
#include "teacher_server/token_memo.h"

namespace polystill::teacher_server {

// Requests to soft labels: tokenises, runs one forward over all records of the requests that want the same outputs,
// encodes each request's rows by its codec (row_encoder.h).
// Knows neither queues nor RPC. Thread-safe.
class Labeller {
 public:
  // `description`: the teacher's. `memo_bytes`: memory for remembered token ids.
  Labeller(Teacher teacher, v1::DescribeReply description, int64_t memo_bytes);

  // One answer a request, in order. Requests are valid (validation.h). INTERNAL when the model fails or a number is not
  // finite, OUT_OF_RANGE when one does not fit the codec: the message names the record. A request with such a record
  // does not hurt the others.
  Batcher::Answers Label(const std::vector<const v1::LabelRequest*>& requests);

  // By any thread.
  const HeadFile& head() const { return teacher_.head; }

 private:
  using Requests = std::vector<const v1::LabelRequest*>;

  // The same of requests that want the same outputs, all or none of them what the head reads in place of logits.
  Batcher::Answers LabelAlike(const soft_labels::Outputs& outputs, bool head_input, const Requests& requests);
  // Records of the requests, one after the other.
  Question QuestionOf(const soft_labels::Outputs& outputs, bool head_input, const Requests& requests);

  const Teacher teacher_;
  const v1::DescribeReply description_;  // what outputs follow from
  TokenMemo memo_;
};

}  // namespace polystill::teacher_server
