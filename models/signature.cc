#include "models/signature.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/status.h"
#include "runtime/yaml_proto.h"

namespace polystill::models {
namespace {

v1::Task TaskOr(v1::Task task) { return task == v1::TASK_UNSPECIFIED ? v1::TASK_CLASSIFICATION : task; }

std::string TaskName(v1::Task task) { return EnumName(v1::Task_descriptor()->FindValueByNumber(task)); }

}  // namespace

ModelShape ShapeOf(const v1::Job& job, int64_t vocab_size) {
  ModelShape shape;
  shape.spec = job.model();
  shape.vocab_size = vocab_size;
  shape.task = TaskOr(job.task());
  shape.classes = LogitCount(shape.task, job.labels_size(), vocab_size);
  shape.dtype = job.dtype();
  shape.max_length = job.tokenizer().max_length();
  return shape;
}

absl::Status CheckSignatureTask(const v1::Signature& signature, v1::Task task) {
  if (TaskOr(signature.task()) == TaskOr(task)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("it is a model of task: ", TaskName(TaskOr(signature.task())),
                                                    ", but the run's is ", TaskName(TaskOr(task)),
                                                    "; give a model that was trained for it"));
}

namespace {

// Task and classes, of which one that gives features alone knows nothing.
absl::Status CheckLogits(const v1::Signature& signature, const v1::Job& job) {
  if (!GivesLogits(signature)) return absl::OkStatus();
  RETURN_IF_ERROR(CheckSignatureTask(signature, job.task()));
  if (TaskOr(job.task()) == v1::TASK_MASKED_LM && signature.input() == v1::Signature::INPUT_IDS &&
      signature.mask_id() != job.tokenizer().mask_id()) {
    return absl::FailedPreconditionError(absl::StrCat("its id for a hidden token is ", signature.mask_id(),
                                                      ", but tokenizer.mask_id is ", job.tokenizer().mask_id()));
  }
  if (!std::equal(signature.labels().begin(), signature.labels().end(), job.labels().begin(), job.labels().end())) {
    return absl::FailedPreconditionError(absl::StrCat("its classes are ", absl::StrJoin(signature.labels(), ", "),
                                                      ", but corpus.labels are ", absl::StrJoin(job.labels(), ", ")));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSignature(const v1::Signature& signature, const v1::Job& job) {
  RETURN_IF_ERROR(CheckLogits(signature, job));
  const bool job_has_ids = job.tokenizer().kind() == v1::Tokenizer::KIND_IDS;
  const bool wants_ids = signature.input() == v1::Signature::INPUT_IDS;
  if (wants_ids && !job_has_ids) {
    return absl::FailedPreconditionError(absl::StrCat(
        "it reads token ids, but the corpus has text (tokenizer.kind); make an ids column with polystill-tokenize and "
        "write tokenizer: {kind: ids, vocab_size: ",
        signature.vocab_size(), ", max_length: ", signature.max_length(), "}"));
  }
  if (job_has_ids && !wants_ids) {
    return absl::FailedPreconditionError("it reads text, but the corpus has token ids (tokenizer.kind)");
  }
  const bool fits =
      signature.vocab_size() >= job.tokenizer().vocab_size() && signature.max_length() >= job.tokenizer().max_length();
  if (wants_ids && !fits) {
    return absl::FailedPreconditionError(absl::StrCat(
        "it takes ", signature.max_length(), " ids below ", signature.vocab_size(), ", but the corpus holds ",
        job.tokenizer().max_length(), " below ", job.tokenizer().vocab_size(), " (tokenizer.max_length, vocab_size)"));
  }
  return absl::OkStatus();
}

}  // namespace polystill::models
