#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "models/inference_engine.h"
#include "models/model.h"
#include "models/open_inference.h"
#include "polystill/v1/package.pb.h"

namespace polystill::models {

// A model behind an engine, which is called as padded models are (padded_model.h), with an int64 mask. Asks the engine
// what it gives and tries one batch. `takes`: kPaddedRows of an engine that computes each batch as it comes and always
// the same, kAnyRows of one that does as it likes. Forward throws EngineUnavailable where asking again may succeed.
// INVALID_ARGUMENT when what it takes or gives does not fit `shape` (task, classes and max_length count), UNAVAILABLE,
// INTERNAL as the engine says.
absl::StatusOr<std::unique_ptr<Model>> MakeInferenceModel(std::unique_ptr<InferenceEngine> engine, ServedModel served,
                                                          const ModelShape& shape, Model::Takes takes);

// A package's model in Python processes of this program's, computing on `device`. `restarted`: PythonOptions.
absl::StatusOr<std::unique_ptr<Model>> StartPythonModel(const std::string& folder, const v1::PackageManifest& manifest,
                                                        const ModelShape& shape, at::Device device,
                                                        std::function<void()> restarted = {});

// A package's model at an upstream server.
absl::StatusOr<std::unique_ptr<Model>> ConnectUpstreamModel(const std::string& folder,
                                                            const v1::PackageManifest& manifest,
                                                            const ModelShape& shape);

}  // namespace polystill::models
