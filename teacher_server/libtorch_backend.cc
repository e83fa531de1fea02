#include "teacher_server/libtorch_backend.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "corpus/tokenizer.h"
#include "models/package.h"
#include "runtime/counter_rng.h"
#include "runtime/status.h"

namespace polystill::teacher_server {
namespace {

class LibTorchBackend final : public Backend {
 public:
  LibTorchBackend(std::unique_ptr<models::Model> model, int64_t classes, int threads)
      : model_(std::move(model)), classes_(classes), threads_(threads) {}

  absl::StatusOr<std::vector<float>> Forward(const std::vector<std::vector<int32_t>>& rows) override {
    at::set_num_threads(threads_);  // holds for the calling thread
    const at::NoGradGuard no_grad;
    try {
      const at::Tensor logits = models::FixedShapeForward(*model_, rows).logits.to(at::kFloat).contiguous();
      const int64_t count = rows.size();
      if (logits.sizes() != at::IntArrayRef({count, classes_})) {
        return absl::InternalError(absl::StrCat("the model answered ", count, " rows with another shape than [", count,
                                                ", ", classes_, "]; its package is broken"));
      }
      const float* values = logits.const_data_ptr<float>();
      return std::vector<float>(values, values + logits.numel());
    } catch (const c10::Error& error) {
      return absl::InternalError(absl::StrCat("the model failed: ", error.what_without_backtrace()));
    } catch (const std::exception& error) {  // TorchScript's own exceptions
      return absl::InternalError(absl::StrCat("the model failed: ", error.what()));
    }
  }

 private:
  const std::unique_ptr<models::Model> model_;
  const int64_t classes_;
  const int threads_;
};

// Whether rows have the same logits, bit for bit, in another order. Fixed shapes ensure it for the layers in use; but a
// product with a matrix stored the other way round than a linear layer's weight depends on the place on some CPUs.
absl::StatusOr<bool> IsRepeatable(const v1::Signature& signature, Backend& backend) {
  std::vector<std::vector<int32_t>> rows(2 * models::kRowsPerForward + 3);
  for (size_t row = 0; row < rows.size(); ++row) {
    rows[row].resize(1 + row % std::min<size_t>(signature.max_length(), 24));
    for (size_t i = 0; i < rows[row].size(); ++i) rows[row][i] = CombineKey(row, i) % signature.vocab_size();
  }
  ASSIGN_OR_RETURN(const std::vector<float> logits, backend.Forward(rows));
  std::reverse(rows.begin(), rows.end());
  ASSIGN_OR_RETURN(const std::vector<float> reversed, backend.Forward(rows));
  const size_t row_bytes = logits.size() / rows.size() * sizeof(float);
  for (size_t row = 0; row < rows.size(); ++row) {
    const float* other = reversed.data() + (rows.size() - 1 - row) * signature.labels_size();
    if (std::memcmp(logits.data() + row * signature.labels_size(), other, row_bytes) != 0) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<Teacher> LoadTeacher(const std::string& folder, int threads) {
  ASSIGN_OR_RETURN(models::Package package, models::LoadPackage(folder));
  Teacher teacher{.name = package.info.name, .digest = package.info.digest, .signature = package.info.signature};
  if (teacher.signature.input() == v1::Signature::INPUT_TEXT) {
    ASSIGN_OR_RETURN(auto tokenizer, corpus::Tokenizer::Load(package.tokenizer_file, teacher.signature.max_length()));
    if (tokenizer->vocab_size() > teacher.signature.vocab_size()) {
      return absl::InvalidArgumentError(absl::StrCat(package.tokenizer_file, ": the tokeniser has ",
                                                     tokenizer->vocab_size(), " ids, the signature's vocab_size is ",
                                                     teacher.signature.vocab_size()));
    }
    teacher.encode = [tokenizer](std::string_view text) { return tokenizer->Encode(text); };
  }
  teacher.backend =
      std::make_unique<LibTorchBackend>(std::move(package.model), teacher.signature.labels_size(), threads);
  const absl::StatusOr<bool> repeatable = IsRepeatable(teacher.signature, *teacher.backend);
  if (!repeatable.ok()) return Annotate(repeatable.status(), folder);
  teacher.repeatable = *repeatable;
  if (!teacher.repeatable) {
    spdlog::warn("{}: a record's logits depend in their last bits on the records that come with it", folder);
  }
  return teacher;
}

}  // namespace polystill::teacher_server
