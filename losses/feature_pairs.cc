#include "losses/feature_pairs.h"

#include "absl/strings/str_cat.h"
#include "models/outputs.h"

namespace polystill::losses {

std::vector<FeaturePair> FeaturePairsOf(const v1::Loss& loss, int place_in_list) {
  std::vector<FeaturePair> pairs;
  const auto add = [&](std::string student, std::string teacher) {
    const std::string projection = absl::StrCat("projection.", place_in_list, ".", pairs.size(), ".weight");
    pairs.push_back({std::move(student), std::move(teacher), projection});
  };
  if (loss.kind() == v1::LOSS_KIND_EMBEDDING) add(models::kEmbedding, models::kEmbedding);
  if (loss.kind() == v1::LOSS_KIND_HIDDEN) {
    for (const v1::Loss::Layers& pair : loss.layers()) {
      add(models::HiddenName(pair.student()), models::HiddenName(pair.teacher()));
    }
  }
  return pairs;
}

}  // namespace polystill::losses
