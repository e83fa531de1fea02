#include "inference/predict_formats.h"

#include "absl/strings/str_split.h"

namespace polystill::inference {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

std::array<Json, kAddedColumns.size()> AddedValues(const Predictor& predictor, const Question& question,
                                                   const Prediction& prediction) {
  const bool lists = predictor.judges_words() || predictor.task() == v1::TASK_MULTI_LABEL;
  if (!lists) {
    const Judgement& judgement = prediction.front();
    const size_t label = judgement.labels.front();
    return {predictor.labels()[label], judgement.probabilities[label], judgement.probabilities};
  }
  std::array<Json, kAddedColumns.size()> values = {Json::array(), Json::array(), Json::array()};
  for (const Judgement& judgement : prediction) {
    for (const size_t label : judgement.labels) {
      values[0].push_back(predictor.labels()[label]);
      values[1].push_back(judgement.probabilities[label]);
    }
    values[2].push_back(judgement.probabilities);
  }
  if (!predictor.judges_words()) {
    values[2] = prediction.front().probabilities;
    return values;
  }
  for (size_t word = prediction.size(); word < question.words.size(); ++word) {
    for (Json& value : values) value.push_back(nullptr);
  }
  return values;
}

std::vector<std::string> SplitWords(const std::string& text) {
  return absl::StrSplit(text, absl::ByAnyChar(" \t\r\n\v\f"), absl::SkipEmpty());
}

}  // namespace polystill::inference
