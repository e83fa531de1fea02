#pragma once

#include "absl/status/status.h"
#include "models/model.h"
#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/teacher.pb.h"

namespace polystill::models {

// The shape of a job's model over so many token ids.
ModelShape ShapeOf(const v1::Job& job, int64_t vocab_size);

// FAILED_PRECONDITION unless a model of this signature does the task; unset is classification.
absl::Status CheckSignatureTask(const v1::Signature& signature, v1::Task task);

// Whether a model of this signature can answer for the records of a job: the same task and classes in the same order
// unless it gives features alone, text or token ids as the corpus has them, and ids within its vocabulary and length.
// FAILED_PRECONDITION names the key.
absl::Status CheckSignature(const v1::Signature& signature, const v1::Job& job);

}  // namespace polystill::models
