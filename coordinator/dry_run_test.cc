#include "coordinator/dry_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "coordinator/run_file.h"
#include "runtime/files.h"

namespace polystill::coordinator {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(DescribeDryRun, SaysWhatARunWouldDoAndNeed) {
  const std::string folder = testing::TempDir() + "dry_run_test";
  fs::remove_all(folder);
  std::string lines;
  const auto add = [&lines](const std::string& language, const std::string& split, int records) {
    for (int i = 0; i < records; ++i) {
      absl::StrAppend(&lines, R"({"id": ")", language, split, i, R"(", "language": ")", language, R"(", "split": ")",
                      split, R"(", "label": "net", "ids": [1], "source_ids": [1]})", "\n");
    }
  };
  add("de", "train", 30);
  add("fr", "train", 10);
  add("de", "dev", 6);
  add("de", "test", 7);
  add("fr", "test", 3);
  ASSERT_TRUE(WriteFileAtomically(folder + "/corpus/a.jsonl", lines).ok());
  ASSERT_TRUE(WriteFileAtomically(folder + "/teacher.yaml", "").ok());
  const std::string run = absl::StrCat(R"(version: 1
name: dry
corpus: {path: )",
                                       folder, R"(/corpus, labels: [net, devel, games]}
tokenizer: {kind: ids, vocab_size: 100}
teachers: [{name: far, address: 'h:1'}, {name: near, package: )",
                                       folder, R"(, replicas: 2}]
student:
  losses: [{kind: soft_label, teacher: near}, {kind: logit_mse, teacher: near}]
  early_stopping: {every: 3}
  batch_size: 8
  epochs: 2
  workers: 3
  keep_checkpoints: 2
output: )",
                                       folder, "/out\n");
  ASSERT_TRUE(WriteFileAtomically(folder + "/run.yaml", run).ok());
  const auto file = ReadRunFile(folder + "/run.yaml", {});
  ASSERT_TRUE(file.ok()) << file.status();
  const auto text = DescribeDryRun(file->spec, [](const v1::Job&) { return 1000; });
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, HasSubstr("distilled: 10 steps of 8 records, 1000 parameters\n"));
  EXPECT_THAT(*text, HasSubstr("de                     30 records       2.00 passes\n"));
  EXPECT_THAT(*text, HasSubstr("fr                     10 records       2.00 passes\n"));
  EXPECT_THAT(*text, HasSubstr("held out: 6 records, every 3 steps\n"));
  // 80 records, one kind of label, 3 classes in 2 bytes each.
  EXPECT_THAT(*text, HasSubstr("soft labels: 480 B\n"));
  // 3 records of a worker.
  EXPECT_THAT(*text, HasSubstr("asked for ahead: at most 64 steps, 1.2 KB a worker\n"));
  EXPECT_THAT(*text, HasSubstr("evaluate: 1 models on 10 records\n"));
  EXPECT_THAT(*text, HasSubstr("processes: 1 coordinator, 2 teacher servers, 3 student workers, of 1 threads each\n"));
  EXPECT_THAT(*text, HasSubstr("disk of label caches while it runs: at most 2"));
  // 4 bytes a parameter; weights, two moments and the best weights in each of three checkpoints.
  EXPECT_THAT(*text, HasSubstr("packages 4.0 KB, checkpoints at most 48.0 KB, predictions about"));
  const auto with_features = ReadRunFile(
      folder + "/run.yaml", {"student.losses.1={kind: embedding, teacher: near}", "student.losses.0.codec=dense_fp32",
                             "teachers.1={name: near, train: {model: {kind: transformer, width: 12}}}"});
  ASSERT_TRUE(with_features.ok()) << with_features.status();
  const auto size_of = [](v1::RunSpec spec, const std::string& reads) {
    spec.mutable_student()->mutable_model()->set_kind(v1::Model::KIND_TRANSFORMER);
    const auto said = DescribeDryRun(spec, [](const v1::Job&) { return 1000; });
    EXPECT_THAT(*said, HasSubstr(reads)) << said.status();
  };
  // 80 records of 3 numbers in 4 bytes and 12 in 2.
  size_of(with_features->spec, "soft labels: 2.9 KB\n");
  // And 5 tokens of 12 numbers in 4 bytes.
  v1::RunSpec hidden = with_features->spec;
  hidden.mutable_tokenizer()->set_max_length(5);
  v1::Loss& loss = *hidden.mutable_student()->add_losses() = hidden.student().losses(0);
  loss.set_kind(v1::LOSS_KIND_HIDDEN);
  for (const int layer : {1, 2}) {
    loss.add_layers()->set_student(layer);
    loss.mutable_layers()->rbegin()->set_teacher(3);  // asked for once
  }
  size_of(hidden, "soft labels: at most 22.1 KB\n");
  hidden.mutable_student()->mutable_losses(2)->set_teacher("far");
  size_of(hidden, "features of teacher 'far': their size is known once it is asked\n");
  // Of 5 tokens at most 2 are hidden; 80 records, 7 token ids in 2 bytes each.
  v1::RunSpec masked = file->spec;
  masked.set_task(v1::TASK_MASKED_LM);
  masked.mutable_masking()->set_share(0.25);
  masked.mutable_tokenizer()->set_max_length(5);
  masked.mutable_tokenizer()->set_vocab_size(7);
  size_of(masked, "soft labels: at most 2.2 KB\n");
  // 10 records of 2 hidden tokens, by one model.
  size_of(masked, "predictions at most 1.2 KB\n");
  // 80 records of 2 ids of 2 bits, 2 numbers of 2 bytes and one of 4; of the head's 12 numbers in 2 bytes.
  v1::RunSpec packed = with_features->spec;
  packed.mutable_student()->mutable_losses()->DeleteSubrange(1, 1);
  packed.mutable_student()->mutable_losses(0)->set_codec(v1::CODEC_TOP_K);
  packed.mutable_student()->mutable_losses(0)->set_k(2);
  size_of(packed, "soft labels: 720 B\n");
  packed.mutable_student()->set_prefetch(5);
  size_of(packed, "asked for ahead: at most 5 steps, 135 B a worker\n");
  packed.mutable_student()->mutable_losses(0)->set_codec(v1::CODEC_HIDDEN_HEAD);
  size_of(packed, "soft labels: 1.9 KB\n");
  packed.mutable_student()->mutable_losses(0)->set_codec(v1::CODEC_SAMPLED);
  packed.mutable_student()->mutable_losses(0)->set_draws_per_token(4);
  size_of(packed, "soft labels: at most ");
  // 3 records of a worker's 3 logits: 7 arrays of 4 bytes.
  size_of(packed, "logits and losses: at most 252 B of a worker's memory\n");
  packed.mutable_student()->set_batch_size(1'000'000);
  packed.mutable_student()->set_loss_memory_mb(1);
  size_of(packed, ", more than student.loss_memory_mb allows (1.0 MB): lower student.micro_batch");
  EXPECT_FALSE(fs::exists(folder + "/out"));
  fs::remove_all(folder);
}

}  // namespace
}  // namespace polystill::coordinator
