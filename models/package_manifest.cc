#include "models/package_manifest.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <set>
#include <system_error>
#include <vector>

#include "checkpoint/manifest.h"
#include "models/outputs.h"
#include "runtime/files.h"
#include "runtime/sha256.h"
#include "runtime/status.h"

namespace polystill::models {
namespace {

namespace fs = std::filesystem;

// What is wrong with the signature: "KEY: what to write"; empty when nothing is.
std::string SignatureMistake(const v1::Signature& signature, v1::PackageManifest::Backend backend) {
  if (signature.input() == v1::Signature::INPUT_UNSPECIFIED) return "signature.input: missing; write text or ids";
  if (signature.vocab_size() < 1) return "signature.vocab_size: must be at least 1, the number of token ids";
  if (signature.max_length() < 1) return "signature.max_length: must be at least 1 token";
  if (signature.task() == v1::TASK_MASKED_LM) {
    if (!signature.labels().empty()) return "signature.labels: goes with other tasks than masked_lm";
    if (signature.mask_id() < 0 || signature.mask_id() >= signature.vocab_size()) {
      return "signature.mask_id: must be the id that stands for a hidden token, below vocab_size";
    }
    return "";
  }
  if (!GivesLogits(signature)) {
    if (backend != v1::PackageManifest::BACKEND_NATIVE) return "";  // features alone
    return "signature.labels: missing; list the classes in the order of the logits";
  }
  if (signature.labels().empty()) {
    return "signature.labels: missing; list the classes in the order of the logits (none with task: classification, of "
           "a model that gives features alone)";
  }
  if (signature.task() == v1::TASK_BINARY && signature.labels_size() != 2) {
    return absl::StrCat("signature.labels: has ", signature.labels_size(), ", task: binary needs exactly 2");
  }
  if (signature.task() != v1::TASK_MULTI_LABEL && signature.labels_size() < 2) {
    return "signature.labels: has 1, from which nothing can be chosen; with task: multi_label it would hold or not";
  }
  std::set<std::string> seen;
  for (const std::string& label : signature.labels()) {
    if (label.empty()) return "signature.labels: a label is empty";
    if (!seen.insert(label).second) return absl::StrCat("signature.labels: '", label, "' stands twice");
  }
  return "";
}

// A key that goes with another backend or kind of model: "KEY: with what it goes"; empty when there is none.
std::string StrayKey(const v1::PackageManifest& manifest) {
  const v1::PackageManifest::Architecture& model = manifest.model();
  const bool native = manifest.backend() == v1::PackageManifest::BACKEND_NATIVE;
  const bool bag = native && model.kind() == v1::Model::KIND_SUBWORD_BAG;
  const bool transformer = native && model.kind() == v1::Model::KIND_TRANSFORMER;
  const struct {
    const char* key;
    bool is_set;
    bool fits;
    const char* with;
  } keys[] = {
      {"kind", model.kind() != v1::Model::KIND_UNSPECIFIED, native, "backend: native"},
      {"width", model.width() != 0, native, "backend: native"},
      {"dtype", model.dtype() != v1::Student::DTYPE_UNSPECIFIED, native, "backend: native"},
      {"hidden_layers", model.hidden_layers() != 0, bag, "kind: subword_bag"},
      {"layers", model.layers() != 0, transformer, "kind: transformer"},
      {"heads", model.heads() != 0, transformer, "kind: transformer"},
      {"feed_forward", model.feed_forward() != 0, transformer, "kind: transformer"},
  };
  for (const auto& [key, is_set, fits, with] : keys) {
    if (is_set && !fits) return absl::StrCat("model.", key, ": goes with ", with, " only");
  }
  return "";
}

// The names of the tensors that a .pt2 gives.
std::string OutputsMistake(const v1::PackageManifest& manifest) {
  const auto& outputs = manifest.outputs();
  if (manifest.backend() != v1::PackageManifest::BACKEND_AOT_INDUCTOR) {
    return outputs.empty() ? "" : "outputs: goes with backend: aot_inductor only";
  }
  if (outputs.empty()) {
    return absl::StrCat("outputs: missing; name the tensors that ", kAotFile,
                        " answers with, in their order, such as [logits, embedding]");
  }
  std::set<std::string> seen;
  for (const std::string& name : outputs) {
    if (!IsOutputName(name)) {
      return absl::StrCat("outputs: '", name, "' is none; write logits, embedding, hidden.0, hidden.1 ...");
    }
    if (!seen.insert(name).second) return absl::StrCat("outputs: '", name, "' stands twice");
  }
  if (seen.contains(kLogits) == GivesLogits(manifest.signature())) return "";
  return seen.contains(kLogits) ? "outputs: has logits; then signature.labels must list their classes"
                                : "outputs: has no logits, which signature promises; leave signature.labels empty";
}

// A file name of Python, which is a module's too.
bool IsIdentifier(const std::string& name) {
  const auto fits = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  return !name.empty() && std::all_of(name.begin(), name.end(), fits) &&
         !std::isdigit(static_cast<unsigned char>(name[0]));
}

// What is said of a model that is in another process.
std::string EngineMistake(const v1::PackageManifest& manifest) {
  const bool python = manifest.backend() == v1::PackageManifest::BACKEND_PYTHON;
  const bool upstream = manifest.backend() == v1::PackageManifest::BACKEND_OPEN_INFERENCE;
  if (manifest.has_python() && !python) return "python: goes with backend: python only";
  if (manifest.has_upstream() && !upstream) return "upstream: goes with backend: open_inference only";
  if (python && !manifest.has_python())
    return "python: missing; write {module: NAME}, of a file NAME.py in the package";
  if (upstream && !manifest.has_upstream()) return "upstream: missing; write {address: HOST:PORT, model: NAME}";
  if (python && !IsIdentifier(manifest.python().module())) {
    return absl::StrCat("python.module: '", manifest.python().module(),
                        "' is no module's name; write that of a file NAME.py in the package, without .py");
  }
  for (const auto& [ours, theirs] : manifest.upstream().outputs()) {
    if (!IsOutputName(ours)) {
      return absl::StrCat("upstream.outputs.", ours, ": is none; write logits, embedding, hidden.0, hidden.1 ...");
    }
    if (theirs.empty()) return absl::StrCat("upstream.outputs.", ours, ": is empty; write the output's name there");
  }
  return "";
}

std::string ManifestMistake(const v1::PackageManifest& manifest) {
  if (manifest.name().empty()) return "name: is empty";
  std::string mistake = SignatureMistake(manifest.signature(), manifest.backend());
  if (mistake.empty()) mistake = OutputsMistake(manifest);
  if (mistake.empty()) mistake = EngineMistake(manifest);
  if (!mistake.empty()) return mistake;
  const bool native = manifest.backend() == v1::PackageManifest::BACKEND_NATIVE;
  const v1::PackageManifest::Architecture& model = manifest.model();
  if (native && model.kind() == v1::Model::KIND_UNSPECIFIED) {
    return "model.kind: missing; write subword_bag or transformer";
  }
  if (std::string stray = StrayKey(manifest); !stray.empty()) return stray;
  if (!native) return "";
  if (model.width() < 1) return "model.width: missing; write the width of the embedding";
  if (model.kind() == v1::Model::KIND_TRANSFORMER) {
    if (model.layers() < 1) return "model.layers: missing; write the number of blocks";
    if (model.heads() < 1) return "model.heads: missing; write the number of attention heads";
  }
  if (model.dtype() == v1::Student::DTYPE_UNSPECIFIED) return "model.dtype: missing; write float32 or float64";
  return "";
}

absl::Status CheckFiles(const std::string& folder, const v1::PackageManifest& manifest) {
  for (const v1::FileDigest& file : manifest.files()) {
    if (file.name() != fs::path(file.name()).filename()) {
      return absl::InvalidArgumentError(absl::StrCat(folder, "/", kManifestFile, ": files: '", file.name(),
                                                     "' is not the name of a file in the same folder"));
    }
    const std::string path = absl::StrCat(folder, "/", file.name());
    absl::StatusOr<std::string> content = ReadFile(path, INT64_MAX);
    if (!content.ok()) return absl::DataLossError(content.status().message());
    RETURN_IF_ERROR(checkpoint::CheckDigest(file, *content, path));
  }
  return absl::OkStatus();
}

// Every file below `folder`, relative to it, sorted by bytes.
absl::StatusOr<std::vector<std::string>> FilesBelow(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    if (entry->is_directory()) continue;
    if (!entry->is_regular_file()) {
      return absl::InvalidArgumentError(absl::StrCat(entry->path().string(), ": is neither a file nor a folder"));
    }
    names.push_back(entry->path().lexically_relative(folder).string());
  }
  if (error) return FileError(error.value(), folder, "list");
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

absl::StatusOr<v1::PackageManifest> ReadPackageManifest(const std::string& folder) {
  const std::string path = absl::StrCat(folder, "/", kManifestFile);
  ASSIGN_OR_RETURN(const std::string yaml, ReadFile(path));
  v1::PackageManifest manifest;
  RETURN_IF_ERROR(checkpoint::ReadManifest(yaml, path, kPackageFormat, &manifest));
  const std::string mistake = ManifestMistake(manifest);
  if (!mistake.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", mistake));
  RETURN_IF_ERROR(CheckFiles(folder, manifest));
  const std::string module = absl::StrCat(manifest.python().module(), ".py");
  if (manifest.has_python() && !fs::is_regular_file(fs::path(folder) / module)) {
    return absl::NotFoundError(absl::StrCat(path, ": python.module: the package has no file ", module));
  }
  return manifest;
}

absl::StatusOr<std::string> PackageDigest(const std::string& folder) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, FilesBelow(folder));
  Sha256 digest;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const std::string content_digest, Sha256File(absl::StrCat(folder, "/", name)));
    digest.Update(absl::StrCat(content_digest, "  ", name, "\n"));
  }
  return digest.Hex();
}

}  // namespace polystill::models
