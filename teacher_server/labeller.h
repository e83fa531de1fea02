#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"
#include "teacher_server/backend.h"
#include "teacher_server/token_memo.h"

namespace polystill::teacher_server {

// Requests to soft labels: tokenises, runs one forward over all records, encodes each request's rows by its codec.
// Knows neither queues nor RPC. Used by one thread at a time.
class Labeller {
 public:
  // `memo_bytes`: memory for remembered token ids.
  Labeller(Teacher teacher, int64_t memo_bytes);

  // One answer a request, in order. Requests are valid (validation.h). INTERNAL when the model fails or a logit is not
  // finite, OUT_OF_RANGE when one does not fit the codec: the message names the record. A request with such a record
  // does not hurt the others.
  std::vector<absl::StatusOr<v1::SoftLabels>> Label(const std::vector<const v1::LabelRequest*>& requests);

 private:
  const Teacher teacher_;
  TokenMemo memo_;
};

}  // namespace polystill::teacher_server
