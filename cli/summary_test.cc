#include "cli/summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/yaml_proto.h"

namespace polystill::cli {
namespace {

TEST(Summary, HasALineAStage) {
  v1::RunSpec spec;
  ASSERT_TRUE(ReadYaml(R"(version: 1
name: x
corpus: {path: /corpus, labels: [a, b]}
tokenizer: {}
teachers:
  - {name: english, reads: source_text, train: {where: {pool: A, language: en, split: train}}}
student:
  where: {split: train}
  languages: {targets: [de, fr]}
  losses:
    - {kind: soft_label, teacher: english}
    - {kind: hard_label, teacher: english}
  workers: 2
  epochs: 0.5
baselines: [zero_shot]
evaluate: {where: {split: test}}
output: /run
)",
                       "run.yaml", {}, &spec)
                  .ok());
  EXPECT_EQ(
      Summary(spec),
      "  index             the records of /corpus\n"
      "  tokenizer         SentencePiece with 24,000 ids\n"
      "  teacher:english   subword_bag of width 128 on source_text, task, 6 epochs in steps of 64, 2 workers; "
      "language=en pool=A "
      "split=train\n"
      "  distilled         subword_bag of width 128 on text, soft_label of english on source_text + hard_label of "
      "english on source_text, 0.5 epochs in steps of 64, 2 workers; split=train in de, fr; labels never read\n"
      "  evaluate          zero_shot, distilled; split=test in de, fr\n"
      "  output            /run\n");
}

}  // namespace
}  // namespace polystill::cli
