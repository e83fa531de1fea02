#include "teacher_server/libtorch_backend.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/StreamGuard.h>
#include <c10/util/Exception.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <optional>
#include <utility>

#include "checkpoint/safetensors.h"
#include "corpus/tokenizer.h"
#include "models/package.h"
#include "runtime/counter_rng.h"
#include "runtime/cuda/device.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "soft_labels/outputs.h"

namespace polystill::teacher_server {
namespace {

// Among the rows that a model is tried with.
constexpr std::array<size_t, 4> kLongRows = {64, 120, 200, 400};

class LibTorchBackend final : public Backend {
 public:
  LibTorchBackend(std::unique_ptr<models::Model> model, int64_t classes)
      : model_(std::move(model)), classes_(classes) {}

  absl::StatusOr<std::vector<at::Tensor>> Forward(const Question& question) override {
    at::set_num_threads(1);  // of the calling thread: the bits of a product depend on them
    const at::NoGradGuard no_grad;
    const std::optional<c10::Stream> own = OwnStream();
    const c10::OptionalStreamGuard stream(own);
    try {
      models::Outputs outputs = models::FixedShapeForward(*model_, question.ids, WantedOf(question));
      if (outputs.logits.defined()) outputs.features[OfLogits(question)] = outputs.logits;
      std::vector<at::Tensor> numbers;
      for (const std::string& name : question.outputs) {
        RETURN_IF_ERROR(CheckShape(question, name, outputs.features.at(name)));
        numbers.push_back(outputs.features.at(name).to(at::kFloat).contiguous());
      }
      if (own.has_value()) own->synchronize();  // what comes next is on another stream
      return numbers;
    } catch (const models::EngineUnavailable& error) {
      return absl::UnavailableError(error.what_without_backtrace());
    } catch (const c10::Error& error) {
      return absl::InternalError(absl::StrCat("the model failed: ", error.what_without_backtrace()));
    } catch (const std::exception& error) {  // TorchScript's own exceptions
      return absl::InternalError(absl::StrCat("the model failed: ", error.what()));
    }
  }

 private:
  // Of the calling thread, on a GPU.
  std::optional<c10::Stream> OwnStream() const {
    if (!model_->device().is_cuda()) return std::nullopt;
    thread_local const c10::Stream stream = cuda::NewStream(model_->device());
    return stream;
  }

  // What a question calls that which the model gives as logits.
  static std::string OfLogits(const Question& question) {
    const auto& names = question.outputs;
    return std::find(names.begin(), names.end(), kHeadInput) == names.end() ? soft_labels::kLogits : kHeadInput;
  }

  models::Wanted WantedOf(const Question& question) const {
    models::Wanted wanted;
    wanted.on_device = true;
    wanted.head_input = OfLogits(question) == kHeadInput;
    for (const std::string& name : question.outputs) {
      if (name != OfLogits(question)) wanted.features.push_back(name);
    }
    if (!model_->judges_tokens()) return wanted;
    const bool logits = wanted.features.size() < question.outputs.size();
    wanted.positions = logits ? question.positions : Rows(question.ids.size());  // no token's where none are wanted
    return wanted;
  }

  // Rows of an output for these records, and their width.
  absl::Status CheckShape(const Question& question, const std::string& name, const at::Tensor& output) const {
    const bool logits = name == OfLogits(question);
    const bool of_tokens = logits ? model_->judges_tokens() : models::IsOfTokens(name);
    int64_t rows = of_tokens ? 0 : static_cast<int64_t>(question.ids.size());
    for (size_t i = 0; of_tokens && i < question.ids.size(); ++i) {
      rows += static_cast<int64_t>(logits ? question.positions[i].size() : question.ids[i].size());
    }
    const int64_t width = name == kHeadInput ? model_->head().weight.size(1)
                          : logits           ? classes_
                                             : model_->feature_widths().at(name);
    if (output.sizes() == at::IntArrayRef({rows, width})) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("the model gave '", name, "' of another shape than [", rows, ", ", width,
                                            "]; its package is broken"));
  }

  const std::unique_ptr<models::Model> model_;
  const int64_t classes_;
};

// Rows of many lengths, also long ones, of every output; where logits are those of tokens, the first one's.
Question TrialQuestion(const Teacher& teacher) {
  Question question;
  if (models::GivesLogits(teacher.signature)) question.outputs = {soft_labels::kLogits};
  for (const v1::Feature& feature : teacher.features) question.outputs.push_back(feature.name());
  question.ids.resize(2 * models::kRowsPerForward + 3);
  question.positions.assign(question.ids.size(), {0});
  for (size_t row = 0; row < question.ids.size(); ++row) {
    const size_t length = row % 16 == 15 ? kLongRows[row / 16 % kLongRows.size()] : 1 + row % 24;
    question.ids[row].resize(std::min<size_t>(teacher.signature.max_length(), length));
    for (size_t i = 0; i < question.ids[row].size(); ++i) {
      question.ids[row][i] = static_cast<int32_t>(CombineKey(row, i) % teacher.signature.vocab_size());
    }
  }
  return question;
}

// Whether records have the same numbers, bit for bit, in another order. Fixed shapes ensure it for the layers in use;
// but a product with a matrix stored the other way round than a linear layer's weight depends on the place on some
// CPUs.
absl::StatusOr<bool> IsRepeatable(const Teacher& teacher) {
  Question question = TrialQuestion(teacher);
  ASSIGN_OR_RETURN(const auto forth, teacher.backend->Forward(question));
  std::vector<size_t> tokens;
  for (const auto& ids : question.ids) tokens.push_back(ids.size());
  std::reverse(question.ids.begin(), question.ids.end());
  ASSIGN_OR_RETURN(const auto back, teacher.backend->Forward(question));
  for (size_t k = 0; k < question.outputs.size(); ++k) {
    const bool of_tokens = models::IsOfTokens(question.outputs[k]);
    const size_t rows = of_tokens ? std::accumulate(tokens.begin(), tokens.end(), size_t{0}) : tokens.size();
    const size_t width = forth[k].numel() / rows;
    const at::Tensor one = cuda::ToHost(forth[k]), other = cuda::ToHost(back[k]);
    const float* first = one.const_data_ptr<float>();
    const float* last = other.const_data_ptr<float>() + other.numel();
    for (const size_t count : tokens) {
      const size_t numbers = (of_tokens ? count : 1) * width;
      last -= numbers;
      if (std::memcmp(first, last, numbers * sizeof(float)) != 0) return false;
      first += numbers;
    }
  }
  return true;
}

absl::StatusOr<HeadFile> HeadOf(const models::Model& model) {
  const models::Head head = model.head();
  HeadFile file;
  if (!head.weight.defined()) return file;
  const auto named = [](const at::Tensor& tensor) { return cuda::ToHost(tensor.detach()).to(at::kFloat); };
  ASSIGN_OR_RETURN(file.bytes,
                   checkpoint::FormatSafetensors({{"weight", named(head.weight)}, {"bias", named(head.bias)}}));
  file.description.set_digest(Sha256Hex(file.bytes));
  file.description.set_width(static_cast<int32_t>(head.weight.size(1)));
  file.description.set_bytes(static_cast<int64_t>(file.bytes.size()));
  return file;
}

// What computes, and how many batches it wants at once when that is not for the server to say.
void NameBackend(const v1::PackageManifest& manifest, at::Device device, Teacher* teacher) {
  const std::string kind = device.is_cuda() ? "cuda" : "cpu";
  if (manifest.backend() == v1::PackageManifest::BACKEND_PYTHON) {
    teacher->backend_name = "python/" + kind;
    teacher->batches_at_once = manifest.python().processes();
  } else if (manifest.backend() == v1::PackageManifest::BACKEND_OPEN_INFERENCE) {
    teacher->backend_name = "open_inference";
    teacher->batches_at_once = manifest.upstream().requests();
  } else {
    teacher->backend_name = "libtorch/" + kind;
  }
}

}  // namespace

absl::StatusOr<Teacher> LoadTeacher(const std::string& folder, at::Device device, std::function<void()> restarted) {
  ASSIGN_OR_RETURN(models::Package package, models::LoadPackage(folder, device, std::move(restarted)));
  RETURN_IF_ERROR(Annotate(package.model->MoveTo(device), folder));
  Teacher teacher{.name = package.info.name, .digest = package.info.digest, .signature = package.info.signature};
  if (teacher.signature.input() == v1::Signature::INPUT_TEXT) {
    ASSIGN_OR_RETURN(auto tokenizer, corpus::Tokenizer::Load(package.tokenizer_file, teacher.signature.max_length()));
    if (tokenizer->vocab_size() > teacher.signature.vocab_size()) {
      return absl::InvalidArgumentError(absl::StrCat(package.tokenizer_file, ": the tokeniser has ",
                                                     tokenizer->vocab_size(), " ids, the signature's vocab_size is ",
                                                     teacher.signature.vocab_size()));
    }
    teacher.encode = [tokenizer](std::string_view text) { return tokenizer->Encode(text); };
    ASSIGN_OR_RETURN(teacher.tokenizer_sha256, Sha256File(package.tokenizer_file));
  }
  for (const auto& [name, width] : package.model->feature_widths()) {
    v1::Feature& feature = teacher.features.emplace_back();
    feature.set_name(name);
    feature.set_width(static_cast<int32_t>(width));
  }
  NameBackend(package.manifest, device, &teacher);
  ASSIGN_OR_RETURN(teacher.head, HeadOf(*package.model));
  const v1::Signature& signature = teacher.signature;
  const int64_t classes = models::LogitCount(signature.task(), signature.labels_size(), signature.vocab_size());
  const bool elsewhere = package.model->takes() == models::Model::Takes::kAnyRows;
  teacher.backend = std::make_unique<LibTorchBackend>(std::move(package.model), classes);
  const absl::StatusOr<bool> repeatable = IsRepeatable(teacher);
  if (!repeatable.ok()) return Annotate(repeatable.status(), folder);
  teacher.repeatable = *repeatable && !elsewhere;
  if (!teacher.repeatable) {
    spdlog::warn("{}: a record's numbers {} in their last bits on the records that come with it", folder,
                 elsewhere ? "may depend" : "depend");
  }
  return teacher;
}

}  // namespace polystill::teacher_server
