#include "coordinator/run_file.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "runtime/files.h"

namespace polystill::coordinator {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr char kGood[] = R"(version: 1
name: topics
corpus: {path: FOLDER/corpus, labels: [net, devel]}
tokenizer: {kind: sentencepiece}
teachers:
  - name: english
    train: {where: {language: en, pool: A}}
student:
  where: {pool: B}
  losses:
    - {kind: soft_label, temperature: 2}
baselines: [zero_shot, no_teacher, gold]
)";

class RunFileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "run_file_test-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_ + "/corpus");
    fs::create_directories(folder_ + "/package");
    ASSERT_TRUE(WriteFileAtomically(folder_ + "/file", "x").ok());
  }
  std::string Fill(const std::string& text) { return absl::StrReplaceAll(text, {{"FOLDER", folder_}}); }
  absl::StatusOr<RunFile> Read(const std::string& yaml, const std::vector<std::string>& settings = {}) {
    EXPECT_TRUE(WriteFileAtomically(folder_ + "/run.yaml", Fill(yaml)).ok());
    std::vector<std::string> filled;
    for (const std::string& setting : settings) filled.push_back(Fill(setting));
    return ReadRunFile(folder_ + "/run.yaml", filled);
  }
  // The messages, the run file's own path shown as run.yaml and the folder as FOLDER.
  std::vector<std::string> Mistakes(const std::string& yaml, const std::vector<std::string>& settings = {}) {
    const absl::Status status = Read(yaml, settings).status();
    if (status.ok()) return {};
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return absl::StrSplit(
        absl::StrReplaceAll(std::string(status.message()), {{folder_ + "/run.yaml", "run.yaml"}, {folder_, "FOLDER"}}),
        '\n');
  }
  std::string folder_;
};

TEST_F(RunFileTest, ResolvesWhatWasLeftOut) {
  const absl::StatusOr<RunFile> run = Read(kGood);
  ASSERT_TRUE(run.ok()) << run.status();
  const v1::RunSpec& spec = run->spec;
  EXPECT_EQ(spec.output(), (fs::current_path() / "runs/topics").string());
  EXPECT_EQ(spec.corpus().path(), folder_ + "/corpus");
  EXPECT_THAT(spec.teachers(0).train().where(),
              UnorderedElementsAre(Pair("language", "en"), Pair("pool", "A"), Pair("split", "train")));
  EXPECT_THAT(spec.student().where(), UnorderedElementsAre(Pair("pool", "B"), Pair("split", "train")));
  EXPECT_THAT(spec.evaluate().where(), UnorderedElementsAre(Pair("split", "test")));
  EXPECT_EQ(spec.student().losses(0).teacher(), "english");
  EXPECT_EQ(spec.teachers(0).train().loss(), v1::LOSS_KIND_TASK);
  EXPECT_EQ(spec.student().languages().mixture().kind(), v1::Mixture::KIND_PROPORTIONAL);
  EXPECT_EQ(run->lines.LineOf("student.losses.0"), 11);
}

TEST_F(RunFileTest, ResolvedFileReadsBackEqual) {
  const absl::StatusOr<RunFile> run = Read(kGood);
  ASSERT_TRUE(run.ok()) << run.status();
  const absl::StatusOr<RunFile> again = Read(WriteYaml(run->spec));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(run->spec, again->spec));
}

TEST_F(RunFileTest, WrittenSplitAndOutputStay) {
  const absl::StatusOr<RunFile> run =
      Read(kGood, {"student.where.split=dev", "evaluate.where.split=dev", "output=FOLDER/a/../out/"});
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->spec.student().where().at("split"), "dev");
  EXPECT_EQ(run->spec.evaluate().where().at("split"), "dev");
  EXPECT_EQ(run->spec.output(), folder_ + "/out");
}

TEST_F(RunFileTest, EachRuleHasItsLineAndMessage) {
  const struct {
    std::string from, to;  // what is exchanged in the good file
    std::string expected;
  } cases[] = {
      {"name: topics", "name: a/b",
       "run.yaml:2: name: 'a/b' is no name; write letters, digits, '-', '_' and '.', a letter or digit first, at most "
       "128"},
      {"name: topics", "name: ..",
       "run.yaml:2: name: '..' is no name; write letters, digits, '-', '_' and '.', a letter "
       "or digit first, at most 128"},
      {"FOLDER/corpus", "FOLDER/none", "run.yaml:3: corpus.path: no such file or folder: FOLDER/none"},
      {"[net, devel]", "[net]", "run.yaml:3: corpus.labels: has one class; a classifier needs at least 2"},
      {"[net, devel]", "[]",
       "run.yaml:3: corpus.labels: must not be empty; write the classes, in the order of the model's outputs"},
      {"[net, devel]", "[net, devel, net]", "run.yaml:3: corpus.labels.2: 'net' is listed twice"},
      {"[net, devel]", "[net, '']", "run.yaml:3: corpus.labels.1: is empty"},
      {"{kind: sentencepiece}", "{kind: ids, path: FOLDER/file}",
       "run.yaml:4: tokenizer.path: goes with kind: sentencepiece only; with kind: ids the corpus holds token ids "
       "already"},
      {"{kind: sentencepiece}", "{path: FOLDER/none}", "run.yaml:4: tokenizer.path: no such file: FOLDER/none"},
      {"{kind: sentencepiece}", "{path: FOLDER/corpus}", "run.yaml:4: tokenizer.path: FOLDER/corpus is not a file"},
      {"- name: english", "- name: -x",
       "run.yaml:6: teachers.0.name: '-x' is no name; write letters, digits, '-', '_' and '.', a letter or digit "
       "first, "
       "at most 128"},
      {"student:", "  - {name: english, package: FOLDER/package}\nstudent:",
       "run.yaml:8: teachers.1.name: a second teacher called 'english'\n"
       "run.yaml:12: student.losses.0: several teachers; write teacher: one of english, english"},
      {"student:", "  - name: other\nstudent:",
       "run.yaml:8: teachers.1: has none of train, package and address; write exactly one\n"
       "run.yaml:12: student.losses.0: several teachers; write teacher: one of english, other"},
      {"    train:", "    package: FOLDER/package\n    train:",
       "run.yaml:6: teachers.0: has more than one of train, package and address; write exactly one"},
      {"    train: {where: {language: en, pool: A}}", "    package: FOLDER/none",
       "run.yaml:7: teachers.0.package: no such folder: FOLDER/none\n"
       "run.yaml:12: baselines.1: no_teacher learns from the records of a teacher that is trained here; no teacher has "
       "a "
       "train key"},
      {"    train: {where: {language: en, pool: A}}", "    address: far",
       "run.yaml:7: teachers.0.address: 'far' is not host:port\n"
       "run.yaml:12: baselines.0: zero_shot evaluates a teacher's package; no teacher has a train or package key\n"
       "run.yaml:12: baselines.1: no_teacher learns from the records of a teacher that is trained here; no teacher has "
       "a "
       "train key"},
      {"pool: A}", "polo: A}",
       "run.yaml:7: teachers.0.train.where.polo: no column role that records can be chosen by; did you mean pool?"},
      {"pool: A}}", "pool: A}, loss: soft_label}",
       "run.yaml:7: teachers.0.train.loss: a teacher is trained on gold labels: write task"},
      {"where: {pool: B}", "where: {label: net}",
       "run.yaml:9: student.where.label: no column role that records can be chosen by; known: language, split, pool, "
       "group, id"},
      {"where: {pool: B}", "languages: {targets: [de, fr, de]}",
       "run.yaml:9: student.languages.targets.2: 'de' is listed twice"},
      {"where: {pool: B}", "languages: {mixture: {tau: 2}}",
       "run.yaml:9: student.languages.mixture.tau: goes with kind: temperature only"},
      {"kind: soft_label", "kind: logit_mse",
       "run.yaml:11: student.losses.0.temperature: goes with soft_label only, not with logit_mse"},
      {"temperature: 2", "teacher: englsh",
       "run.yaml:11: student.losses.0.teacher: no teacher is called 'englsh'; did you mean english?"},
      {"temperature: 2", "weight: 0", "run.yaml:10: student.losses: all weights are 0: nothing would be learned"},
      {"{kind: soft_label, temperature: 2}", "{kind: task, teacher: english}",
       "run.yaml:11: student.losses.0.teacher: task learns from gold labels, not from a teacher"},
      {"teachers:\n  - name: english\n    train: {where: {language: en, pool: A}}\n", "",
       "run.yaml:8: student.losses.0: soft_label needs a teacher; add one under teachers\n"
       "run.yaml:9: baselines.0: zero_shot evaluates a teacher's package; no teacher has a train or package key\n"
       "run.yaml:9: baselines.1: no_teacher learns from the records of a teacher that is trained here; no teacher has "
       "a "
       "train key"},
      {"gold]", "gold, pseudo_label, gold_all]", ""},
      {"gold]", "gold, gold]", "run.yaml:12: baselines.3: 'gold' is listed twice"},
      {"baselines:", "evaluate: {where: {lang: de}}\nbaselines:",
       "run.yaml:12: evaluate.where.lang: no column role that records can be chosen by; known: language, split, pool, "
       "group, id"},
      {"baselines:", "evaluate: {metrics: [accuracy, accuracy]}\nbaselines:",
       "run.yaml:12: evaluate.metrics.1: 'accuracy' is listed twice"},
  };
  for (const auto& c : cases) {
    ASSERT_NE(std::string(kGood).find(c.from), std::string::npos) << c.from;
    const std::string yaml = absl::StrReplaceAll(kGood, {{c.from, c.to}});
    EXPECT_EQ(absl::StrJoin(Mistakes(yaml), "\n"), c.expected) << yaml;
  }
}

TEST_F(RunFileTest, AnAddressTakesNoReplicas) {
  EXPECT_THAT(
      Mistakes(kGood, {"teachers.0={name: far, address: 'h:7000', replicas: 2}", "baselines=[gold]"}),
      ElementsAre("--set teachers.0={name: far, address: 'h:7000', replicas: 2}: teachers.0.replicas: goes with "
                  "train or package; a teacher with an address is not started here"));
}

TEST_F(RunFileTest, BaselinesNeedTheTeachersThatTheyLearnFrom) {
  EXPECT_THAT(Mistakes(kGood, {"teachers.0={name: far, package: FOLDER/package}", "baselines=[gold_all]"}),
              ElementsAre(HasSubstr("baselines.0: gold_all learns from the records of a teacher that is trained here "
                                    "too; no teacher has a train key")));
  EXPECT_THAT(Mistakes(kGood, {"student.losses=[{kind: task}]", "baselines=[pseudo_label]"}),
              ElementsAre(HasSubstr("baselines.0: pseudo_label learns from a teacher's arg-max; no loss of "
                                    "student.losses asks a teacher")));
}

TEST_F(RunFileTest, RulesNameTheSettingThatBreaksThem) {
  EXPECT_THAT(Mistakes(kGood, {"name=a b"}), ElementsAre(HasSubstr("--set name=a b: 'a b' is no name")));
  EXPECT_THAT(Mistakes(kGood, {"student.epoch=2"}),
              ElementsAre("--set student.epoch=2: unknown key; did you mean epochs?"));
}

TEST_F(RunFileTest, NoFileIsNamed) {
  const absl::Status status = ReadRunFile(folder_ + "/none.yaml", {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("none.yaml"));
}

}  // namespace
}  // namespace polystill::coordinator
