#include "inference/torchscript_export.h"

#include "absl/strings/str_cat.h"
#include "models/package.h"
#include "models/package_manifest.h"
#include "models/script_model.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::inference {
namespace {

// "self.NAME_weight, self.NAME_bias".
std::string WeightAndBias(const std::string& name) {
  const std::string attribute = absl::StrCat("self.", models::ScriptAttribute(name));
  return absl::StrCat(attribute, "_weight, ", attribute, "_bias");
}

std::string Linear(const std::string& name, const std::string& x) {
  return absl::StrCat("torch.linear(", x, ", ", WeightAndBias(name), ")");
}

std::string LayerNorm(const std::string& name, const std::string& x) {
  return absl::StrCat("torch.layer_norm(", x, ", [", x, ".size(-1)], ", WeightAndBias(name), ", 1e-05)");
}

constexpr char kSignature[] = "def forward(self, ids: Tensor, mask: Tensor) -> Tensor:\n";

// The mean over the tokens that the mask keeps; 0 without any.
constexpr char kMean[] =
    "  keep = mask.unsqueeze(2).to(x.dtype)\n"
    "  x = (x * keep).sum(1) / keep.sum(1).clamp_min(1)\n";

// models/subword_bag.h as a script.
std::string BagScript(const v1::PackageManifest::Architecture& model) {
  std::string script = absl::StrCat(kSignature, "  x = torch.embedding(self.embedding_weight, ids)\n", kMean,
                                    "  x = ", LayerNorm("norm", "x"), "\n");
  for (int i = 0; i < model.hidden_layers(); ++i) {
    absl::StrAppend(&script, "  x = torch.gelu(", Linear(absl::StrCat("hidden.", i), "x"), ")\n");
  }
  return absl::StrCat(script, "  return ", Linear("head", "x"), "\n");
}

// From x [rows, length, width] after the last norm to the logits.
std::string HeadScript(v1::Task task) {
  if (task == v1::TASK_MASKED_LM) {
    return absl::StrCat("  x = torch.gelu(", Linear("transform", "x"), ")\n",
                        "  x = ", LayerNorm("transform_norm", "x"), "\n",
                        "  return torch.linear(x, self.embedding_weight, self.head_bias)\n");
  }
  return absl::StrCat(models::JudgesTokens(task) ? "" : kMean, "  return ", Linear("head", "x"), "\n");
}

// models/transformer.h as a script; logits of tokens are given of every token, whatever they are after a row's end.
std::string TransformerScript(const v1::PackageManifest::Architecture& model, v1::Task task) {
  std::string script =
      absl::StrCat(kSignature,
                   "  x = torch.embedding(self.embedding_weight, ids) + self.position_weight[:ids.size(1)]\n"
                   "  attended = mask.logical_or(mask.any(1, True).logical_not()).unsqueeze(1).unsqueeze(1)\n");
  for (int i = 0; i < model.layers(); ++i) {
    const std::string layer = absl::StrCat("layer.", i, ".");
    absl::StrAppend(&script, "  h = ", LayerNorm(layer + "attention_norm", "x"), "\n",
                    "  qkv = ", Linear(layer + "attention.qkv", "h"), ".view([x.size(0), x.size(1), 3, ", model.heads(),
                    ", ", model.width() / model.heads(), "]).permute([2, 0, 3, 1, 4])\n",
                    "  h = torch.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attended)\n",
                    "  h = h.transpose(1, 2).reshape([x.size(0), x.size(1), ", model.width(), "])\n", "  x = x + ",
                    Linear(layer + "attention.output", "h"), "\n",
                    "  h = ", LayerNorm(layer + "feed_forward_norm", "x"), "\n", "  h = torch.gelu(",
                    Linear(layer + "feed_forward.inner", "h"), ")\n", "  x = x + ",
                    Linear(layer + "feed_forward.outer", "h"), "\n");
  }
  return absl::StrCat(script, "  x = ", LayerNorm("norm", "x"), "\n", HeadScript(task));
}

}  // namespace

absl::Status ExportTorchScript(const std::string& folder, const std::string& path) {
  ASSIGN_OR_RETURN(const models::Package package, models::LoadPackage(folder));
  const v1::PackageManifest& manifest = package.manifest;
  if (manifest.backend() == v1::PackageManifest::BACKEND_AOT_INDUCTOR) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder, ": ", models::kAotFile,
                     " is compiled code, which cannot become a TorchScript module; export "
                     "the module that it was compiled from"));
  }
  if (manifest.backend() == v1::PackageManifest::BACKEND_PYTHON ||
      manifest.backend() == v1::PackageManifest::BACKEND_OPEN_INFERENCE) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder, ": its model is in another process, which cannot become a TorchScript module"));
  }
  if (manifest.backend() == v1::PackageManifest::BACKEND_TORCHSCRIPT) {
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(absl::StrCat(folder, "/", models::kScriptFile)));
    return WriteFileAtomically(path, bytes);
  }
  const v1::Task task = manifest.signature().task();
  const bool transformer = manifest.model().kind() == v1::Model::KIND_TRANSFORMER;
  const std::string script = transformer ? TransformerScript(manifest.model(), task) : BagScript(manifest.model());
  ASSIGN_OR_RETURN(const std::string bytes, models::ScriptBytes(package.model->NamedParameters(), script));
  return WriteFileAtomically(path, bytes);
}

}  // namespace polystill::inference
