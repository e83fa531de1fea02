#pragma once

#include <cstdint>
#include <vector>

namespace polystill::coordinator {

// Which members of a generation are slower than the others: a pure function of what each says of itself. The time that
// a member waits for the others is not in it, since in lock step all of them take as long as the slowest.

// What a step costs a member by itself.
struct Pace {
  // Of its own work, without waiting for others.
  double own_seconds = 0;
  // Of its slice of the batch; slices differ by one record at most.
  int64_t records = 0;
};

// How many times as long each of them takes as the median of the others does: a step, or a record where that is less,
// so that nobody is slow for having one record more. At least two, all with own_seconds above 0. O(n log n).
std::vector<double> RatiosToOthers(const std::vector<Pace>& paces);

// Whether one member is slow, by looks at it a second apart. It is once it took more than kSlower times as long as the
// others at kLooks looks in a row, and is no more once it did not at as many; so one long step makes nobody slow. A
// look counts only when the member has applied a step since the last one: what is waited for together proves nothing.
class Slowness {
 public:
  static constexpr double kSlower = 1.5;
  static constexpr int kLooks = 10;

  // True when slow() has changed. `step`: that it has applied. `limit`: of which IsBeyond tells; 0: none.
  bool Look(int64_t step, double ratio, double limit);
  bool slow() const { return slow_; }
  // It has been beyond the limit at kLooks looks in a row.
  bool IsBeyond() const { return beyond_ >= kLooks; }
  // At the last look.
  double ratio() const { return ratio_; }
  // It is measured anew before it is beyond the limit: the others are others now.
  void MeasureAnew() { beyond_ = 0; }

 private:
  bool slow_ = false;
  double ratio_ = 0;
  int64_t step_ = -1;
  // Looks in a row that spoke against slow_, and at which it was beyond the limit.
  int against_ = 0;
  int beyond_ = 0;
};

}  // namespace polystill::coordinator
