#include "student_worker/tiny_job.h"

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/writer.h>

#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "corpus/index.h"
#include "runtime/counter_rng.h"
#include "runtime/files.h"
#include "runtime/status.h"
#include "student_worker/trainer.h"

namespace polystill::student_worker {
namespace {

constexpr int kIdsPerRecord = 6;
constexpr const char* kLanguages[] = {"de", "fr", "ja"};
constexpr const char* kClasses[] = {"low", "high"};

void Check(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

template <typename Builder>
std::shared_ptr<arrow::Array> Finish(Builder* builder) {
  std::shared_ptr<arrow::Array> array;
  Check(builder->Finish(&array));
  return array;
}

v1::Corpus TinyCorpus(const std::string& folder) {
  v1::Corpus corpus;
  corpus.set_path(absl::StrCat(folder, "/corpus.parquet"));
  for (const char* name : kClasses) corpus.add_labels(name);
  auto& columns = *corpus.mutable_columns();
  columns.set_id("id");
  columns.set_language("language");
  columns.set_ids("ids");
  columns.set_label("label");
  return corpus;
}

v1::Tokenizer TinyTokenizer() {
  v1::Tokenizer tokenizer;
  tokenizer.set_kind(v1::Tokenizer::KIND_IDS);
  tokenizer.set_vocab_size(kTinyVocabulary);
  tokenizer.set_max_length(kIdsPerRecord);
  return tokenizer;
}

absl::StatusOr<v1::CorpusIndex> TinyIndex(const std::string& folder) {
  return corpus::BuildIndex(TinySelection(folder));
}

v1::Optimizer TinyOptimizer() {
  v1::Optimizer optimizer;
  optimizer.set_kind(v1::Optimizer::KIND_ADAMW);
  optimizer.set_lr(0.02);
  optimizer.set_weight_decay(0.01);
  optimizer.set_beta1(0.9);
  optimizer.set_beta2(0.999);
  optimizer.set_eps(1e-8);
  optimizer.set_schedule(v1::Optimizer::SCHEDULE_COSINE);
  optimizer.set_warmup_steps(5);
  optimizer.set_clip_norm(0.5);
  return optimizer;
}

}  // namespace

void WriteTinyCorpus(const std::string& folder, int records) {
  arrow::StringBuilder id, language, label;
  auto values = std::make_shared<arrow::Int64Builder>();
  arrow::ListBuilder ids(arrow::default_memory_pool(), values);
  for (int i = 0; i < records; ++i) {
    const int label_index = static_cast<int>(CombineKey(1, i) % 2);
    Check(id.Append(absl::StrCat("r", i)));
    Check(language.Append(kLanguages[i % 3]));
    Check(label.Append(kClasses[label_index]));
    Check(ids.Append());
    for (int k = 0; k < kIdsPerRecord; ++k) {
      const bool other_half = CombineKey(2, i, k) % 8 == 0;
      const int half = other_half ? 1 - label_index : label_index;
      Check(values->Append(half * kTinyVocabulary / 2 +
                           static_cast<int64_t>(CombineKey(3, i, k) % (kTinyVocabulary / 2))));
    }
  }
  const auto schema =
      arrow::schema({arrow::field("id", arrow::utf8()), arrow::field("language", arrow::utf8()),
                     arrow::field("label", arrow::utf8()), arrow::field("ids", arrow::list(arrow::int64()))});
  const auto table = arrow::Table::Make(schema, {Finish(&id), Finish(&language), Finish(&label), Finish(&ids)});
  auto file = arrow::io::FileOutputStream::Open(TinyCorpus(folder).path());
  Check(file.status());
  Check(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), *file, /*chunk_size=*/50));
  Check((*file)->Close());
}

v1::Selection TinySelection(const std::string& folder) {
  v1::Selection selection;
  *selection.mutable_corpus() = TinyCorpus(folder);
  *selection.mutable_tokenizer() = TinyTokenizer();
  selection.set_reads_labels(true);
  selection.set_reads_text(true);
  return selection;
}

v1::WorkerOrder::Assignment TinyTraining(const std::string& folder, int64_t steps) {
  v1::WorkerOrder::Assignment assignment;
  assignment.set_generation(1);
  assignment.set_world_size(1);
  auto& job = *assignment.mutable_job();
  job.set_name("tiny");
  job.set_kind(v1::Job::KIND_TRAIN);
  *job.mutable_tokenizer() = TinyTokenizer();
  *job.mutable_labels() = TinyCorpus(folder).labels();
  job.set_seed(7);
  job.mutable_model()->set_kind(v1::Model::KIND_SUBWORD_BAG);
  job.mutable_model()->set_width(16);
  job.mutable_model()->set_hidden_layers(1);
  job.set_reads(v1::SIDE_TEXT);
  auto& loss = *job.add_losses();
  loss.set_kind(v1::LOSS_KIND_TASK);
  loss.set_weight(1);
  loss.set_temperature(1);
  *job.mutable_optimizer() = TinyOptimizer();
  job.set_steps(steps);
  job.set_dtype(v1::Student::DTYPE_FLOAT32);
  job.set_threads(1);
  job.set_prefetch(3);
  job.set_package(absl::StrCat(folder, "/models/tiny"));
  job.set_checkpoints(absl::StrCat(folder, "/checkpoints/tiny"));
  job.set_model_name("tiny");
  auto& plan = *job.mutable_plan();
  plan.set_algorithm(2);
  plan.set_seed(7);
  plan.set_batch_size(16);
  plan.mutable_mixture()->set_kind(v1::Mixture::KIND_PROPORTIONAL);
  plan.mutable_mixture()->set_tau(1);
  plan.set_shuffle_window(65536);
  const auto index = TinyIndex(folder);
  if (!index.ok()) throw std::runtime_error(index.status().ToString());
  plan.set_index_digest(corpus::IndexDigest(*index));
  return assignment;
}

void GoOnFrom(const v1::WorkerMessage::Checkpointed& checkpoint, v1::WorkerOrder::Assignment* assignment) {
  assignment->set_checkpoint(checkpoint.path());
  assignment->set_checkpoint_generation(checkpoint.generation());
  assignment->set_checkpoint_step(checkpoint.step());
}

absl::StatusOr<v1::WorkerMessage::Done> Train(const v1::WorkerOrder::Assignment& assignment, WorkerContext context) {
  Membership membership{std::stop_source()};
  v1::WorkerOrder order;
  *order.mutable_assignment() = assignment;
  membership.Obey(order);
  const v1::WorkerOrder::Assignment begun = membership.NextAssignment().value();
  context.membership = &membership;
  ASSIGN_OR_RETURN(const auto trainer, Trainer::Prepare(begun, context));
  const auto done = trainer->CarryOut(begun);
  if (!done.ok() && context.stop.stop_requested()) return absl::CancelledError(done.status().message());
  if (!done.ok()) return done.status();
  if (!done->has_value()) return absl::AbortedError("the ranks have left");
  return **done;
}

absl::StatusOr<v1::CorpusIndex> TinyLink::GetIndex(const std::string& digest) {
  auto index = TinyIndex(folder_);
  if (index.ok() && corpus::IndexDigest(*index) != digest) return absl::NotFoundError(digest);
  return index;
}

}  // namespace polystill::student_worker
