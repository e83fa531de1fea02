#include "cli/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cli/text.h"

namespace polystill::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

v1::RunStatus::Stage Training() {
  v1::RunStatus::Stage stage;
  stage.set_name("distilled");
  stage.set_done(600);
  stage.set_total(2400);
  stage.set_records(38400);
  stage.set_seconds(12);
  stage.set_loss(0.41236);
  return stage;
}

TEST(Text, Numbers) {
  const std::pair<int64_t, std::string> cases[] = {
      {0, "0"}, {999, "999"}, {1000, "1,000"}, {1234567, "1,234,567"}, {-100, "-100"}, {-123456, "-123,456"}};
  for (const auto& [number, text] : cases) EXPECT_EQ(WithThousands(number), text);
}

TEST(Text, Durations) {
  const std::pair<double, std::string> cases[] = {{0, "0 s"},           {59.4, "59 s"}, {185, "3 min 05 s"},
                                                  {7800, "2 h 10 min"}, {-1, "0 s"},    {INFINITY, "277777 h 46 min"}};
  for (const auto& [seconds, text] : cases) EXPECT_EQ(Duration(seconds), text);
}

TEST(RunningLine, ShowsBarRateLossAndTimeLeft) {
  EXPECT_EQ(
      RunningLine(Training(), 12, 120),
      "distilled         [######------------------]  25%  600/2,400 steps  3,200 records/s  loss 0.4124  36 s left");
}

TEST(RunningLine, NeverIsWiderThanTheTerminal) {
  for (int width = 0; width < 130; ++width) EXPECT_LE(RunningLine(Training(), 12, width).size(), size_t(width));
}

TEST(RunningLine, NarrowTerminalsKeepTheFacts) {
  const std::pair<int, std::string> cases[] = {
      {95, "distilled         [###---------]  25%  600/2,400 steps  3,200 records/s  loss 0.4124  36 s left"},
      {79, "distilled         [###---------]  25%  3,200 records/s  loss 0.4124  36 s left"},
      {72, "distilled         [#-----]  25%  3,200 records/s  loss 0.4124  36 s left"},
      {50, "distilled         [#-----]  25%  3,200 records/s"},
      {20, "distilled         "},
      {4, "dist"}};
  for (const auto& [width, line] : cases) EXPECT_EQ(RunningLine(Training(), 12, width), line);
}

TEST(RunningLine, SaysWhatItWaitsFor) {
  v1::RunStatus::Stage stage;
  stage.set_name("distilled");
  stage.set_total(10);
  stage.set_waiting_for("2 of 3 workers");
  EXPECT_EQ(RunningLine(stage, 3, 100),
            "distilled         [------------------------]   0%  0/10 steps  waiting for 2 of 3 workers");
}

TEST(RunningLine, CountsSlowWorkers) {
  v1::RunStatus::Stage stage = Training();
  auto* slow = stage.add_slow_workers();
  slow->set_rank(2);
  slow->set_host("10.7.0.2");
  slow->set_pid(71);
  slow->set_ratio(3.14);
  EXPECT_THAT(RunningLine(stage, 12, 120), HasSubstr("36 s left  1 slow worker"));
  *stage.add_evictions()->mutable_worker() = *slow;
  stage.mutable_evictions(0)->set_step(1200);
  EXPECT_EQ(
      WorkerLines(stage),
      "                    slow: worker 2 (pid 71 on 10.7.0.2), 3.1 times as long for its own work as the others\n"
      "                    left out after step 1,200: worker 2 (pid 71 on 10.7.0.2), 3.1 times as long for its own "
      "work as the others\n");
}

TEST(RunningLine, StagesOfRecordsHaveNoLoss) {
  v1::RunStatus::Stage stage;
  stage.set_name("index");
  stage.set_done(1200);
  stage.set_records(1200);
  EXPECT_EQ(RunningLine(stage, 2, 100), "index             1,200 records  600 records/s");
  stage = Training();
  stage.set_loss(NAN);
  EXPECT_THAT(RunningLine(stage, 2, 100), Not(HasSubstr("loss")));
  stage.set_done(5000);  // more than planned
  EXPECT_THAT(RunningLine(stage, 2, 100), HasSubstr("########] 100%"));
}

TEST(FinishedLine, Sums) {
  v1::RunStatus::Stage stage = Training();
  stage.set_labels(38400);
  EXPECT_EQ(FinishedLine(stage),
            "distilled         600 steps  38,400 records  3,200 records/s  38,400 soft labels  loss 0.4124  12 s");
  v1::RunStatus::Stage index;
  index.set_name("index");
  index.set_done(100);
  index.set_seconds(0.2);
  EXPECT_EQ(FinishedLine(index), "index             100 records  0 s");
  index.set_name("tokenizer");
  EXPECT_EQ(FinishedLine(index), "tokenizer         100 bytes  0 s");
}

// Its second half is told only at its end.
TEST(RunningLine, TellsNoTimeLeftForTheTokenizer) {
  v1::RunStatus::Stage stage;
  stage.set_name("tokenizer");
  stage.set_done(50);
  stage.set_total(100);
  EXPECT_EQ(RunningLine(stage, 30, 79), "tokenizer         [############------------]  50%  50/100 bytes");
}

v1::RunStatus Status(int finished) {
  v1::RunStatus status;
  status.set_state(v1::RunStatus::STATE_RUNNING);
  for (const char* name : {"index", "distilled", "evaluate"}) {
    v1::RunStatus::Stage* stage = status.add_stages();
    stage->set_name(name);
    stage->set_done(5);
    stage->set_finished(status.stages_size() <= finished);
  }
  return status;
}

TEST(ProgressView, TerminalRedrawsInPlace) {
  ProgressView view(true);
  EXPECT_EQ(view.Update(Status(0), 0, 80), "\r\x1b[2Kindex             5 records");
  EXPECT_EQ(view.Update(Status(0), 0, 80), "");
  EXPECT_EQ(view.Update(Status(2), 0, 80),
            "\r\x1b[2Kindex             5 records  0 s\n\r\x1b[2Kdistilled         5 steps  loss 0.0000  0 s\n"
            "\r\x1b[2Kevaluate          5 records");
  EXPECT_EQ(view.Close(), "\n");
  EXPECT_EQ(view.Close(), "");
  v1::RunStatus done = Status(3);
  done.set_state(v1::RunStatus::STATE_DONE);
  EXPECT_EQ(view.Update(done, 0, 80), "\r\x1b[2Kevaluate          5 records  0 s\n");
  EXPECT_EQ(view.Update(done, 0, 80), "");
}

TEST(ProgressView, ElsewhereOneLineAStage) {
  ProgressView view(false);
  EXPECT_EQ(view.Update(v1::RunStatus(), 0, 0), "");
  EXPECT_EQ(view.Update(Status(0), 0, 0), "");
  EXPECT_EQ(view.Update(Status(1), 0, 0), "index             5 records  0 s\n");
  EXPECT_EQ(view.Update(Status(1), 0, 0), "");
  EXPECT_EQ(view.Update(Status(3), 0, 0),
            "distilled         5 steps  loss 0.0000  0 s\nevaluate          5 records  0 s\n");
  EXPECT_EQ(view.Close(), "");
}

TEST(ProgressView, AFailedStageIsNotDrawnAgain) {
  ProgressView view(true);
  v1::RunStatus status = Status(1);
  status.set_state(v1::RunStatus::STATE_FAILED);
  EXPECT_EQ(view.Update(status, 0, 80), "\r\x1b[2Kindex             5 records  0 s\n");
}

}  // namespace
}  // namespace polystill::cli
