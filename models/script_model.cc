#include "models/script_model.h"

#include <torch/script.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <utility>

#include "absl/strings/str_replace.h"
#include "models/padded_model.h"
#include "runtime/cuda/device.h"
#include "runtime/status.h"

namespace polystill::models {
namespace {

using torch::jit::Module;

checkpoint::NamedTensors AllParameters(const Module& module) {
  checkpoint::NamedTensors parameters;
  for (const auto& parameter : module.named_parameters()) parameters.emplace_back(parameter.name, parameter.value);
  return parameters;
}

// Those that require gradients, each once: a tied parameter has several names.
checkpoint::NamedTensors TrainedParameters(const Module& module) {
  checkpoint::NamedTensors trained;
  std::set<const void*> seen;
  for (auto& [name, parameter] : AllParameters(module)) {
    if (!parameter.requires_grad() || !seen.insert(parameter.unsafeGetTensorImpl()).second) continue;
    trained.emplace_back(name, parameter);
  }
  return trained;
}

class ScriptModel final : public PaddedModel {
 public:
  ScriptModel(Module module, const ModelShape& shape, bool trains)
      : PaddedModel(shape),
        module_(std::move(module)),
        trains_(trains),
        parameters_(trains ? TrainedParameters(module_) : AllParameters(module_)) {}

  checkpoint::NamedTensors NamedParameters() const override { return parameters_; }
  const Module& module() const { return module_; }

 private:
  Answer Run(const TokenBatch& batch, const PaddedBatch& padded) const override {
    const torch::jit::GraphOptimizerEnabledGuard as_written(false);
    const at::AutoGradMode gradients(trains_ && at::GradMode::is_enabled());
    if (trains_) SetMode(batch);
    return Call(cuda::ToDevice(padded.ids, device()), cuda::ToDevice(padded.mask, device()));
  }

  void MoveRest(at::Device device) override {
    Module module = module_;  // the same one
    module.to(device);
  }

  // One thread trains: nobody else runs the module then.
  void SetMode(const TokenBatch& batch) const {
    const bool training = !batch.row_keys.empty();
    Module module = module_;  // the same one
    if (module.is_training() != training) module.train(training);
    if (!training) return;
    at::Generator generator = at::globalContext().defaultGenerator(device());
    const std::scoped_lock lock(generator.mutex());
    generator.set_current_seed(batch.row_keys[0]);
  }

  // The interpreter throws more than c10::Error, e.g. for a raise in the script; callers know only that one.
  Answer Call(const at::Tensor& ids, const at::Tensor& mask) const try {
    const c10::IValue value = module_.get_method("forward")({ids, mask});
    if (!value.isGenericDict()) return {value.toTensor(), {}};
    Answer answer;
    for (const auto& entry : value.toGenericDict()) {
      const std::string& name = entry.key().toStringRef();
      (name == kLogits ? answer.logits : answer.features[name]) = entry.value().toTensor();
    }
    return answer;
  } catch (const c10::Error&) {
    throw;
  } catch (const std::exception& error) {
    TORCH_CHECK(false, error.what());
  }

  const Module module_;
  const bool trains_;
  const checkpoint::NamedTensors parameters_;
};

absl::Status CheckTrained(const checkpoint::NamedTensors& trained) {
  if (trained.empty()) {
    return absl::InvalidArgumentError("no parameter requires a gradient; save the module before it is frozen");
  }
  std::map<const void*, std::string> names;
  for (const auto& [name, parameter] : trained) {
    const auto [other, is_new] = names.emplace(parameter.storage().data(), name);
    if (!is_new && parameter.numel() > 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameters '", other->second, "' and '", name, "' share memory; tie the parameter itself"));
    }
  }
  return absl::OkStatus();
}

// One step without an update shows what training would do to the module.
absl::Status TryTraining(const ScriptModel& model, const Rows& rows) {
  checkpoint::NamedTensors buffers;
  for (const auto& buffer : model.module().named_buffers()) buffers.emplace_back(buffer.name, buffer.value.clone());
  TrainingForward(model, rows, std::vector<uint64_t>(rows.size())).logits.sum().backward();
  for (const auto& buffer : model.module().named_buffers()) {
    const auto before =
        std::find_if(buffers.begin(), buffers.end(), [&](const auto& named) { return named.first == buffer.name; });
    if (before != buffers.end() && at::equal(before->second, buffer.value)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("training changes buffer '", buffer.name,
                     "', which workers do not share; use a norm without running statistics"));
  }
  for (const auto& [name, parameter] : model.NamedParameters()) {
    if (!parameter.grad().defined()) {
      return absl::InvalidArgumentError(absl::StrCat("the logits do not depend on parameter '", name,
                                                     "'; save the module with its requires_grad False"));
    }
    parameter.mutable_grad().reset();
  }
  return absl::OkStatus();
}

absl::StatusOr<Module> LoadModule(const std::string& path) try {
  if (!std::filesystem::exists(path)) return absl::NotFoundError(absl::StrCat(path, ": there is no such file"));
  Module module = torch::jit::load(path, at::kCPU);
  module.eval();
  return module;
} catch (const c10::Error& error) {
  return absl::DataLossError(
      absl::StrCat(path, ": is not a whole TorchScript module: ", error.what_without_backtrace()));
} catch (const std::exception& error) {  // the compiler of scripts throws errors of its own
  return absl::DataLossError(absl::StrCat(path, ": is not a whole TorchScript module: ", error.what()));
}

// What `trial` says, with the file; what it throws is the module's fault.
template <typename Trial>
absl::Status Try(const std::string& path, const Trial& trial) try {
  return Annotate(trial(), path);
} catch (const c10::Error& error) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": forward(ids, mask) failed: ", error.what_without_backtrace()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> LoadScriptModel(const std::string& path, const ModelShape& shape) {
  ASSIGN_OR_RETURN(Module module, LoadModule(path));
  auto model = std::make_unique<ScriptModel>(std::move(module), shape, /*trains=*/false);
  RETURN_IF_ERROR(Try(path, [&] { return model->Try({{0}, {0, 0}}); }));
  return model;
}

absl::StatusOr<std::unique_ptr<Model>> LoadScriptStudent(const ModelShape& shape) {
  const std::string& path = shape.spec.path();
  if (path.ends_with(".pt2")) {
    return absl::InvalidArgumentError(absl::StrCat(
        path,
        ": an AOTInductor model is compiled for inference, it can be a teacher but cannot be trained; give the "
        "module that it was compiled from as TorchScript"));
  }
  ASSIGN_OR_RETURN(Module module, LoadModule(path));
  module.to(ScalarTypeOf(shape.dtype));
  auto model = std::make_unique<ScriptModel>(std::move(module), shape, /*trains=*/true);
  const Rows rows = {{0}, {0, static_cast<int32_t>(shape.vocab_size - 1)}};
  RETURN_IF_ERROR(Try(path, [&]() -> absl::Status {
    RETURN_IF_ERROR(model->Try(rows));
    RETURN_IF_ERROR(CheckTrained(model->NamedParameters()));
    return TryTraining(*model, rows);
  }));
  return model;
}

absl::StatusOr<std::string> ScriptModelBytes(const Model& model) try {
  const auto* script = dynamic_cast<const ScriptModel*>(&model);
  if (script == nullptr) return absl::InvalidArgumentError("not a TorchScript module");
  Module module = script->module();
  module.eval();
  std::ostringstream bytes;
  module.save(bytes);
  return bytes.str();
} catch (const c10::Error& error) {
  return absl::InternalError(absl::StrCat("save the TorchScript module: ", error.what_without_backtrace()));
}

std::string ScriptAttribute(const std::string& parameter) { return absl::StrReplaceAll(parameter, {{".", "_"}}); }

absl::StatusOr<std::string> ScriptBytes(const checkpoint::NamedTensors& parameters, const std::string& source) try {
  Module module("polystill");
  for (const auto& [name, parameter] : parameters) {
    module.register_parameter(ScriptAttribute(name), parameter.detach(), false);
  }
  module.define(source);
  module.eval();
  std::ostringstream bytes;
  module.save(bytes);
  return bytes.str();
} catch (const std::exception& error) {
  return absl::InternalError(absl::StrCat("make a TorchScript module: ", error.what()));
}

}  // namespace polystill::models
