#pragma once

#include <cstdint>
#include <vector>

namespace polystill::evaluation {

// Counts of one model's predictions against the gold classes, from which its metrics follow. Its size depends on the
// number of classes alone. Not thread-safe.
class Confusion {
 public:
  explicit Confusion(int classes) : classes_(classes) {}

  // Both in [0, classes).
  void Add(int gold, int predicted);

  int64_t records() const { return records_; }
  // Share of the records whose class was predicted; NaN without records.
  double Accuracy() const;
  // Unweighted mean of F1 = 2 TP / (2 TP + FP + FN) over the classes that occur in gold or prediction, as
  // scikit-learn's f1_score(average="macro", zero_division=0) without `labels`; NaN without records.
  // https://scikit-learn.org/stable/modules/generated/sklearn.metrics.f1_score.html
  double MacroF1() const;

 private:
  struct Class {
    int64_t gold = 0;
    int64_t predicted = 0;
    int64_t both = 0;
  };
  std::vector<Class> classes_;
  int64_t records_ = 0;
};

// Index of the largest value, the first of equal ones; `values` is not empty.
int ArgMax(const std::vector<float>& values);

}  // namespace polystill::evaluation
