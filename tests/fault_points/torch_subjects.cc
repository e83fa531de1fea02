#include <arrow/array/builder_binary.h>
#include <arrow/io/file.h>
#include <arrow/table.h>
#include <parquet/arrow/writer.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint.h"
#include "inference/predict_files.h"
#include "models/model.h"
#include "models/package.h"
#include "runtime/arrow_status.h"
#include "runtime/files.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "teacher_server/label_segments.h"
#include "tests/fault_points/subjects.h"

namespace polystill::fault_points {
namespace {

namespace fs = std::filesystem;
using Done = std::function<void()>;

models::ModelShape SmallShape() {
  models::ModelShape shape;
  shape.spec.set_kind(v1::Model::KIND_SUBWORD_BAG);
  shape.spec.set_width(4);
  shape.vocab_size = 6;
  shape.classes = 2;
  return shape;
}

v1::Signature SmallSignature() {
  v1::Signature signature;
  signature.set_input(v1::Signature::INPUT_IDS);
  signature.set_vocab_size(6);
  signature.set_max_length(8);
  for (const char* label : {"games", "net"}) signature.add_labels(label);
  return signature;
}

// Two steps, then the last one again, as a worker writes it that goes on from the first.
class Checkpoints : public Subject {
 public:
  std::string name() const override { return "checkpoints"; }

  absl::Status Write(const std::string& folder, const Done& done) const override {
    for (const auto& [step, job] : {std::pair(10, "distilled"), {20, "distilled"}, {20, "again"}}) {
      checkpoint::CheckpointState state;
      state.job = job;
      state.step = step;
      state.generation = 3;
      state.model = {{"w", at::full({4, 2}, static_cast<double>(step))}};
      state.optimizer = {{"w.first", at::full({4, 2}, 0.5f)}};
      RETURN_IF_ERROR(checkpoint::SaveCheckpoint(folder + "/checkpoints/distilled", state).status());
      done();
    }
    return absl::OkStatus();
  }

  std::string Read(const std::string& folder) const override {
    const checkpoint::LatestCheckpointResult latest = checkpoint::LatestCheckpoint(folder + "/checkpoints/distilled");
    if (!latest.refused.empty()) return latest.refused[0].reason.ToString();
    if (!latest.state.has_value()) return "none";
    return absl::StrCat(latest.state->job, " ", latest.state->step, " ", checkpoint::StateDigest(*latest.state));
  }
};

class ModelPackage : public Subject {
 public:
  std::string name() const override { return "package"; }

  absl::Status Write(const std::string& folder, const Done& done) const override {
    const models::ModelShape shape = SmallShape();
    const v1::Signature signature = SmallSignature();
    for (const uint64_t seed : {1, 2}) {
      ASSIGN_OR_RETURN(const auto model, models::MakeModel(shape, seed));
      RETURN_IF_ERROR(
          models::SavePackage(folder + "/models/english", "english", *model, shape, signature, "").status());
      done();
    }
    return absl::OkStatus();
  }

  std::string Read(const std::string& folder) const override {
    if (!fs::exists(folder + "/models/english")) return "none";
    const auto package = models::LoadPackage(folder + "/models/english");
    return package.ok() ? package->info.digest : package.status().ToString();
  }
};

// Two inputs, predicted to one output.
class PredictedFile : public Subject {
 public:
  explicit PredictedFile(std::string ending) : ending_(std::move(ending)) {}
  std::string name() const override { return "predicted_" + ending_; }

  absl::Status Prepare(const std::string& folder) const override {
    const std::string beside = fs::path(folder).parent_path();
    RETURN_IF_ERROR(SaveReader(beside));
    for (const char* text : {"un", "able"}) {
      RETURN_IF_ERROR(WriteInput(absl::StrCat(beside, "/", text, ".", ending_), text));
    }
    return absl::OkStatus();
  }

  absl::Status Write(const std::string& folder, const Done& done) const override {
    // Beside the folder, where no fault is: what `polystill predict` reads.
    const std::string beside = fs::path(folder).parent_path();
    ASSIGN_OR_RETURN(const inference::Predictor predictor, inference::Predictor::Open(beside + "/package"));
    for (const char* text : {"un", "able"}) {
      inference::PredictFileOptions options;
      options.input = absl::StrCat(beside, "/", text, ".", ending_);
      options.output = OutputIn(folder);
      RETURN_IF_ERROR(inference::PredictFile(predictor, options).status());
      done();
    }
    return absl::OkStatus();
  }

  std::string Read(const std::string& folder) const override {
    const auto content = ReadFile(OutputIn(folder));
    if (absl::IsNotFound(content.status())) return "none";
    return content.ok() ? Sha256Hex(*content) : content.status().ToString();
  }

 private:
  std::string OutputIn(const std::string& folder) const { return folder + "/out." + ending_; }

  static absl::Status SaveReader(const std::string& beside) {
    constexpr char kTokenizer[] =
        R"({"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 10, "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "un": 4, "able": 5}},
            "normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]}})";
    RETURN_IF_ERROR(WriteFileAtomically(beside + "/tokenizer.json", kTokenizer));
    const models::ModelShape shape = SmallShape();
    v1::Signature signature = SmallSignature();
    signature.set_input(v1::Signature::INPUT_TEXT);
    ASSIGN_OR_RETURN(const auto model, models::MakeModel(shape, 1));
    return models::SavePackage(beside + "/package", "english", *model, shape, signature, beside + "/tokenizer.json")
        .status();
  }

  absl::Status WriteInput(const std::string& path, const std::string& text) const {
    if (ending_ == "jsonl") return WriteFileAtomically(path, absl::StrCat("{\"text\": \"", text, "\"}\n"));
    arrow::StringBuilder texts;
    std::shared_ptr<arrow::Array> column;
    if (!texts.Append(text).ok() || !texts.Finish(&column).ok()) return absl::InternalError("no column");
    const auto table = arrow::Table::Make(arrow::schema({arrow::field("text", arrow::utf8())}), {column});
    const auto file = arrow::io::FileOutputStream::Open(path);
    RETURN_IF_ERROR(FromArrow(file.status(), absl::StatusCode::kInternal, path));
    return FromArrow(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), *file),
                     absl::StatusCode::kInternal, path);
  }

  const std::string ending_;
};

// Either all labels fit, or the oldest go. A reader tells which labels there are: one after the other, to the newest.
class LabelCache : public Subject {
 public:
  explicit LabelCache(bool fits) : fits_(fits) {}
  std::string name() const override { return fits_ ? "label_cache" : "full_label_cache"; }
  bool is_cache() const override { return true; }

  absl::Status Write(const std::string& folder, const Done& done) const override {
    ASSIGN_OR_RETURN(const auto segments, Open(folder));
    for (int i = 0; i < labels(); ++i) {
      segments->Put(KeyOf(i), LabelOf(i));
      done();
    }
    return absl::OkStatus();
  }

  std::string Read(const std::string& folder) const override {
    const auto segments = Open(folder);
    if (!segments.ok()) return segments.status().ToString();
    int oldest = labels(), newest = -1;
    // The newest first: reading labels that are at risk keeps them again, in the place of the oldest.
    for (int i = labels() - 1; i >= 0; --i) {
      const auto label = (*segments)->Get(KeyOf(i));
      if (absl::IsNotFound(label.status())) continue;
      if (!label.ok()) return label.status().ToString();
      if (*label != LabelOf(i)) return absl::StrCat("label ", i, " is another");
      if (newest >= 0 && i != oldest - 1) return absl::StrCat("label ", i, " without the next one");
      oldest = i;
      newest = std::max(newest, i);
    }
    if (fits_ && oldest > 0 && newest >= 0) return absl::StrCat("label ", oldest, " without those before");
    // 19 fit; a power cut may take the newest of them.
    if (!fits_ && newest - oldest + 1 < std::min(newest + 1, 10)) return absl::StrCat("from label ", oldest, " alone");
    return absl::StrCat("to label ", newest);
  }

 private:
  // A segment holds three labels of those that fit, one of the others, of which the cache holds 19.
  int labels() const { return fits_ ? 5 : 28; }

  static absl::StatusOr<std::unique_ptr<teacher_server::LabelSegments>> Open(const std::string& folder) {
    teacher_server::LabelSegments::Options options;
    options.folder = folder + "/label_cache";
    options.max_bytes = teacher_server::LabelSegments::kMinBytes;
    return teacher_server::LabelSegments::Open(options);
  }
  static std::string KeyOf(int i) {
    return std::string(teacher_server::LabelSegments::kKeyBytes, static_cast<char>(i));
  }
  std::string LabelOf(int i) const { return std::string(fits_ ? 20'000 : 50'000, static_cast<char>('a' + i)); }

  const bool fits_;
};

}  // namespace

Subjects TorchSubjects() {
  return {std::make_shared<Checkpoints>(),          std::make_shared<ModelPackage>(),
          std::make_shared<PredictedFile>("jsonl"), std::make_shared<PredictedFile>("parquet"),
          std::make_shared<LabelCache>(true),       std::make_shared<LabelCache>(false)};
}

}  // namespace polystill::fault_points
