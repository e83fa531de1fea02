#include "models/signature.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace polystill::models {
namespace {

using testing::HasSubstr;

TEST(CheckSignature, NamesWhatDoesNotFit) {
  v1::Signature signature;
  signature.set_input(v1::Signature::INPUT_IDS);
  signature.set_vocab_size(100);
  signature.set_max_length(16);
  signature.add_labels("net");
  signature.add_labels("devel");
  v1::Job job;
  job.add_labels("net");
  job.add_labels("devel");
  job.mutable_tokenizer()->set_kind(v1::Tokenizer::KIND_IDS);
  job.mutable_tokenizer()->set_vocab_size(100);
  job.mutable_tokenizer()->set_max_length(16);
  EXPECT_TRUE(CheckSignature(signature, job).ok());
  job.set_task(v1::TASK_CLASSIFICATION);
  EXPECT_TRUE(CheckSignature(signature, job).ok());

  // One that gives features alone answers for any task and classes.
  v1::Signature features = signature;
  features.clear_labels();
  job.set_task(v1::TASK_MULTI_LABEL);
  EXPECT_TRUE(CheckSignature(features, job).ok());
  job.set_task(v1::TASK_CLASSIFICATION);
  features.set_max_length(15);
  EXPECT_THAT(CheckSignature(features, job).ToString(), HasSubstr("max_length"));

  struct Case {
    std::function<void(v1::Job*)> change;
    std::string message;
  };
  const Case cases[] = {
      {[](v1::Job* j) { j->set_task(v1::TASK_MULTI_LABEL); },
       "it is a model of task: classification, but the run's is multi_label"},
      {[](v1::Job* j) { j->mutable_labels()->SwapElements(0, 1); }, "corpus.labels"},
      {[](v1::Job* j) { j->mutable_tokenizer()->set_kind(v1::Tokenizer::KIND_SENTENCEPIECE); },
       "it reads token ids, but the corpus has text (tokenizer.kind); make an ids column with polystill-tokenize and "
       "write tokenizer: {kind: ids, vocab_size: 100, max_length: 16}"},
      {[](v1::Job* j) { j->mutable_tokenizer()->set_vocab_size(101); }, "vocab_size"},
      {[](v1::Job* j) { j->mutable_tokenizer()->set_max_length(17); }, "max_length"},
  };
  for (const Case& c : cases) {
    v1::Job changed = job;
    c.change(&changed);
    const absl::Status status = CheckSignature(signature, changed);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

}  // namespace
}  // namespace polystill::models
