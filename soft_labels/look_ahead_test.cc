#include "soft_labels/look_ahead.h"

#include <gtest/gtest.h>

namespace polystill::soft_labels {
namespace {

TEST(LookAheadTest, AsManyStepsAsLabelsTake) {
  constexpr int64_t kMiB = 1 << 20;
  struct Case {
    StepTimes times;
    int steps;
  };
  const Case cases[] = {
      {{.label_seconds = 0.001, .step_seconds = 0.1}, 2},
      {{.label_seconds = 0.1, .step_seconds = 0.1}, 2},
      {{.label_seconds = 0.11, .step_seconds = 0.1}, 3},
      {{.label_seconds = 1, .step_seconds = 0.125}, 9},
      {{.label_seconds = 62, .step_seconds = 1}, 63},
      {{.label_seconds = 63, .step_seconds = 1}, 64},
      {{.label_seconds = 1e9, .step_seconds = 1e-9}, 64},
      {{.label_seconds = 1, .step_seconds = 0}, 64},
      {{.label_seconds = 0, .step_seconds = 0}, 64},
      {{.label_seconds = 0, .step_seconds = 1}, 2},
      // Memory.
      {{.label_seconds = 62, .step_seconds = 1, .label_bytes = 8 * kMiB}, 63},
      {{.label_seconds = 62, .step_seconds = 1, .label_bytes = 50 * kMiB}, 10},
      {{.label_seconds = 62, .step_seconds = 1, .label_bytes = 5'000 * kMiB}, 2},
      {{.label_seconds = 0.1, .step_seconds = 1, .label_bytes = 50 * kMiB}, 2},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(LookAheadFor(c.times), c.steps)
        << c.times.label_seconds << ' ' << c.times.step_seconds << ' ' << c.times.label_bytes;
  }
}

TEST(LookAheadTest, FollowsWhatIsMeasured) {
  LookAhead look_ahead(0);
  EXPECT_EQ(look_ahead.steps(), kFirstLookAhead);
  for (int i = 0; i < 3; ++i) {
    look_ahead.NoteLabels(2.0, 100);
    look_ahead.NoteStep(0.25);
    EXPECT_EQ(look_ahead.steps(), kFirstLookAhead);  // too little
  }
  look_ahead.NoteLabels(2.0, 100);
  look_ahead.NoteStep(0.25);
  EXPECT_EQ(look_ahead.steps(), 9);
  // One slow step of twenty is not what counts, two are.
  for (int i = 0; i < 64; ++i) look_ahead.NoteLabels(i % 32 == 0 ? 9.0 : 0.5, 100);
  EXPECT_EQ(look_ahead.steps(), 3);
  for (int i = 0; i < 64; ++i) look_ahead.NoteLabels(i % 10 == 0 ? 9.0 : 0.5, 100);
  EXPECT_EQ(look_ahead.steps(), 37);
  // A slower student needs less.
  for (int i = 0; i < 64; ++i) look_ahead.NoteStep(1.0);
  EXPECT_EQ(look_ahead.steps(), 10);
}

TEST(LookAheadTest, ANumberThatIsGivenStays) {
  LookAhead look_ahead(7);
  for (int i = 0; i < 20; ++i) {
    look_ahead.NoteLabels(100, 100);
    look_ahead.NoteStep(0.01);
  }
  EXPECT_EQ(look_ahead.steps(), 7);
}

TEST(LookAheadTest, WithoutLabelsItStaysAsItWas) {
  LookAhead look_ahead(0);
  for (int i = 0; i < 20; ++i) look_ahead.NoteStep(0.01);
  EXPECT_EQ(look_ahead.steps(), kFirstLookAhead);
}

}  // namespace
}  // namespace polystill::soft_labels
