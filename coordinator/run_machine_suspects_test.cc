#include "coordinator/run_machine_fixture.h"
#include "coordinator/suspects.h"

namespace polystill::coordinator {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using Code = absl::StatusCode;

constexpr auto kFirstTime = Suspects::kFirstTime;

TEST(SuspectsTest, WhoeverIsBlamedAgainIsLeftOutForTwiceAsLong) {
  const Instant start{std::chrono::hours(1)};
  Suspects suspects;
  EXPECT_EQ(suspects.Blame("a", start), kFirstTime);
  EXPECT_EQ(suspects.Blame("b", start, 2), 2 * kFirstTime);
  EXPECT_EQ(suspects.Blame("a", start), 2 * kFirstTime);
  EXPECT_EQ(suspects.Blame("a", start), 4 * kFirstTime);
  EXPECT_EQ(suspects.BlamedUntil("a", start), start + 4 * kFirstTime);
  EXPECT_EQ(suspects.BlamedUntil("a", start + 4 * kFirstTime), std::nullopt);
  for (int i = 0; i < 100; ++i) EXPECT_LE(suspects.Blame("a", start), Suspects::kAtMost);
  suspects.Acquit("a");
  EXPECT_EQ(suspects.TimesBlamed("a"), 0);
  EXPECT_EQ(suspects.Blame("a", start), kFirstTime);
}

TEST(SuspectsTest, BlameIsForgotten) {
  const Instant start{std::chrono::hours(1)};
  Suspects suspects;
  suspects.Blame("a", start);
  suspects.Expire(start + kFirstTime + Suspects::kForgottenAfter - milliseconds(1));
  EXPECT_EQ(suspects.TimesBlamed("a"), 1);
  suspects.Expire(start + kFirstTime + Suspects::kForgottenAfter);
  EXPECT_EQ(suspects.TimesBlamed("a"), 0);
}

class SuspectsOfMachine : public RunMachineTest {
 protected:
  static PlannedJob Elastic(int fewest, int workers, int most) {
    PlannedJob planned = Train("distilled", workers);
    planned.min_workers = fewest;
    planned.max_workers = most;
    planned.last_call = milliseconds(10'000);
    return planned;
  }
  // `count` workers, streams from 1 on, each on a host of its own, that have done a step in generation 1.
  void Work(const PlannedJob& planned, int count, std::vector<PlannedJob> later = {}) {
    later.insert(later.begin(), planned);
    Start(later);
    Prepared();
    for (StreamId stream = 1; stream <= count; ++stream) Join(stream);
    ASSERT_EQ(Status().stages(1).generation(), 1);
    for (StreamId stream = 1; stream <= count; ++stream) WorkerAgrees(stream, 1, "d");
    WorkerProgress(1, 1, 1, 1.0, 10);
  }
  std::vector<std::string> Join(StreamId stream, const std::string& host = "") {
    Do(StreamOpened{stream});
    v1::WorkerMessage hello = Hello(absl::StrCat("worker-", stream));
    hello.mutable_hello()->set_host(host.empty() ? absl::StrCat("host-", stream) : host);
    return Do(WorkerSaid{stream, hello});
  }
  // Each of them leaves; what follows from the last one.
  std::vector<std::string> Leave(int64_t generation, const std::vector<StreamId>& streams, Code code = Code::kOk) {
    std::vector<std::string> lines;
    for (const StreamId stream : streams) lines = WorkerLeaves(stream, generation, code);
    return lines;
  }
  // Nobody reaches that one: so the members of the generation, which are returned, do not agree. Time passes as for
  // ranks that wait for each other in the join.
  std::vector<StreamId> TryWithout(StreamId unreachable) {
    const int64_t generation = Status().stages(1).generation();
    const std::vector<StreamId> members = members_;
    const bool together = std::find(members.begin(), members.end(), unreachable) == members.end();
    for (const StreamId stream : members) {
      if (together || members.size() == 1) WorkerAgrees(stream, generation, "d");
    }
    if (together || members.size() == 1) return members;
    Pass(milliseconds(60'000));
    for (const StreamId stream : members) Note(WorkerLeaves(stream, generation, Code::kAborted));
    Pass(milliseconds(6000));
    return members;
  }
  void Pass(milliseconds time) {
    for (; time > time.zero(); time -= milliseconds(1000)) Note(Second());
  }
  // In which everybody is heard.
  std::vector<std::string> Second() {
    for (StreamId stream = 1; stream < 9; ++stream) WorkerBeats(stream, Status().stages(1).generation());
    return After(milliseconds(1000));
  }
  // Keeps who was assigned the newest generation.
  void Note(const std::vector<std::string>& lines) {
    for (const std::string& line : lines) {
      if (line.starts_with("record generation")) members_.clear();
      if (line.starts_with("assign ")) members_.push_back(line[7] - '0');
    }
  }

  std::vector<StreamId> members_;
};

TEST_F(SuspectsOfMachine, ANewcomerThatFailsIsDismissedAndTheOthersGoOn) {
  Work(Elastic(1, 2, 3), 2);
  Join(3);
  EXPECT_THAT(Leave(1, {1, 2}), Contains("assign 3 distilled 2 rank 2/3"));
  EXPECT_THAT(WorkerFails(3, 2, Code::kInvalidArgument, "host 'tpyo' is unknown"),
              ElementsAre("close 3 FAILED_PRECONDITION", "regroup 1 2", "regroup 2 2"));
  EXPECT_THAT(Status().left_out(0),
              HasSubstr("worker 2 (pid 0 on host-3) is dismissed: it failed before its first step: "
                        "host 'tpyo' is unknown"));
  EXPECT_THAT(Leave(2, {1, 2}, Code::kAborted),
              ElementsAre("record generation 3", "assign 1 distilled 3 rank 0/2", "assign 2 distilled 3 rank 1/2"));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING);
}

// A corpus that is missing on its host shows after the agreement.
TEST_F(SuspectsOfMachine, ANewcomerMayFailUpToItsFirstStep) {
  Work(Elastic(1, 2, 3), 2);
  Join(3);
  Leave(1, {1, 2});
  for (const StreamId stream : {1, 2, 3}) WorkerAgrees(stream, 2, "d");
  EXPECT_THAT(WorkerFails(3, 2, Code::kNotFound, "data/de.parquet: no such file"),
              Contains("close 3 FAILED_PRECONDITION"));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING);
}

TEST_F(SuspectsOfMachine, AMemberThatHasDoneAStepFailsTheRun) {
  Work(Elastic(1, 2, 3), 2);
  Join(3);
  Leave(1, {1, 2});
  for (const StreamId stream : {1, 2, 3}) WorkerAgrees(stream, 2, "d");
  WorkerProgress(1, 2, 2, 1.0, 20);
  WorkerFails(3, 2, Code::kDataLoss, "record r7: label is NaN");
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("r7"));
}

TEST_F(SuspectsOfMachine, WhoeverComesFromWhereOneHasFailedWaitsLongerEachTime) {
  Work(Elastic(1, 2, 3), 2);
  Join(3, "bad");
  Leave(1, {1, 2});
  WorkerFails(3, 2, Code::kInternal, "no GPU");
  Leave(2, {1, 2});
  EXPECT_THAT(Join(4, "bad"), ElementsAre("welcome 4"));
  Pass(kFirstTime - milliseconds(1000));
  EXPECT_THAT(members_, IsEmpty());
  EXPECT_THAT(Join(5, "good"), Contains("regroup 1 3 at boundary")) << "of another host";
  Note(Leave(3, {1, 2}));
  EXPECT_THAT(members_, ElementsAre(1, 2, 5));
}

TEST_F(SuspectsOfMachine, WhoeverWaitedIsTakenInAtABoundary) {
  Work(Elastic(1, 2, 3), 2);
  Join(3, "bad");
  Leave(1, {1, 2});
  WorkerFails(3, 2, Code::kInternal, "no GPU");
  Leave(2, {1, 2});
  for (const milliseconds time : {kFirstTime, 2 * kFirstTime}) {
    const int64_t generation = Status().stages(1).generation();
    const StreamId newcomer = 3 + generation / 2;
    Join(newcomer, "bad");
    std::vector<std::string> lines;
    for (milliseconds passed{}; passed < time - milliseconds(1000); passed += milliseconds(1000)) {
      for (std::string& line : Second()) lines.push_back(std::move(line));
    }
    EXPECT_THAT(lines, Not(Contains(HasSubstr("regroup"))));
    EXPECT_THAT(Second(), Contains(HasSubstr("at boundary")));
    EXPECT_THAT(Leave(generation, {1, 2}),
                Contains(absl::StrCat("assign ", newcomer, " distilled ", generation + 1, " rank 2/3")));
    WorkerFails(newcomer, generation + 1, Code::kInternal, "no GPU");
    Leave(generation + 1, {1, 2});
  }
}

TEST_F(SuspectsOfMachine, ThatAllFailAtTheStartFailsTheRun) {
  Start({Elastic(2, 4, 4)});
  Prepared();
  for (StreamId stream = 1; stream <= 4; ++stream) Join(stream);
  EXPECT_THAT(WorkerFails(2, 1, Code::kNotFound, "tokenizer.model: no such file"),
              ElementsAre("close 2 FAILED_PRECONDITION", "regroup 1 1", "regroup 3 1", "regroup 4 1"));
  EXPECT_THAT(WorkerFails(4, 1, Code::kNotFound, "tokenizer.model: no such file"),
              ElementsAre("close 4 FAILED_PRECONDITION"));
  WorkerFails(1, 1, Code::kNotFound, "tokenizer.model: no such file");
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("worker 0 (pid 0 on host-1): tokenizer.model"));
}

// Its loss, say, is not finite: so it would be with any other worker.
TEST_F(SuspectsOfMachine, AFirstGenerationThatHasAgreedFailsTheRun) {
  Start({Elastic(1, 2, 2)});
  Prepared();
  Join(1);
  Join(2);
  WorkerAgrees(1, 1, "d");
  WorkerAgrees(2, 1, "d");
  WorkerFails(2, 1, Code::kFailedPrecondition, "step 1: the loss is nan");
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
}

TEST_F(SuspectsOfMachine, WhenEverybodyProvenIsGoneNewcomersThatFailFailTheRun) {
  Work(Elastic(1, 2, 3), 2);
  Do(StreamClosed{1});
  Do(StreamClosed{2});
  Join(3);
  After(RunMachine::kFirstComesWithin);  // nobody comes back
  WorkerFails(3, 2, Code::kInternal, "no GPU");
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
}

TEST_F(SuspectsOfMachine, ANewcomerThatNobodyReachesIsLeftOutForLongerEachTime) {
  Work(Elastic(1, 2, 3), 2);
  Note(Join(3));
  Note(Leave(1, {1, 2}));
  EXPECT_THAT(TryWithout(3), ElementsAre(1, 2, 3));
  EXPECT_THAT(TryWithout(3), ElementsAre(1, 2, 3)) << "once may be by chance";
  EXPECT_THAT(TryWithout(3), ElementsAre(1, 2));
  EXPECT_THAT(Status().left_out(0), HasSubstr("worker worker-3 (pid 0 on host-3) is left out for 60 s"));
  WorkerProgress(1, 4, 2, 1.0, 20);
  for (const int minutes : {1, 2, 4}) {
    const int64_t generation = Status().stages(1).generation();
    Pass(minutes * kFirstTime - milliseconds(10'000));
    EXPECT_EQ(members_.size(), 2u);
    // At the boundary to which they are ordered.
    Pass(milliseconds(10'000));
    Note(Leave(generation, {1, 2}));
    EXPECT_THAT(TryWithout(3), ElementsAre(1, 2, 3)) << minutes;
    EXPECT_THAT(TryWithout(3), ElementsAre(1, 2)) << minutes;
    WorkerProgress(1, generation + 2, minutes + 2, 1.0, 20);
  }
}

TEST_F(SuspectsOfMachine, NewcomersAreToldApart) {
  Work(Elastic(1, 2, 4), 2);
  Join(3);
  Join(4);
  Note(Leave(1, {1, 2}));
  TryWithout(3);
  TryWithout(3);
  EXPECT_THAT(TryWithout(3), ElementsAre(1, 2));
  WorkerProgress(1, 4, 2, 1.0, 20);
  Pass(kFirstTime);
  Note(Leave(4, {1, 2}));
  EXPECT_THAT(TryWithout(3), ElementsAre(1, 2, 3));
  EXPECT_THAT(TryWithout(3), ElementsAre(1, 2, 4));
}

// It was a member before its connections were cut, or there was none yet: nobody knows which one it is.
class OneIsCutOff : public SuspectsOfMachine, public testing::WithParamInterface<std::tuple<bool, int, StreamId>> {};
TEST_P(OneIsCutOff, TheOthersGoOnWithoutIt) {
  const auto& [proven, fewest, unreachable] = GetParam();
  if (proven) {
    Work(Elastic(fewest, 4, 4), 4);
    Note(Leave(1, {1, 2, 3, 4}, Code::kAborted));
  } else {
    Start({Elastic(fewest, 4, 4)});
    Prepared();
    for (StreamId stream = 1; stream <= 4; ++stream) Note(Join(stream));
  }
  ASSERT_EQ(members_.size(), 4u);
  std::vector<StreamId> members = TryWithout(unreachable);
  for (int tries = 0; tries < 6 && std::find(members.begin(), members.end(), unreachable) != members.end(); ++tries) {
    members = TryWithout(unreachable);
  }
  EXPECT_EQ(members.size(), 3u);
  EXPECT_THAT(members, Not(Contains(unreachable)));
}
INSTANTIATE_TEST_SUITE_P(Cases, OneIsCutOff,
                         testing::Combine(testing::Bool(), testing::Values(1, 3), testing::Values(1, 3, 4)));

TEST_F(SuspectsOfMachine, WithTooFewEverybodyIsAskedAgain) {
  Work(Elastic(2, 2, 3), 2);
  Note(Join(3));
  Note(Leave(1, {1, 2}));
  TryWithout(3);
  TryWithout(3);
  TryWithout(3);
  EXPECT_THAT(members_, ElementsAre(1, 2));
  Do(StreamClosed{2});
  Note(WorkerLeaves(1, 4));
  EXPECT_THAT(members_, ElementsAre(1, 3)) << "it may be reached again";
}

// The others are new, and one of them is enough: but it is the one with the state that nobody reaches.
TEST_F(SuspectsOfMachine, TheOneThatHoldsTheStateIsLeftOutAfterTheOthers) {
  Work(Elastic(2, 2, 2), 2);
  Join(3);
  Join(4);
  Do(StreamClosed{2});
  v1::WorkerMessage left;
  left.mutable_interrupted()->mutable_standing()->set_generation(1);
  left.mutable_interrupted()->mutable_standing()->set_state_generation(1);
  left.mutable_interrupted()->mutable_standing()->set_step(1);
  Note(Do(WorkerSaid{1, left}));
  for (int tries = 0; tries < 5; ++tries) {
    const std::vector<StreamId> members = members_;
    for (const StreamId stream : members) {
      left.mutable_interrupted()->mutable_standing()->set_generation(Status().stages(1).generation());
      left.mutable_interrupted()->mutable_standing()->set_state_generation(stream == 1 ? 1 : 0);
      left.mutable_interrupted()->set_code(static_cast<int>(Code::kAborted));
      Note(Do(WorkerSaid{stream, left}));
    }
    Pass(milliseconds(6000));
    if (std::find(members_.begin(), members_.end(), 1) == members_.end()) break;
    EXPECT_LT(tries, 4);
  }
  EXPECT_THAT(members_, testing::UnorderedElementsAre(3, 4));
}

TEST_F(SuspectsOfMachine, WhoeverIsNeededIsNotLeftOut) {
  Work(Elastic(2, 2, 2), 2);
  Note(Leave(1, {1, 2}, Code::kAborted));
  for (int i = 0; i < 4; ++i) EXPECT_THAT(TryWithout(1), ElementsAre(1, 2));
}

}  // namespace
}  // namespace polystill::coordinator
