#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/model.h"
#include "polystill/v1/package.pb.h"
#include "polystill/v1/teacher.pb.h"

namespace polystill::models {

// A model package: a folder from which any Polystill process can serve or evaluate a model.
//
//   teacher.yaml        name, signature, model (see docs/formats.md)
//   model.safetensors   weights of a native model, or
//   model.pt            a TorchScript module, or
//   model.pt2           a model that AOTInductor compiled: native code, so load only packages that you trust, or
//   NAME.py             Python that makes a model: likewise, or
//                       nothing: teacher.yaml names an inference server
//   tokenizer.model     SentencePiece model, or
//   tokenizer.json      a WordPiece tokeniser as HuggingFace writes it, when the signature's input is text
struct PackageInfo {
  std::string name;
  // Lower-case hex SHA-256 over name and content of every file of the package: of what
  // `find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum` prints in the folder.
  std::string digest;
  v1::Signature signature;
  // Number of trained numbers; of a model.pt2 or an engine's what teacher.yaml says, 0 when it says
  // nothing.
  int64_t parameters = 0;
};

// A package in memory.
struct Package {
  PackageInfo info;
  v1::PackageManifest manifest;
  std::unique_ptr<Model> model;
  // Path of the tokeniser's file; empty when the input is ids. That its ids are below signature.vocab_size is for
  // whoever opens it to check.
  std::string tokenizer_file;
};

// Errors name the file and the key: NOT_FOUND, INVALID_ARGUMENT (teacher.yaml), DATA_LOSS (torn weights, shapes that do
// not fit the signature, numbers that are not finite). A model in Python computes on `device` from the start
// (FAILED_PRECONDITION when it does not load); others are on the CPU until Model::MoveTo.
// `restarted` is called whenever a process of such a model is started again, by any thread.
absl::StatusOr<Package> LoadPackage(const std::string& folder, at::Device device = at::kCPU,
                                    std::function<void()> restarted = {});

// Gives the parameters of a native `model` of this shape, but for its head, the values that they have in the package of
// shape.spec.initial, which has the same architecture, at least the model's max_length, and the tokeniser
// `tokenizer_file` (empty with ids). NOT_FOUND, INVALID_ARGUMENT (names the key or the parameter that differs),
// DATA_LOSS; nothing is changed then.
absl::Status TakeInitialWeights(const ModelShape& shape, const std::string& tokenizer_file, Model* model);

// Writes a package, of a native model or a TorchScript module that LoadScriptStudent loaded; the folder appears whole
// or not at all (an older one of that name is replaced). `tokenizer_file`: copied into the package; empty for ids.
absl::StatusOr<PackageInfo> SavePackage(const std::string& folder, const std::string& name, const Model& model,
                                        const ModelShape& shape, const v1::Signature& signature,
                                        const std::string& tokenizer_file);

}  // namespace polystill::models
