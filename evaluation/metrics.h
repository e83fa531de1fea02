#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace polystill::evaluation {

// Metrics of a classifier with one class a record; all as scikit-learn defines them, with zero_division=0. Macro means
// are unweighted over the classes that occur in gold or prediction.
// https://scikit-learn.org/stable/modules/model_evaluation.html#classification-metrics
enum class Metric {
  kAccuracy,        // share of the records whose class was predicted
  kMacroF1,         // mean over classes of 2 TP / (2 TP + FP + FN)
  kMicroF1,         // the same of all classes' counts together; with one class a record the accuracy
  kMacroPrecision,  // mean over classes of TP / (TP + FP)
  kMacroRecall,     // mean over classes of TP / (TP + FN)
  kTopK,            // share of the records whose class is among the k likeliest
};
inline constexpr std::array kMetrics = {Metric::kAccuracy, Metric::kMacroF1,        Metric::kMicroF1,
                                        Metric::kTopK,     Metric::kMacroPrecision, Metric::kMacroRecall};

// As in report.json and the run file: "macro_f1".
const char* MetricName(Metric metric);

struct ClassScores {
  double precision = 0;
  double recall = 0;
  double f1 = 0;
  // Records of this gold class.
  int64_t support = 0;
};

// Counts of one model's predictions against the gold classes, from which its metrics follow. Its size depends on the
// number of classes alone. Not thread-safe.
class Confusion {
 public:
  explicit Confusion(int classes) : classes_(classes) {}

  // So many records of class `gold` that were predicted as `predicted`, both in [0, classes); of `in_top_k` of them the
  // gold class is among the k likeliest.
  void Add(int gold, int predicted, int64_t records, int64_t in_top_k);

  int64_t records() const { return records_; }
  // NaN without records.
  double Value(Metric metric) const;
  // Unset for a class that occurs neither in gold nor in prediction.
  std::optional<ClassScores> OfClass(int index) const;
  int classes() const { return static_cast<int>(classes_.size()); }

 private:
  struct Class {
    int64_t gold = 0;
    int64_t predicted = 0;
    int64_t both = 0;
  };
  // Mean over the classes that occur.
  double Macro(double ClassScores::*score) const;

  std::vector<Class> classes_;
  int64_t records_ = 0;
  int64_t in_top_k_ = 0;
};

// Index of the largest value, the first of equal ones; `values` is not empty.
int ArgMax(const std::vector<float>& values);

// How many values come before values[index]: the larger ones, and of equal ones the earlier. ArgMax has rank 0.
int RankOf(const std::vector<float>& values, int index);

}  // namespace polystill::evaluation
