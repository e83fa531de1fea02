#include "models/package.h"

#include <algorithm>
#include <tuple>

#include "checkpoint/manifest.h"
#include "checkpoint/publish.h"
#include "checkpoint/safetensors.h"
#include "models/aot_model.h"
#include "models/inference_model.h"
#include "models/package_manifest.h"
#include "models/script_model.h"
#include "models/transformer.h"
#include "runtime/files.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "runtime/tokenizer_file.h"
#include "runtime/yaml_proto.h"

namespace polystill::models {
namespace {

absl::Status AsDataLoss(const absl::Status& status, const std::string& file) {
  return absl::DataLossError(absl::StrCat(file, ": ", status.message()));
}

// Whether a parameter belongs to what comes after the encoder, which another task has another of.
bool IsOfHead(const std::string& name) {
  return name.starts_with("head.") || name.starts_with("transform.") || name.starts_with("transform_norm.");
}

ModelShape ShapeOf(const v1::PackageManifest& manifest) {
  ModelShape shape;
  shape.spec.set_kind(manifest.model().kind());
  shape.spec.set_width(manifest.model().width());
  shape.spec.set_hidden_layers(manifest.model().hidden_layers());
  shape.spec.set_layers(manifest.model().layers());
  shape.spec.set_heads(manifest.model().heads());
  shape.spec.set_feed_forward(manifest.model().feed_forward());
  shape.vocab_size = manifest.signature().vocab_size();
  shape.task =
      manifest.signature().task() == v1::TASK_UNSPECIFIED ? v1::TASK_CLASSIFICATION : manifest.signature().task();
  shape.classes = LogitCount(shape.task, manifest.signature().labels_size(), shape.vocab_size);
  shape.dtype = manifest.model().dtype();
  shape.max_length = manifest.signature().max_length();
  return shape;
}

absl::StatusOr<std::unique_ptr<Model>> LoadNative(const std::string& folder, const v1::PackageManifest& manifest) {
  const std::string path = absl::StrCat(folder, "/", kWeightsFile);
  ASSIGN_OR_RETURN(const checkpoint::NamedTensors weights, checkpoint::ReadSafetensors(path));
  const ModelShape shape = ShapeOf(manifest);
  // Compared before a model is made, so that a wrong number in teacher.yaml cannot ask for memory without end.
  ASSIGN_OR_RETURN(const int64_t needed, CountParameters(shape));
  const int64_t held = ParameterCount(weights);
  if (held != needed) {
    return absl::DataLossError(absl::StrCat(path, ": holds ", held,
                                            " numbers; signature.vocab_size, signature.labels, "
                                            "signature.max_length and model in ",
                                            kManifestFile, " need ", needed));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Model> model, MakeModel(shape, 0));
  const absl::Status status = SetParameters(weights, model.get());
  if (!status.ok()) return AsDataLoss(status, path);
  try {
    model->Freeze();
  } catch (const c10::Error& error) {
    return absl::ResourceExhaustedError(absl::StrCat(path, ": ", error.what_without_backtrace()));
  }
  return model;
}

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::string& folder, const v1::PackageManifest& manifest,
                                                 at::Device device, std::function<void()> restarted) {
  const std::vector<std::string> outputs(manifest.outputs().begin(), manifest.outputs().end());
  switch (manifest.backend()) {
    case v1::PackageManifest::BACKEND_NATIVE:
      return LoadNative(folder, manifest);
    case v1::PackageManifest::BACKEND_TORCHSCRIPT:
      return LoadScriptModel(absl::StrCat(folder, "/", kScriptFile), ShapeOf(manifest));
    case v1::PackageManifest::BACKEND_AOT_INDUCTOR:
      return LoadAotModel(absl::StrCat(folder, "/", kAotFile), outputs, ShapeOf(manifest));
    case v1::PackageManifest::BACKEND_PYTHON:
      return StartPythonModel(folder, manifest, ShapeOf(manifest), device, std::move(restarted));
    case v1::PackageManifest::BACKEND_OPEN_INFERENCE:
      return ConnectUpstreamModel(folder, manifest, ShapeOf(manifest));
    default:
      return absl::InvalidArgumentError(absl::StrCat(folder, "/", kManifestFile, ": backend: is not known"));
  }
}

// Ids of another tokeniser are other words.
absl::Status CheckSameTokenizer(const Package& package, const std::string& tokenizer_file) {
  if (package.tokenizer_file.empty() && tokenizer_file.empty()) return absl::OkStatus();
  if (package.tokenizer_file.empty() || tokenizer_file.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("package '", package.info.name, "' reads ",
                                                   tokenizer_file.empty() ? "text, the run ids" : "ids, the run text"));
  }
  ASSIGN_OR_RETURN(const std::string theirs, Sha256File(package.tokenizer_file));
  ASSIGN_OR_RETURN(const std::string ours, Sha256File(tokenizer_file));
  if (theirs == ours) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the weights belong to another tokeniser than the run's; write "
                   "tokenizer: {path: ",
                   package.tokenizer_file, "}"));
}

// Of a native model; without dtype and number of parameters.
v1::PackageManifest::Architecture ArchitectureOf(const ModelShape& shape) {
  v1::PackageManifest::Architecture architecture;
  architecture.set_kind(shape.spec.kind());
  architecture.set_width(shape.spec.width());
  if (shape.spec.kind() == v1::Model::KIND_TRANSFORMER) {
    architecture.set_layers(shape.spec.layers());
    architecture.set_heads(shape.spec.heads());
    architecture.set_feed_forward(static_cast<int32_t>(FeedForwardWidth(shape.spec)));
  } else {
    architecture.set_hidden_layers(shape.spec.hidden_layers());
  }
  return architecture;
}

absl::Status CheckSameArchitecture(const v1::PackageManifest::Architecture& theirs,
                                   const v1::PackageManifest::Architecture& ours) {
  if (theirs.kind() != ours.kind()) {
    return absl::InvalidArgumentError("model.kind: is another than that of the model that is to start from it");
  }
  const std::tuple<const char*, int64_t, int64_t> keys[] = {
      {"width", theirs.width(), ours.width()},
      {"layers", theirs.layers(), ours.layers()},
      {"heads", theirs.heads(), ours.heads()},
      {"feed_forward", theirs.feed_forward(), ours.feed_forward()},
      {"hidden_layers", theirs.hidden_layers(), ours.hidden_layers()},
  };
  for (const auto& [key, is, wanted] : keys) {
    if (is == wanted) continue;
    return absl::InvalidArgumentError(absl::StrCat("model.", key, ": is ", is, ", not ", wanted));
  }
  return absl::OkStatus();
}

v1::PackageManifest ManifestOf(const std::string& name, const Model& model, const ModelShape& shape,
                               const v1::Signature& signature) {
  v1::PackageManifest manifest;
  manifest.set_format(kPackageFormat);
  manifest.set_name(name);
  *manifest.mutable_signature() = signature;
  const bool script = shape.spec.kind() == v1::Model::KIND_TORCHSCRIPT;
  manifest.set_backend(script ? v1::PackageManifest::BACKEND_TORCHSCRIPT : v1::PackageManifest::BACKEND_NATIVE);
  if (script) return manifest;  // its parameters that were not trained count when it is loaded
  v1::PackageManifest::Architecture& architecture = *manifest.mutable_model();
  architecture = ArchitectureOf(shape);
  architecture.set_dtype(shape.dtype);
  architecture.set_parameters(ParameterCount(model.NamedParameters()));
  return manifest;
}

absl::Status WriteListed(const std::string& folder, const char* name, const std::string& content,
                         v1::PackageManifest* manifest) {
  *manifest->add_files() = checkpoint::DigestOf(name, content);
  return WriteFileAtomically(absl::StrCat(folder, "/", name), content);
}

absl::Status WritePackage(const std::string& folder, const Model& model, const std::string& tokenizer_file,
                          v1::PackageManifest manifest) {
  if (manifest.backend() == v1::PackageManifest::BACKEND_TORCHSCRIPT) {
    ASSIGN_OR_RETURN(const std::string module, ScriptModelBytes(model));
    RETURN_IF_ERROR(WriteListed(folder, kScriptFile, module, &manifest));
  } else {
    ASSIGN_OR_RETURN(const std::string weights, checkpoint::FormatSafetensors(model.NamedParameters()));
    RETURN_IF_ERROR(WriteListed(folder, kWeightsFile, weights, &manifest));
  }
  if (!tokenizer_file.empty()) {
    ASSIGN_OR_RETURN(const std::string tokenizer, ReadFile(tokenizer_file));
    RETURN_IF_ERROR(WriteListed(folder, TokenizerFileName(tokenizer).c_str(), tokenizer, &manifest));
  }
  return WriteFileAtomically(absl::StrCat(folder, "/", kManifestFile), WriteYaml(manifest));
}

absl::StatusOr<PackageInfo> InfoOf(const std::string& folder, const v1::PackageManifest& manifest, const Model& model) {
  PackageInfo info;
  info.name = manifest.name();
  info.signature = manifest.signature();
  // Compiled code and other processes show none of theirs.
  const bool shown = manifest.backend() == v1::PackageManifest::BACKEND_NATIVE ||
                     manifest.backend() == v1::PackageManifest::BACKEND_TORCHSCRIPT;
  info.parameters = shown ? ParameterCount(model.NamedParameters()) : manifest.model().parameters();
  ASSIGN_OR_RETURN(info.digest, PackageDigest(folder));
  return info;
}

}  // namespace

absl::StatusOr<Package> LoadPackage(const std::string& folder, at::Device device, std::function<void()> restarted) {
  Package package;
  ASSIGN_OR_RETURN(package.manifest, ReadPackageManifest(folder));
  const v1::PackageManifest& manifest = package.manifest;
  ASSIGN_OR_RETURN(package.model, LoadModel(folder, manifest, device, std::move(restarted)));
  ASSIGN_OR_RETURN(package.info, InfoOf(folder, manifest, *package.model));
  const std::string yaml = absl::StrCat(folder, "/", kManifestFile);
  if (manifest.model().parameters() != 0 && manifest.model().parameters() != package.info.parameters) {
    return absl::InvalidArgumentError(absl::StrCat(yaml, ": model.parameters: is ", manifest.model().parameters(),
                                                   ", the weights hold ", package.info.parameters));
  }
  if (manifest.signature().input() == v1::Signature::INPUT_TEXT) {
    absl::StatusOr<std::string> file = FindTokenizerFile(folder);
    if (!file.ok()) return Annotate(file.status(), absl::StrCat(yaml, ": signature.input: text needs a tokeniser"));
    package.tokenizer_file = *std::move(file);
  }
  return package;
}

absl::Status TakeInitialWeights(const ModelShape& shape, const std::string& tokenizer_file, Model* model) {
  const std::string& folder = shape.spec.initial();
  ASSIGN_OR_RETURN(const Package package, LoadPackage(folder));
  RETURN_IF_ERROR(CheckSameTokenizer(package, tokenizer_file));
  RETURN_IF_ERROR(Annotate(CheckSameArchitecture(package.manifest.model(), ArchitectureOf(shape)), folder));
  const checkpoint::NamedTensors given = package.model->NamedParameters();
  checkpoint::NamedTensors values = model->NamedParameters();
  for (auto& [name, value] : values) {
    if (IsOfHead(name)) continue;
    const auto found = std::find_if(given.begin(), given.end(), [&](const auto& named) { return named.first == name; });
    if (found == given.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(folder, ": has no tensor '", name, "', which the model that is to start from it needs"));
    }
    // Positions that the model's own texts never reach are left behind.
    const bool longer = name == "position.weight" && found->second.size(0) > value.size(0);
    value = longer ? found->second.narrow(0, 0, value.size(0)) : found->second;
  }
  return Annotate(SetParameters(values, model), folder);
}

absl::StatusOr<PackageInfo> SavePackage(const std::string& folder, const std::string& name, const Model& model,
                                        const ModelShape& shape, const v1::Signature& signature,
                                        const std::string& tokenizer_file) {
  const v1::PackageManifest manifest = ManifestOf(name, model, shape, signature);
  RETURN_IF_ERROR(checkpoint::PublishFolder(folder, [&](const std::string& temporary) -> absl::Status {
    return WritePackage(temporary, model, tokenizer_file, manifest);
  }));
  return InfoOf(folder, manifest, model);
}

}  // namespace polystill::models
