#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "polystill/v1/run.pb.h"

namespace polystill::evaluation {

// Metrics, all as scikit-learn defines them, with zero_division=0. Macro means are unweighted over the classes that
// occur in gold or prediction; with task multi_label over all labels, and a record is right when all its labels are.
// https://scikit-learn.org/stable/modules/model_evaluation.html#classification-metrics
enum class Metric {
  kAccuracy,        // share of the records (or tokens) whose class was predicted
  kMacroF1,         // mean over classes of 2 TP / (2 TP + FP + FN)
  kMicroF1,         // the same of all classes' counts together; with one class a record the accuracy
  kMacroPrecision,  // mean over classes of TP / (TP + FP)
  kMacroRecall,     // mean over classes of TP / (TP + FN)
  kTopK,            // share of the records whose class is among the k likeliest
  kMicroPrecision,  // TP / (TP + FP) of all classes' counts together
  kMicroRecall,     // TP / (TP + FN) of them
  kPerplexity,      // exp of the mean of - log of what the model gives the token that stood there; less is better
};
inline constexpr std::array kMetrics = {Metric::kAccuracy,       Metric::kMacroF1,        Metric::kMicroF1,
                                        Metric::kTopK,           Metric::kMacroPrecision, Metric::kMacroRecall,
                                        Metric::kMicroPrecision, Metric::kMicroRecall,    Metric::kPerplexity};

// Those of kMetrics that tell something of a task: no top_k of two classes or of labels that each hold or not, of the
// micro means only multi_label's differ from each other, and masked_lm has accuracy, top_k and perplexity.
bool HasMetric(v1::Task task, Metric metric);

// As in report.json and the run file: "macro_f1".
const char* MetricName(Metric metric);

struct ClassScores {
  double precision = 0;
  double recall = 0;
  double f1 = 0;
  // Records of this gold class.
  int64_t support = 0;
};

// What is not there: of a label that was predicted and does not hold, or holds and was not predicted; of neither.
inline constexpr int kNone = -1;

// Task masked_lm: the classes of a token's judgement.
inline constexpr int kRight = 0, kWrong = 1, kJudgements = 2;

// Counts of one model's predictions against the gold classes, from which its metrics follow. Its size depends on the
// number of classes alone. Not thread-safe.
class Confusion {
 public:
  explicit Confusion(int classes, v1::Task task = v1::TASK_CLASSIFICATION)
      : classes_(classes), many_(task == v1::TASK_MULTI_LABEL) {}

  // So many records of class `gold` that were predicted as `predicted`, both in [0, classes); of `hits` of them the
  // gold class is among the k likeliest.
  //
  // Task multi_label: kNone and kNone, so many records, of which `hits` are all right; besides, for each label that
  // holds or is predicted, the label or kNone in gold, and in predicted: so many records, hits counts for nothing.
  //
  // Task masked_lm: gold is kRight, predicted kRight or kWrong; `loss` is the sum of - log p of the tokens that stood
  // there.
  void Add(int gold, int predicted, int64_t records, int64_t hits, double loss = 0);

  int64_t records() const { return records_; }
  // NaN without records.
  double Value(Metric metric) const;
  // Unset for a class that occurs neither in gold nor in prediction, but for task multi_label's.
  std::optional<ClassScores> OfClass(int index) const;
  int classes() const { return static_cast<int>(classes_.size()); }

 private:
  struct Class {
    int64_t gold = 0;
    int64_t predicted = 0;
    int64_t both = 0;
  };
  static ClassScores ScoresOf(const Class& c);
  // Mean over the classes that occur.
  double Macro(double ClassScores::*score) const;
  // Of all classes' counts together.
  ClassScores Micro() const;

  std::vector<Class> classes_;
  bool many_;
  int64_t records_ = 0;
  int64_t hits_ = 0;
  double loss_ = 0;
};

// Index of the largest value, the first of equal ones; `values` is not empty.
int ArgMax(const std::vector<float>& values);

// How many values come before values[index]: the larger ones, and of equal ones the earlier. ArgMax has rank 0.
int RankOf(const std::vector<float>& values, int index);

// Whether a label of this probability is predicted: above 1/2, a logit above 0.
bool IsPredicted(float probability);

}  // namespace polystill::evaluation
