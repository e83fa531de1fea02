#include "coordinator/jobs.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "runtime/yaml_proto.h"

namespace polystill::coordinator {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr char kTopics[] = R"(version: 1
name: topics
seed: 7
corpus: {path: /corpus, labels: [net, devel, games]}
tokenizer: {kind: sentencepiece, vocab_size: 24000}
teachers:
  - name: english
    train: {model: {width: 32}, where: {language: en, pool: A, split: train}, epochs: 6, batch_size: 16, optimizer: {lr: 0.1}}
    reads: source_text
  - {name: other, package: /packages/other}
student:
  model: {width: 64}
  where: {pool: B, split: train}
  languages: {targets: [de, fr], mixture: {kind: temperature, tau: 2}}
  losses:
    - {kind: soft_label, temperature: 2, teacher: english}
  batch_size: 8
  epochs: 3
  workers: 2
  prefetch: 5
  checkpoint_every: 9
  micro_batch: 4
  autocast: bfloat16
baselines: [gold, no_teacher, zero_shot]
evaluate: {where: {split: test}}
output: /run
)";

v1::RunSpec Spec(const std::vector<std::string>& settings = {}) {
  v1::RunSpec spec;
  const absl::Status status = ReadYaml(kTopics, "topics.yaml", settings, &spec);
  EXPECT_TRUE(status.ok()) << status;
  return spec;
}

const PlannedJob& Find(const std::vector<PlannedJob>& jobs, const std::string& name) {
  for (const PlannedJob& planned : jobs) {
    if (planned.job.name() == name) return planned;
  }
  ADD_FAILURE() << "no job " << name;
  return jobs.front();
}

std::vector<v1::LossKind> LossKinds(const v1::Job& job) {
  std::vector<v1::LossKind> kinds;
  for (const v1::Loss& loss : job.losses()) kinds.push_back(loss.kind());
  return kinds;
}

TEST(StageNames, FollowTheOrderOfTheRun) {
  const struct {
    std::vector<std::string> settings, names;
  } cases[] = {
      {{}, {"index", "tokenizer", "teacher:english", "distilled", "no_teacher", "gold", "evaluate"}},
      {{"baselines=[]"}, {"index", "tokenizer", "teacher:english", "distilled", "evaluate"}},
      {{"baselines=[zero_shot]", "tokenizer.kind=ids"}, {"index", "teacher:english", "distilled", "evaluate"}},
      {{"baselines=[gold_all, gold, pseudo_label, no_teacher]"},
       {"index", "tokenizer", "teacher:english", "distilled", "no_teacher", "pseudo_label", "gold", "gold_all",
        "evaluate"}},
      {{"tokenizer.path=/my.model", "baselines=[gold]"}, {"index", "teacher:english", "distilled", "gold", "evaluate"}},
      {{"teachers=[{name: a, package: /p}, {name: b, train: {}}, {name: c, train: {}}]", "baselines=[]"},
       {"index", "tokenizer", "teacher:b", "teacher:c", "distilled", "evaluate"}},
  };
  for (const auto& c : cases) EXPECT_EQ(StageNames(Spec(c.settings)), c.names);
}

TEST(PlanJobs, TeacherLearnsFromItsOwnRecords) {
  const std::vector<PlannedJob> jobs = PlanJobs(Spec());
  const PlannedJob& teacher = Find(jobs, "teacher:english");
  EXPECT_EQ(teacher.job.kind(), v1::Job::KIND_TRAIN);
  EXPECT_EQ(teacher.job.model().width(), 32);
  EXPECT_EQ(teacher.job.reads(), v1::SIDE_SOURCE_TEXT);
  EXPECT_THAT(LossKinds(teacher.job), ElementsAre(v1::LOSS_KIND_TASK));
  EXPECT_EQ(teacher.job.losses(0).weight(), 1.0);
  EXPECT_EQ(teacher.job.optimizer().lr(), 0.1);
  EXPECT_EQ(teacher.job.plan().batch_size(), 16);
  EXPECT_EQ(teacher.job.plan().mixture().kind(), v1::Mixture::KIND_PROPORTIONAL);
  EXPECT_EQ(teacher.job.plan().algorithm(), 2);
  EXPECT_EQ(teacher.job.plan().shuffle_window(), 65536);
  EXPECT_EQ(teacher.job.package(), "/run/models/teacher-english");
  EXPECT_EQ(teacher.job.checkpoints(), "/run/checkpoints/teacher-english");
  EXPECT_EQ(teacher.job.model_name(), "english");
  EXPECT_EQ(teacher.job.tokenizer_folder(), "/run/tokenizer");
  EXPECT_THAT(teacher.job.labels(), ElementsAre("net", "devel", "games"));
  EXPECT_EQ(teacher.epochs, 6.0);
  EXPECT_EQ(teacher.workers, 2);
  EXPECT_THAT(teacher.teachers, IsEmpty());
  EXPECT_THAT(teacher.selection.where(),
              UnorderedElementsAre(Pair("language", "en"), Pair("pool", "A"), Pair("split", "train")));
  EXPECT_TRUE(teacher.selection.reads_labels());
  EXPECT_FALSE(teacher.selection.reads_text());
  EXPECT_TRUE(teacher.selection.reads_source_text());
  EXPECT_THAT(teacher.selection.languages(), IsEmpty());
}

TEST(PlanJobs, DistilledReadsNoLabelAndBothSides) {
  const std::vector<PlannedJob> jobs = PlanJobs(Spec());
  const PlannedJob& distilled = Find(jobs, "distilled");
  EXPECT_EQ(distilled.job.model().width(), 64);
  EXPECT_EQ(distilled.job.reads(), v1::SIDE_TEXT);
  EXPECT_EQ(distilled.job.losses(0).temperature(), 2.0);
  EXPECT_EQ(distilled.job.plan().mixture().tau(), 2.0);
  EXPECT_EQ(distilled.job.plan().batch_size(), 8);
  EXPECT_EQ(distilled.job.prefetch(), 5);
  EXPECT_EQ(distilled.job.checkpoint_every(), 9);
  EXPECT_EQ(distilled.job.micro_batch(), 4);
  EXPECT_EQ(distilled.job.autocast(), v1::Student::AUTOCAST_BFLOAT16);
  EXPECT_EQ(distilled.job.package(), "/run/models/distilled");
  EXPECT_EQ(distilled.epochs, 3.0);
  EXPECT_THAT(distilled.teachers, ElementsAre("english"));
  EXPECT_FALSE(distilled.selection.reads_labels());
  EXPECT_TRUE(distilled.selection.reads_text());
  EXPECT_TRUE(distilled.selection.reads_source_text());
  EXPECT_THAT(distilled.selection.languages(), ElementsAre("de", "fr"));
  EXPECT_THAT(distilled.selection.where(), UnorderedElementsAre(Pair("pool", "B"), Pair("split", "train")));
}

TEST(PlanJobs, SidesLabelsAndTeachersFollowTheLosses) {
  const struct {
    std::string losses;
    bool labels, text, source_text;
    std::vector<std::string> teachers;
  } cases[] = {
      {"[{kind: task}]", true, true, false, {}},
      {"[{kind: hard_label, teacher: other}]", false, true, false, {"other"}},
      {"[{kind: logit_mse, teacher: other}, {kind: task}, {kind: soft_label, teacher: english}, "
       "{kind: hard_label, teacher: other}]",
       true,
       true,
       true,
       {"other", "english"}},
  };
  for (const auto& c : cases) {
    const std::vector<PlannedJob> jobs = PlanJobs(Spec({absl::StrCat("student.losses=", c.losses)}));
    const PlannedJob& distilled = Find(jobs, "distilled");
    EXPECT_EQ(distilled.selection.reads_labels(), c.labels) << c.losses;
    EXPECT_EQ(distilled.selection.reads_text(), c.text) << c.losses;
    EXPECT_EQ(distilled.selection.reads_source_text(), c.source_text) << c.losses;
    EXPECT_EQ(distilled.teachers, c.teachers) << c.losses;
  }
}

TEST(PlanJobs, NoTeacherIsTheStudentOnTheTeachersRecords) {
  const std::vector<PlannedJob> jobs = PlanJobs(Spec());
  const PlannedJob& none = Find(jobs, "no_teacher");
  EXPECT_EQ(none.job.model().width(), 64);
  EXPECT_EQ(none.job.plan().batch_size(), 8);
  EXPECT_EQ(none.job.reads(), v1::SIDE_SOURCE_TEXT);
  EXPECT_EQ(none.epochs, 6.0);
  EXPECT_THAT(LossKinds(none.job), ElementsAre(v1::LOSS_KIND_TASK));
  EXPECT_TRUE(MessageDifferencer::Equals(none.selection, Find(jobs, "teacher:english").selection));
}

TEST(PlanJobs, EveryTrainingButATeachersHasTheRunsSeed) {
  for (const PlannedJob& planned : PlanJobs(Spec())) {
    if (planned.job.kind() != v1::Job::KIND_TRAIN) continue;
    const bool teacher = planned.job.name() == "teacher:english";
    EXPECT_EQ(planned.job.seed() == 7u, !teacher) << planned.job.name();
    EXPECT_EQ(planned.job.plan().seed(), planned.job.seed()) << planned.job.name();
  }
}

TEST(PlanJobs, GoldIsTheStudentOnItsOwnLabels) {
  const std::vector<PlannedJob> jobs = PlanJobs(Spec());
  const PlannedJob& gold = Find(jobs, "gold");
  EXPECT_THAT(LossKinds(gold.job), ElementsAre(v1::LOSS_KIND_TASK));
  EXPECT_TRUE(gold.selection.reads_labels());
  EXPECT_FALSE(gold.selection.reads_source_text());
  EXPECT_TRUE(MessageDifferencer::Equals(gold.job.plan(), Find(jobs, "distilled").job.plan()));
  EXPECT_EQ(gold.epochs, 3.0);
  EXPECT_THAT(gold.teachers, IsEmpty());
}

TEST(PlanJobs, PseudoLabelLeavesOutFeatures) {
  const auto jobs = PlanJobs(
      Spec({"baselines=[pseudo_label]",
            "student.losses=[{kind: embedding, teacher: english, distance: cosine}, {kind: task}, {kind: soft_label, "
            "temperature: 3, teacher: english}]"}));
  const PlannedJob& pseudo = Find(jobs, "pseudo_label");
  ASSERT_EQ(pseudo.job.losses_size(), 2);
  EXPECT_EQ(pseudo.job.losses(0).kind(), v1::LOSS_KIND_TASK);
  EXPECT_EQ(pseudo.job.losses(1).kind(), v1::LOSS_KIND_HARD_LABEL);
  EXPECT_EQ(pseudo.job.losses(1).temperature(), 1);
}

TEST(PlanJobs, PseudoLabelHasTheTeachersArgMaxForItsSoftLabels) {
  const std::vector<PlannedJob> jobs =
      PlanJobs(Spec({"baselines=[pseudo_label]",
                     "student.losses=[{kind: soft_label, temperature: 2, weight: 0.7, codec: dense_fp32, teacher: "
                     "english}, {kind: logit_mse, weight: 0.3, teacher: other}]"}));
  const PlannedJob& pseudo = Find(jobs, "pseudo_label");
  const PlannedJob& distilled = Find(jobs, "distilled");
  EXPECT_THAT(LossKinds(pseudo.job), ElementsAre(v1::LOSS_KIND_HARD_LABEL, v1::LOSS_KIND_HARD_LABEL));
  EXPECT_EQ(pseudo.job.losses(0).weight(), 0.7);
  EXPECT_EQ(pseudo.job.losses(0).temperature(), 1.0);
  EXPECT_EQ(pseudo.job.losses(0).codec(), v1::CODEC_DENSE_FP32);
  EXPECT_EQ(pseudo.teachers, distilled.teachers);
  EXPECT_EQ(pseudo.epochs, distilled.epochs);
  EXPECT_FALSE(pseudo.selection.reads_labels());
  EXPECT_TRUE(MessageDifferencer::Equals(pseudo.selection, distilled.selection));
  EXPECT_TRUE(MessageDifferencer::Equals(pseudo.job.plan(), distilled.job.plan()));
}

TEST(PlanJobs, GoldAllHasTheRecordsOfStudentAndTeacher) {
  const std::vector<PlannedJob> jobs = PlanJobs(Spec({"baselines=[gold_all]"}));
  const PlannedJob& all = Find(jobs, "gold_all");
  EXPECT_THAT(LossKinds(all.job), ElementsAre(v1::LOSS_KIND_TASK));
  EXPECT_EQ(all.job.model().width(), 64);
  EXPECT_EQ(all.job.reads(), v1::SIDE_TEXT);
  EXPECT_EQ(all.epochs, 3.0);
  EXPECT_THAT(all.teachers, IsEmpty());
  EXPECT_TRUE(all.selection.reads_labels());
  EXPECT_TRUE(all.selection.reads_text());
  EXPECT_FALSE(all.selection.reads_source_text());
  EXPECT_THAT(all.selection.where(), IsEmpty());
  EXPECT_THAT(all.selection.languages(), IsEmpty());
  ASSERT_EQ(all.selection.alternatives_size(), 2);
  EXPECT_THAT(all.selection.alternatives(0).where(), UnorderedElementsAre(Pair("pool", "B"), Pair("split", "train")));
  EXPECT_THAT(all.selection.alternatives(0).languages(), ElementsAre("de", "fr"));
  EXPECT_THAT(all.selection.alternatives(1).where(),
              UnorderedElementsAre(Pair("language", "en"), Pair("pool", "A"), Pair("split", "train")));
  EXPECT_TRUE(MessageDifferencer::Equals(all.job.plan(), Find(jobs, "distilled").job.plan()));
}

TEST(PlanJobs, GoldAllSharesOutByRecordsWhereWeightsNameTheStudentsLanguages) {
  const std::vector<PlannedJob> jobs =
      PlanJobs(Spec({"baselines=[gold_all]", "student.languages.mixture={kind: weights, weights: {de: 2, fr: 1}}"}));
  EXPECT_EQ(Find(jobs, "distilled").job.plan().mixture().weights_size(), 2);
  EXPECT_EQ(Find(jobs, "gold_all").job.plan().mixture().kind(), v1::Mixture::KIND_PROPORTIONAL);
  EXPECT_EQ(Find(jobs, "gold_all").job.plan().mixture().weights_size(), 0);
}

TEST(PlanJobs, TheTablesColumnsGoFromTheLeastKnowledgeToTheMost) {
  const std::vector<PlannedJob> jobs =
      PlanJobs(Spec({"baselines=[gold_all, gold, pseudo_label, no_teacher, zero_shot]"}));
  std::vector<std::string> models;
  for (const v1::EvaluatedModel& model : Find(jobs, "evaluate").job.models()) models.push_back(model.name());
  EXPECT_THAT(models, ElementsAre("zero_shot", "no_teacher", "pseudo_label", "distilled", "gold", "gold_all"));
}

TEST(PlanJobs, TheTableHasTheStudentsLanguagesOrThoseAskedFor) {
  EXPECT_THAT(Find(PlanJobs(Spec()), "evaluate").selection.languages(), ElementsAre("de", "fr"));
  const std::vector<PlannedJob> jobs = PlanJobs(Spec({"evaluate.languages=[en]"}));
  EXPECT_THAT(Find(jobs, "evaluate").selection.languages(), ElementsAre("en"));
  EXPECT_THAT(Find(jobs, "distilled").selection.languages(), ElementsAre("de", "fr"));
}

TEST(PlanJobs, EvaluateHasEveryModelOnTheStudentsSide) {
  const std::vector<PlannedJob> jobs = PlanJobs(Spec());
  const PlannedJob& evaluate = Find(jobs, "evaluate");
  EXPECT_EQ(evaluate.job.kind(), v1::Job::KIND_EVALUATE);
  EXPECT_EQ(evaluate.workers, 1);
  EXPECT_EQ(evaluate.job.predictions(), "/run/predictions.parquet");
  std::vector<std::string> models;
  for (const v1::EvaluatedModel& model : evaluate.job.models()) {
    EXPECT_EQ(model.reads(), v1::SIDE_TEXT);
    models.push_back(absl::StrCat(model.name(), "=", model.package()));
  }
  EXPECT_THAT(models, ElementsAre("zero_shot=/run/models/teacher-english", "no_teacher=/run/models/no_teacher",
                                  "distilled=/run/models/distilled", "gold=/run/models/gold"));
  ASSERT_EQ(evaluate.job.timed_size(), 2);
  EXPECT_EQ(evaluate.job.timed(0).name(), "teacher");
  EXPECT_EQ(evaluate.job.timed(0).package(), "/run/models/teacher-english");
  EXPECT_EQ(evaluate.job.timed(0).reads(), v1::SIDE_TEXT);
  EXPECT_EQ(evaluate.job.timed(1).name(), "student");
  EXPECT_EQ(evaluate.job.timed(1).package(), "/run/models/distilled");
  EXPECT_EQ(evaluate.job.latency(), "/run/latency.json");
  EXPECT_THAT(evaluate.selection.where(), UnorderedElementsAre(Pair("split", "test")));
  EXPECT_TRUE(evaluate.selection.reads_labels());
  EXPECT_THAT(evaluate.selection.languages(), ElementsAre("de", "fr"));
}

TEST(PlanJobs, ZeroShotTakesAPackageToo) {
  const std::vector<PlannedJob> jobs =
      PlanJobs(Spec({"teachers=[{name: far, address: 'h:1'}, {name: own, package: /packages/own}]",
                     "student.losses.0.teacher=own", "baselines=[zero_shot]"}));
  EXPECT_EQ(Find(jobs, "evaluate").job.models(0).package(), "/packages/own");
}

TEST(PlanJobs, TheTeacherThatIsEvaluatedAndTimedIsTheOneThatLabels) {
  const v1::RunSpec own = Spec({"student.losses.0.teacher=other"});
  EXPECT_EQ(ReportedTeacher(own)->name(), "other");
  const v1::Job evaluate = Find(PlanJobs(own), "evaluate").job;
  EXPECT_EQ(evaluate.models(0).package(), "/packages/other");
  EXPECT_EQ(evaluate.timed(0).package(), "/packages/other");

  // Out of reach, no other one stands in for it.
  const v1::RunSpec far = Spec({"teachers=[{name: far, address: 'h:1'}, {name: own, package: /packages/own}]",
                                "student.losses.0.teacher=far", "baselines=[]"});
  EXPECT_EQ(ReportedTeacher(far)->name(), "far");
  ASSERT_EQ(Find(PlanJobs(far), "evaluate").job.timed_size(), 1);
  EXPECT_EQ(Find(PlanJobs(far), "evaluate").job.timed(0).name(), "student");

  EXPECT_EQ(ReportedTeacher(Spec({"student.losses=[{kind: task}]"}))->name(), "english");
}

TEST(TokenizerSelections, JoinEqualRecordsAndReadNoLabel) {
  const std::vector<v1::Selection> selections = TokenizerSelections(Spec());
  ASSERT_EQ(selections.size(), 2u);
  EXPECT_EQ(selections[0].where().at("pool"), "A");
  EXPECT_FALSE(selections[0].reads_text());
  EXPECT_TRUE(selections[0].reads_source_text());
  EXPECT_EQ(selections[1].where().at("pool"), "B");
  EXPECT_TRUE(selections[1].reads_text());
  EXPECT_TRUE(selections[1].reads_source_text());
  for (const v1::Selection& selection : selections) EXPECT_FALSE(selection.reads_labels());
}

TEST(TokenizerSelections, DoNotDependOnTheBaselines) {
  const std::vector<v1::Selection> with = TokenizerSelections(Spec({"baselines=[gold, gold_all, pseudo_label]"}));
  const std::vector<v1::Selection> without = TokenizerSelections(Spec({"baselines=[]"}));
  ASSERT_EQ(with.size(), without.size());
  for (size_t i = 0; i < with.size(); ++i) EXPECT_TRUE(MessageDifferencer::Equals(with[i], without[i]));
}

TEST(TokenizerFolder, IsEmptyWithIds) {
  EXPECT_EQ(TokenizerFolder(Spec()), "/run/tokenizer");
  EXPECT_EQ(TokenizerFolder(Spec({"tokenizer.kind=ids"})), "");
}

}  // namespace
}  // namespace polystill::coordinator
