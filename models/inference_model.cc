#include "models/inference_model.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "models/package_manifest.h"
#include "models/padded_model.h"
#include "models/python_engine.h"
#include "runtime/status.h"

namespace polystill::models {
namespace {

class InferenceModel final : public PaddedModel {
 public:
  InferenceModel(std::unique_ptr<InferenceEngine> engine, ServedModel served, std::vector<std::string> given,
                 const ModelShape& shape, Takes takes)
      : PaddedModel(shape),
        engine_(std::move(engine)),
        served_(std::move(served)),
        given_(std::move(given)),
        classes_(shape.classes),
        takes_(takes) {}

  checkpoint::NamedTensors NamedParameters() const override { return {}; }
  Takes takes() const override { return takes_; }
  // Logits of tokens come whole: few of them at once.
  at::DeviceType sized_for() const override {
    if (judges_tokens()) return at::kCPU;
    return takes_ == Takes::kAnyRows ? at::kCUDA : device().type();
  }

 private:
  Answer Run(const TokenBatch& batch, const PaddedBatch& padded) const override {
    const std::vector<std::string> wanted = WantedOf(batch);
    const auto response = engine_->Infer(InferRequestOf(served_, wanted, padded));
    if (absl::IsUnavailable(response.status())) throw EngineUnavailable(std::string(response.status().message()));
    TORCH_CHECK(response.ok(), response.status().message());
    std::vector<ExpectedOutput> expected;
    for (const std::string& name : wanted) expected.push_back({NameThere(name), ShapeOf(name, padded)});
    const auto outputs = OutputsOf(*response, expected);
    TORCH_CHECK(outputs.ok(), outputs.status().message());
    Answer answer;
    for (size_t i = 0; i < wanted.size(); ++i) {
      (wanted[i] == kLogits ? answer.logits : answer.features[wanted[i]]) = (*outputs)[i];
    }
    return answer;
  }

  // Everything in the trial, from which the features' widths become known.
  std::vector<std::string> WantedOf(const TokenBatch& batch) const {
    if (feature_widths().empty()) return given_;
    std::vector<std::string> wanted = batch.features;
    if (classes_ > 0) wanted.push_back(kLogits);
    return wanted;
  }

  std::string NameThere(const std::string& name) const {
    const auto named = served_.outputs.find(name);
    return named == served_.outputs.end() ? name : named->second;
  }

  std::vector<int64_t> ShapeOf(const std::string& name, const PaddedBatch& padded) const {
    const bool of_tokens = name == kLogits ? judges_tokens() : IsOfTokens(name);
    std::vector<int64_t> shape = padded.ids.sizes().slice(0, of_tokens ? 2 : 1).vec();
    const auto width = feature_widths().find(name);
    const int64_t any = name == kLogits && classes_ > 0 ? classes_ : -1;
    shape.push_back(width == feature_widths().end() ? any : width->second);
    return shape;
  }

  const std::unique_ptr<InferenceEngine> engine_;
  const ServedModel served_;
  const std::vector<std::string> given_;
  const int64_t classes_;
  const Takes takes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> MakeInferenceModel(std::unique_ptr<InferenceEngine> engine, ServedModel served,
                                                          const ModelShape& shape, Model::Takes takes) {
  ASSIGN_OR_RETURN(const inference::ModelMetadataResponse metadata, engine->Metadata());
  ASSIGN_OR_RETURN(std::vector<std::string> given, OutputsGiven(metadata, served));
  auto model = std::make_unique<InferenceModel>(std::move(engine), std::move(served), std::move(given), shape, takes);
  const Rows rows = {{0}, std::vector<int32_t>(static_cast<size_t>(std::min<int64_t>(shape.max_length, 2)), 0)};
  try {
    RETURN_IF_ERROR(model->Try(rows));
  } catch (const EngineUnavailable& error) {
    return absl::UnavailableError(error.what_without_backtrace());
  } catch (const c10::Error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model fails on a first batch: ", error.what_without_backtrace()));
  }
  return model;
}

absl::StatusOr<std::unique_ptr<Model>> StartPythonModel(const std::string& folder, const v1::PackageManifest& manifest,
                                                        const ModelShape& shape, at::Device device,
                                                        std::function<void()> restarted) {
  const v1::PackageManifest::Python& python = manifest.python();
  auto engine = StartPythonEngine({.folder = folder,
                                   .device = device.str(),
                                   .interpreter = python.interpreter(),
                                   .processes = python.processes(),
                                   .start = std::chrono::seconds(python.start_seconds()),
                                   .answer = std::chrono::seconds(python.answer_seconds()),
                                   .restarted = std::move(restarted)});
  if (!engine.ok()) return Annotate(engine.status(), folder);
  auto model = MakeInferenceModel(*std::move(engine), {.name = manifest.name()}, shape, Model::Takes::kPaddedRows);
  if (!model.ok()) return Annotate(model.status(), absl::StrCat(folder, "/", python.module(), ".py"));
  return model;
}

absl::StatusOr<std::unique_ptr<Model>> ConnectUpstreamModel(const std::string& folder,
                                                            const v1::PackageManifest& manifest,
                                                            const ModelShape& shape) {
  const v1::PackageManifest::Upstream& upstream = manifest.upstream();
  ServedModel served{
      .name = upstream.model(), .version = upstream.version(), .ids = upstream.ids(), .mask = upstream.mask()};
  for (const auto& [ours, theirs] : upstream.outputs()) served.outputs[ours] = theirs;
  const auto timeout = std::chrono::seconds(upstream.answer_seconds());
  auto model = MakeInferenceModel(MakeUpstreamEngine(upstream.address(), upstream.model(), upstream.version(), timeout),
                                  std::move(served), shape, Model::Takes::kAnyRows);
  if (!model.ok()) return Annotate(model.status(), absl::StrCat(folder, "/", kManifestFile));
  return model;
}

}  // namespace polystill::models
