#include "models/aot_model.h"

#include <ATen/core/grad_mode.h>
#include <stdlib.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <algorithm>
#include <filesystem>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "models/padded_model.h"
#include "runtime/cores.h"
#include "runtime/status.h"

namespace polystill::models {
namespace {

using torch::inductor::AOTIModelPackageLoader;

// Lets compiled models compare the types and shapes of what they are given with what they were compiled for, which they
// otherwise trust. Set before main, while there is one thread.
[[maybe_unused]] const int kChecksInputs = setenv("AOTI_RUNTIME_CHECK_INPUTS", "1", /*overwrite=*/0);

class AotModel final : public PaddedModel {
 public:
  AotModel(std::unique_ptr<AOTIModelPackageLoader> loader, std::vector<std::string> outputs, const ModelShape& shape)
      : PaddedModel(shape), loader_(std::move(loader)), outputs_(std::move(outputs)) {}

  checkpoint::NamedTensors NamedParameters() const override { return {}; }

 private:
  void MoveRest(at::Device device) override {
    TORCH_CHECK(device.is_cpu(), "a model that AOTInductor compiled for the CPU runs there alone; write device: cpu");
  }

  // Compiled code throws more than c10::Error; callers know only that one.
  Answer Run(const TokenBatch&, const PaddedBatch& padded) const override try {
    const at::NoGradGuard no_grad;
    const std::vector<at::Tensor> tensors = loader_->run({padded.ids, padded.mask});
    TORCH_CHECK(tensors.size() == outputs_.size(), "it gives ", tensors.size(), " tensors, but ", outputs_.size(),
                " outputs are named");
    Answer answer;
    for (size_t i = 0; i < tensors.size(); ++i) {
      (outputs_[i] == kLogits ? answer.logits : answer.features[outputs_[i]]) = tensors[i];
    }
    return answer;
  } catch (const c10::Error&) {
    throw;
  } catch (const std::exception& error) {
    TORCH_CHECK(false, error.what());
  }

  const std::unique_ptr<AOTIModelPackageLoader> loader_;
  const std::vector<std::string> outputs_;
};

// The first of the instruction sets, separated by spaces, that this CPU lacks; empty when it has all.
std::string MissingInstructions([[maybe_unused]] const std::string& needed) {
#if defined(__x86_64__)
  const std::pair<const char*, bool> sets[] = {{"AVX2", __builtin_cpu_supports("avx2")},
                                               {"AVX512", __builtin_cpu_supports("avx512f")},
                                               {"AVX512_VNNI", __builtin_cpu_supports("avx512vnni")}};
  for (const absl::string_view name : absl::StrSplit(needed, ' ')) {
    for (const auto& [set, has] : sets) {
      if (name == set && !has) return set;
    }
  }
#endif
  return "";
}

// What the file says that it was compiled for, compared before its code is run.
absl::Status CheckMachine(const std::unordered_map<std::string, std::string>& metadata) {
  const auto value = [&metadata](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::string() : found->second;
  };
  if (const std::string device = value("AOTI_DEVICE_KEY"); !device.empty() && device != "cpu") {
    return absl::InvalidArgumentError(
        absl::StrCat("is compiled for ", device, "; teachers run on the CPU, compile it for that"));
  }
  if (const std::string set = MissingInstructions(value("AOTI_CPU_ISA")); !set.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("is compiled for a CPU with ", set, ", which this one lacks; compile it on this kind of machine"));
  }
  return absl::OkStatus();
}

// Unpacks and opens the file.
absl::StatusOr<std::unique_ptr<AOTIModelPackageLoader>> Open(const std::string& path) {
  const auto torn = [&path](const std::string& why) {
    return absl::DataLossError(absl::StrCat(path, ": is not a whole AOTInductor model: ", why));
  };
  try {
    if (!std::filesystem::exists(path)) return absl::NotFoundError(absl::StrCat(path, ": there is no such file"));
    RETURN_IF_ERROR(Annotate(CheckMachine(AOTIModelPackageLoader::load_metadata_from_package(path, "model")), path));
    // Its runners share the weights; each lets forwards through one by one.
    return std::make_unique<AOTIModelPackageLoader>(path, "model", /*run_single_threaded=*/false,
                                                    /*num_runners=*/static_cast<size_t>(UsableCores()));
  } catch (const c10::Error& error) {
    return torn(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return torn(error.what());
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> LoadAotModel(const std::string& path, const std::vector<std::string>& outputs,
                                                    const ModelShape& shape) {
  ASSIGN_OR_RETURN(std::unique_ptr<AOTIModelPackageLoader> loader, Open(path));
  auto model = std::make_unique<AotModel>(std::move(loader), outputs, shape);
  try {
    RETURN_IF_ERROR(Annotate(model->Try({{0}, {0, 0}}), path));
  } catch (const c10::Error& error) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": forward(ids, mask) failed; it must take ids int64 and mask bool, both [rows, length] with ",
        "rows and length dynamic: ", error.what_without_backtrace()));
  }
  return model;
}

}  // namespace polystill::models
