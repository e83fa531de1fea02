#include "coordinator/kind_rules.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/nearest_name.h"
#include "runtime/yaml_proto.h"
#include "soft_labels/codec.h"

namespace polystill::coordinator {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::util::MessageDifferencer;

// Key -> the kinds that it goes with. Keys that are not in it go with every kind.
using KindsOfKeys = std::map<std::string, std::vector<int>>;

const KindsOfKeys& ModelKeys() {
  static const auto* const kKeys = new KindsOfKeys{
      {"width", {v1::Model::KIND_SUBWORD_BAG, v1::Model::KIND_TRANSFORMER}},
      {"hidden_layers", {v1::Model::KIND_SUBWORD_BAG}},
      {"layers", {v1::Model::KIND_TRANSFORMER}},
      {"heads", {v1::Model::KIND_TRANSFORMER}},
      {"feed_forward", {v1::Model::KIND_TRANSFORMER}},
      {"dropout", {v1::Model::KIND_TRANSFORMER}},
      {"path", {v1::Model::KIND_TORCHSCRIPT}},
      {"initial", {v1::Model::KIND_SUBWORD_BAG, v1::Model::KIND_TRANSFORMER}},
  };
  return *kKeys;
}

const KindsOfKeys& MixtureKeys() {
  static const auto* const kKeys = new KindsOfKeys{
      {"tau", {v1::Mixture::KIND_TEMPERATURE}},
      {"max_epochs", {v1::Mixture::KIND_UNIMAX}},
      {"weights", {v1::Mixture::KIND_WEIGHTS}},
  };
  return *kKeys;
}

const KindsOfKeys& LossKeys() {
  static const auto* const kKeys = new KindsOfKeys{
      {"temperature", {v1::LOSS_KIND_SOFT_LABEL, v1::LOSS_KIND_BINARY}},
      {"distance", {v1::LOSS_KIND_EMBEDDING, v1::LOSS_KIND_HIDDEN}},
      {"layers", {v1::LOSS_KIND_HIDDEN}},
  };
  return *kKeys;
}

// Of a loss, the keys that some codecs read alone.
const KindsOfKeys& CodecKeys() {
  static const auto* const kKeys = new KindsOfKeys{
      {"k", {v1::CODEC_TOP_K}},
      {"draws_per_token", {v1::CODEC_SAMPLED}},
      {"draws", {v1::CODEC_SAMPLED}},
  };
  return *kKeys;
}

bool HasDefault(const Message& message, const FieldDescriptor* field) {
  std::unique_ptr<Message> defaults(message.New());
  FillDefaults(defaults.get());
  MessageDifferencer differencer;
  return differencer.CompareWithFields(message, *defaults, {field}, {field});
}

// `which`: the key that says of which kind the message is, "kind" or another.
std::vector<Mistake> CheckKeys(const std::string& path, const Message& message, const KindsOfKeys& keys,
                               const std::string& which = "kind") {
  std::vector<Mistake> mistakes;
  const FieldDescriptor* kind = message.GetDescriptor()->FindFieldByName(which);
  const auto* kind_type = kind->enum_type();
  const int is = message.GetReflection()->GetEnumValue(message, kind);
  for (const auto& [key, kinds] : keys) {
    const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(key);
    const bool fits = std::find(kinds.begin(), kinds.end(), is) != kinds.end();
    if (fits || HasDefault(message, field)) continue;
    const std::string names = absl::StrJoin(kinds, " or ", [&](std::string* out, int kind) {
      absl::StrAppend(out, EnumName(kind_type->FindValueByNumber(kind)));
    });
    mistakes.push_back({absl::StrCat(path, ".", key), absl::StrCat("goes with ", which, ": ", names, " only")});
  }
  return mistakes;
}

std::vector<Mistake> CheckWeights(const std::string& path, const v1::Mixture& mixture,
                                  const std::vector<std::string>& targets) {
  if (mixture.weights().empty()) return {{path, "kind: weights needs weights; write a share for each language"}};
  std::vector<Mistake> mistakes;
  if (targets.empty()) return mistakes;
  for (const std::string& language : targets) {
    if (mixture.weights().contains(language)) continue;
    mistakes.push_back({path, absl::StrCat("has no share for '", language, "' of languages.targets")});
  }
  for (const auto& [language, weight] : mixture.weights()) {
    if (std::find(targets.begin(), targets.end(), language) != targets.end()) continue;
    mistakes.push_back({absl::StrCat(path, ".", language),
                        absl::StrCat("is none of languages.targets", Suggestion(language, targets))});
  }
  return mistakes;
}

}  // namespace

std::vector<Mistake> CheckModelKeys(const std::string& path, const v1::Model& model) {
  std::vector<Mistake> mistakes = CheckKeys(path, model, ModelKeys());
  if (model.kind() == v1::Model::KIND_TORCHSCRIPT && model.path().empty()) {
    mistakes.push_back({absl::StrCat(path, ".path"), "missing; write the file of the TorchScript module"});
  }
  if (model.kind() == v1::Model::KIND_TRANSFORMER && model.heads() > 0 && model.width() % model.heads() != 0) {
    mistakes.push_back({absl::StrCat(path, ".width"), absl::StrCat("must be a multiple of heads, which is ",
                                                                   model.heads(), "; got ", model.width())});
  }
  return mistakes;
}

std::vector<Mistake> CheckMixtureKeys(const std::string& path, const v1::Mixture& mixture,
                                      const std::vector<std::string>& targets) {
  std::vector<Mistake> mistakes = CheckKeys(path, mixture, MixtureKeys());
  if (mixture.kind() != v1::Mixture::KIND_WEIGHTS) return mistakes;
  for (Mistake& mistake : CheckWeights(absl::StrCat(path, ".weights"), mixture, targets)) {
    mistakes.push_back(std::move(mistake));
  }
  return mistakes;
}

std::vector<Mistake> CheckLossKeys(const std::string& path, const v1::Loss& loss) {
  std::vector<Mistake> mistakes = CheckKeys(path, loss, LossKeys());
  for (Mistake& mistake : CheckKeys(path, loss, CodecKeys(), "codec")) mistakes.push_back(std::move(mistake));
  if (const absl::Status serves = soft_labels::CheckServes(loss); !serves.ok()) {
    mistakes.push_back({absl::StrCat(path, ".codec"), std::string(serves.message())});
  }
  if (loss.kind() == v1::LOSS_KIND_HIDDEN && loss.layers().empty()) {
    mistakes.push_back({path,
                        "hidden needs layers; write which layer of the student follows which of the teacher, e.g. "
                        "layers: [{student: 1, teacher: 2}]"});
  }
  return mistakes;
}

std::vector<Mistake> CheckLayers(const std::string& path, const std::string& side, const v1::Loss& loss,
                                 const std::string& who, const v1::Model& model) {
  std::vector<Mistake> mistakes;
  if (model.kind() == v1::Model::KIND_TORCHSCRIPT) return mistakes;  // its module says which it has
  for (int i = 0; i < loss.layers_size(); ++i) {
    const int layer = side == "student" ? loss.layers(i).student() : loss.layers(i).teacher();
    const bool has_layers = model.kind() == v1::Model::KIND_TRANSFORMER;
    if (has_layers && layer <= model.layers()) continue;
    mistakes.push_back(
        {absl::StrCat(path, ".layers.", i, ".", side),
         has_layers ? absl::StrCat(who, " has no layer ", layer, "; it has 0, the embedding, to ", model.layers())
                    : absl::StrCat(who,
                                   " is a subword_bag, which has no layers; take a transformer, or the loss "
                                   "embedding")});
  }
  return mistakes;
}

}  // namespace polystill::coordinator
