#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/manifest.h"
#include "checkpoint/publish.h"
#include "runtime/deterministic_bytes.h"
#include "runtime/files.h"
#include "runtime/sha256.h"
#include "runtime/status.h"

namespace polystill::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr char kModelFile[] = "model.safetensors";
constexpr char kOptimizerFile[] = "optimizer.safetensors";
constexpr char kProjectionsFile[] = "projections.safetensors";
constexpr char kBestFile[] = "best.safetensors";
constexpr char kManifestFile[] = "MANIFEST.yaml";

absl::Status WriteTensors(const std::string& folder, const char* name, const NamedTensors& tensors,
                          v1::CheckpointManifest* manifest) {
  ASSIGN_OR_RETURN(const std::string content, FormatSafetensors(tensors));
  *manifest->add_files() = DigestOf(name, content);
  return WriteFileAtomically(absl::StrCat(folder, "/", name), content);
}

absl::StatusOr<NamedTensors> ReadTensors(const std::string& folder, const char* name,
                                         const v1::CheckpointManifest& manifest) {
  const std::string path = absl::StrCat(folder, "/", name);
  const auto entry = std::find_if(manifest.files().begin(), manifest.files().end(),
                                  [name](const v1::FileDigest& file) { return file.name() == name; });
  if (entry == manifest.files().end()) {
    return absl::DataLossError(absl::StrCat(path, ": the manifest does not list it"));
  }
  absl::StatusOr<std::string> content = ReadFile(path, INT64_MAX);
  if (!content.ok()) return absl::DataLossError(content.status().message());
  RETURN_IF_ERROR(CheckDigest(*entry, *content, path));
  return ParseSafetensors(*content, path);
}

// (generation, step) of the checkpoints in `folder`, the newest first.
std::vector<std::pair<int64_t, int64_t>> CheckpointsIn(const std::string& folder) {
  std::vector<std::pair<int64_t, int64_t>> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with('.')) continue;
    if (const auto parsed = ParseCheckpointName(name)) found.emplace_back(parsed->generation, parsed->step);
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

}  // namespace

NamedTensors TrainedOf(NamedTensors model, const NamedTensors& projections) {
  model.insert(model.end(), projections.begin(), projections.end());
  return model;
}

std::string StateDigest(const CheckpointState& state) {
  v1::CheckpointManifest shared;
  shared.set_step(state.step);
  *shared.mutable_counted() = state.counted;
  shared.mutable_counted()->clear_data_wait_seconds();
  if (state.early_stopping.has_value()) *shared.mutable_early_stopping() = *state.early_stopping;
  Sha256 digest;
  digest.Update(DeterministicBytes(shared));
  for (const NamedTensors* tensors : {&state.model, &state.projections, &state.optimizer, &state.best}) {
    for (const auto& [name, tensor] : *tensors) {
      const at::Tensor plain = tensor.detach().to(at::kCPU).contiguous();
      digest.Update(absl::StrCat(name, " ", plain.nbytes(), "\n"));
      digest.Update(std::string_view(static_cast<const char*>(plain.data_ptr()), plain.nbytes()));
    }
  }
  return digest.Hex();
}

absl::StatusOr<std::string> SaveCheckpoint(const std::string& folder, const CheckpointState& state) {
  std::string digest;
  const std::string path = CheckpointPath(folder, state.step, state.generation);
  RETURN_IF_ERROR(PublishFolder(path, [&](const std::string& temporary) -> absl::Status {
    v1::CheckpointManifest manifest;
    manifest.set_job(state.job);
    manifest.set_step(state.step);
    manifest.set_generation(state.generation);
    manifest.set_spec_digest(state.spec_digest);
    manifest.set_plan_digest(state.plan_digest);
    RETURN_IF_ERROR(WriteTensors(temporary, kModelFile, state.model, &manifest));
    RETURN_IF_ERROR(WriteTensors(temporary, kOptimizerFile, state.optimizer, &manifest));
    if (!state.projections.empty()) {
      RETURN_IF_ERROR(WriteTensors(temporary, kProjectionsFile, state.projections, &manifest));
    }
    *manifest.mutable_counted() = state.counted;
    if (state.early_stopping.has_value()) *manifest.mutable_early_stopping() = *state.early_stopping;
    if (!state.best.empty()) RETURN_IF_ERROR(WriteTensors(temporary, kBestFile, state.best, &manifest));
    const std::string yaml = FormatCheckpointManifest(manifest);
    digest = Sha256Hex(yaml);
    return WriteFileAtomically(absl::StrCat(temporary, "/", kManifestFile), yaml);
  }));
  return digest;
}

absl::StatusOr<CheckpointState> LoadCheckpoint(const std::string& path) {
  const std::string manifest_path = absl::StrCat(path, "/", kManifestFile);
  ASSIGN_OR_RETURN(const std::string yaml, ReadFile(manifest_path));
  ASSIGN_OR_RETURN(const v1::CheckpointManifest manifest, ParseCheckpointManifest(yaml, manifest_path));
  CheckpointState state;
  state.job = manifest.job();
  state.step = manifest.step();
  state.generation = manifest.generation();
  state.spec_digest = manifest.spec_digest();
  state.plan_digest = manifest.plan_digest();
  ASSIGN_OR_RETURN(state.model, ReadTensors(path, kModelFile, manifest));
  ASSIGN_OR_RETURN(state.optimizer, ReadTensors(path, kOptimizerFile, manifest));
  state.counted = manifest.counted();
  if (manifest.has_early_stopping()) state.early_stopping = manifest.early_stopping();
  const auto lists = [&manifest](const char* name) {
    return std::any_of(manifest.files().begin(), manifest.files().end(),
                       [name](const v1::FileDigest& file) { return file.name() == name; });
  };
  if (lists(kProjectionsFile)) {
    ASSIGN_OR_RETURN(state.projections, ReadTensors(path, kProjectionsFile, manifest));
  }
  if (lists(kBestFile)) {
    ASSIGN_OR_RETURN(state.best, ReadTensors(path, kBestFile, manifest));
  }
  return state;
}

LatestCheckpointResult LatestCheckpoint(const std::string& folder) {
  LatestCheckpointResult result;
  for (const auto& [generation, step] : CheckpointsIn(folder)) {
    const std::string path = CheckpointPath(folder, step, generation);
    absl::StatusOr<CheckpointState> state = LoadCheckpoint(path);
    if (state.ok()) {
      result.state = *std::move(state);
      result.path = path;
      break;
    }
    result.refused.push_back({path, state.status()});
  }
  return result;
}

}  // namespace polystill::checkpoint
