#include "models/script_model.h"

#include <torch/script.h>

#include <filesystem>

#include "runtime/status.h"

namespace polystill::models {
namespace {

class ScriptModel : public Model {
 public:
  ScriptModel(torch::jit::Module module, int64_t max_length) : module_(std::move(module)), max_length_(max_length) {
    for (const auto& parameter : module_.named_parameters()) parameters_.emplace_back(parameter.name, parameter.value);
  }

  at::Tensor Forward(const TokenBatch& batch) const override {
    const at::NoGradGuard no_grad;
    const torch::jit::GraphOptimizerEnabledGuard as_written(false);
    const PaddedBatch padded = PadToBucket(batch, max_length_);
    return Run(padded.ids, padded.mask);
  }

  checkpoint::NamedTensors NamedParameters() const override { return parameters_; }
  bool pads_to_length() const override { return true; }

 private:
  // The interpreter throws more than c10::Error, e.g. for a raise in the script; callers know only that one.
  at::Tensor Run(const at::Tensor& ids, const at::Tensor& mask) const try {
    return module_.get_method("forward")({ids, mask}).toTensor();
  } catch (const c10::Error&) {
    throw;
  } catch (const std::exception& error) {
    TORCH_CHECK(false, error.what());
  }

  const torch::jit::Module module_;
  // Longest row, in tokens.
  const int64_t max_length_;
  checkpoint::NamedTensors parameters_;
};

// OK when one batch of fillers gives finite logits [rows, classes].
absl::Status TryForward(const Model& model, int64_t classes) {
  const at::Tensor logits = model.Forward(MakeBatch({{0}, {0, 0}}, 0, 2));
  if (logits.dim() != 2 || logits.size(0) != 2 || logits.size(1) != classes || !logits.is_floating_point()) {
    return absl::InvalidArgumentError(absl::StrCat("forward must give floating numbers [rows, ", classes,
                                                   "], a class for each of signature.labels; it gave ",
                                                   c10::str(logits.sizes(), " ", logits.scalar_type(), " for 2 rows")));
  }
  if (!at::isfinite(logits).all().item<bool>()) return absl::InvalidArgumentError("forward gives logits not finite");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> LoadScriptModel(const std::string& path, int64_t classes, int64_t max_length) {
  if (!std::filesystem::exists(path)) return absl::NotFoundError(absl::StrCat(path, ": there is no such file"));
  std::unique_ptr<Model> model;
  try {
    torch::jit::Module module = torch::jit::load(path, at::kCPU);
    module.eval();
    model = std::make_unique<ScriptModel>(std::move(module), max_length);
  } catch (const c10::Error& error) {
    return absl::DataLossError(
        absl::StrCat(path, ": is not a whole TorchScript module: ", error.what_without_backtrace()));
  }
  try {
    RETURN_IF_ERROR(Annotate(TryForward(*model, classes), path));
  } catch (const c10::Error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": forward(ids, mask) failed: ", error.what_without_backtrace()));
  }
  return model;
}

}  // namespace polystill::models
