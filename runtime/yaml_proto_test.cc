#include "runtime/yaml_proto.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "polystill/v1/run.pb.h"
#include "runtime/nearest_name.h"

namespace polystill {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

constexpr char kSmall[] = R"(version: 1
name: topics
corpus: {path: data, labels: [net, "no", 1.10]}
tokenizer: {kind: ids}
student:
  where: {pool: B}
  losses:
    - kind: soft_label
      temperature: 2
)";

std::vector<std::string> Mistakes(const std::string& yaml, const std::vector<std::string>& settings = {}) {
  v1::RunSpec spec;
  const absl::Status status = ReadYaml(yaml, "run.yaml", settings, &spec);
  if (status.ok()) return {};
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return absl::StrSplit(std::string(status.message()), '\n');
}

TEST(ReadYaml, ReadsValuesAndFillsDefaults) {
  v1::RunSpec spec;
  YamlLines lines;
  ASSERT_EQ(ReadYaml(kSmall, "run.yaml", {}, &spec, &lines).ToString(), "OK");
  EXPECT_EQ(spec.name(), "topics");
  EXPECT_THAT(spec.corpus().labels(), ElementsAre("net", "no", "1.10"));
  EXPECT_EQ(spec.corpus().columns().source_text(), "source_text");
  EXPECT_EQ(spec.tokenizer().kind(), v1::Tokenizer::KIND_IDS);
  EXPECT_EQ(spec.student().where().at("pool"), "B");
  EXPECT_EQ(spec.student().losses(0).kind(), v1::LOSS_KIND_SOFT_LABEL);
  EXPECT_EQ(spec.student().losses(0).temperature(), 2.0);
  EXPECT_EQ(spec.student().losses(0).weight(), 1.0);
  EXPECT_EQ(spec.student().losses(0).codec(), v1::CODEC_DENSE_FP16);
  EXPECT_EQ(spec.student().optimizer().lr(), 1e-3);
  EXPECT_EQ(spec.student().languages().mixture().kind(), v1::Mixture::KIND_PROPORTIONAL);
  EXPECT_THAT(spec.evaluate().metrics(), ElementsAre(v1::Evaluate::METRIC_ACCURACY, v1::Evaluate::METRIC_MACRO_F1));
  EXPECT_EQ(spec.teachers_size(), 0);

  EXPECT_EQ(lines.LineOf("student.losses.0.temperature"), 9);
  EXPECT_EQ(lines.LineOf("student.losses.0.weight"), 8);
  EXPECT_EQ(lines.LineOf("evaluate"), 1);
  EXPECT_EQ(lines.Locate("student.where.split"), "run.yaml:6: student.where.split");
}

TEST(ReadYaml, WrittenZeroIsNoDefault) {
  v1::RunSpec spec;
  ASSERT_TRUE(ReadYaml(absl::StrCat(kSmall, "  optimizer: {weight_decay: 0}\n"), "f", {}, &spec).ok());
  EXPECT_EQ(spec.student().optimizer().weight_decay(), 0.0);
}

TEST(ReadYaml, AnchorsAreCopiedOut) {
  v1::RunSpec spec;
  const std::string yaml = absl::StrCat(kSmall, R"(  optimizer: &o {lr: 0.5}
teachers:
  - name: a
    train: {optimizer: *o}
)");
  ASSERT_EQ(ReadYaml(yaml, "f", {"student.optimizer.lr=0.25"}, &spec).ToString(), "OK");
  EXPECT_EQ(spec.student().optimizer().lr(), 0.25);
  EXPECT_EQ(spec.teachers(0).train().optimizer().lr(), 0.5);
}

TEST(ReadYaml, EachKindOfMistakeHasItsLineAndMessage) {
  const struct {
    std::string added;  // from line 10 on
    std::string expected;
  } cases[] = {
      {"  batch_sise: 4", "run.yaml:10: student.batch_sise: unknown key; did you mean batch_size?"},
      {"zzzzzzzz: 4",
       "run.yaml:10: zzzzzzzz: unknown key; known: version, name, seed, corpus, tokenizer, teachers, "
       "student, baselines, evaluate, output"},
      {"  batch_size: abc", "run.yaml:10: student.batch_size: expected a whole number, got 'abc'"},
      {"  batch_size: 1.5", "run.yaml:10: student.batch_size: expected a whole number, got '1.5'"},
      {"  batch_size: [1]", "run.yaml:10: student.batch_size: expected a whole number, got a list"},
      {"  batch_size:", "run.yaml:10: student.batch_size: expected a whole number, got nothing"},
      {"  batch_size: 0", "run.yaml:10: student.batch_size: must be at least 1, got 0"},
      {"  batch_size: 1048577", "run.yaml:10: student.batch_size: must be at most 1048576, got 1048577"},
      {"  batch_size: 99999999999",
       "run.yaml:10: student.batch_size: expected a whole number from -2147483648 to 2147483647, got '99999999999'"},
      {"seed: -1", "run.yaml:10: seed: expected a whole number from 0 to 18446744073709551615, got '-1'"},
      {"  epochs: 0", "run.yaml:10: student.epochs: must be above 0, got 0"},
      {"  epochs: many", "run.yaml:10: student.epochs: expected a number, got 'many'"},
      {"  epochs: nan", "run.yaml:10: student.epochs: expected a number, got 'nan'"},
      {"  optimizer: {momentum: 1}", "run.yaml:10: student.optimizer.momentum: must be at most 0.999999, got 1"},
      {"  model: {kind: transformor}",
       "run.yaml:10: student.model.kind: unknown value 'transformor'; known: subword_bag, transformer, torchscript; "
       "did "
       "you mean transformer?"},
      {"  languages: {mixture: {weights: {de: much}}}",
       "run.yaml:10: student.languages.mixture.weights.de: expected a number, got 'much'"},
      {"  languages: {mixture: {weights: {de: 0}}}",
       "run.yaml:10: student.languages.mixture.weights.de: must be above 0, got 0"},
      {"  reads: sorce_text",
       "run.yaml:10: student.reads: unknown value 'sorce_text'; known: text, source_text; did you mean source_text?"},
      {"  reads: unspecified", "run.yaml:10: student.reads: unknown value 'unspecified'; known: text, source_text"},
      {"  reads: {a: b}", "run.yaml:10: student.reads: expected one of: text, source_text, got keys and values"},
      {"baselines: gold", "run.yaml:10: baselines: expected a list (write [gold]), got 'gold'"},
      {"baselines: {gold: 1}",
       "run.yaml:10: baselines: expected a list (write each entry after a dash), got keys and values"},
      {"baselines: [gold,\n  silver]",
       "run.yaml:11: baselines.1: unknown value 'silver'; known: zero_shot, no_teacher, gold, pseudo_label, gold_all"},
      {"name: twice", "run.yaml:10: name: is written twice, first in line 2"},
      {"evaluate: {where: {split: a, split: b}}",
       "run.yaml:10: evaluate.where.split: is written twice, first in line 10"},
      {"evaluate: {where: test}", "run.yaml:10: evaluate.where: expected keys and values ({key: value}), got 'test'"},
      {"evaluate: {where: {split: [a]}}", "run.yaml:10: evaluate.where.split: expected one value, got a list"},
      {"evaluate: test", "run.yaml:10: evaluate: expected keys and values (key: value), got 'test'"},
      {"output: [a]", "run.yaml:10: output: expected text, got a list"},
      {"teachers:\n  - replicas: 1",
       "run.yaml:11: teachers.0.name: is missing; write letters, digits, '-', '_' and '.'"},
      {"teachers:\n  - {name: ''}",
       "run.yaml:11: teachers.0.name: must not be empty; write letters, digits, '-', '_' and '.'"},
      {"? [a]\n: b", "run.yaml:10: cannot be read as YAML: a key must be a plain word"},
      {"output: [a", "run.yaml:11: cannot be read as YAML: end of sequence flow not found"},
      {"output: a\n]", "run.yaml:11: cannot be read as YAML: illegal flow end"},
      {"output: a: b", "run.yaml:10: cannot be read as YAML: illegal map value"},
      {"output: *none", "run.yaml:10: cannot be read as YAML: the referenced anchor is not defined"},
      {"output: a\xff", "run.yaml:10: is not UTF-8 text"},
      {"output: \xed\xa0\x80", "run.yaml:10: is not UTF-8 text"},
      {"---\nversion: 1", "run.yaml:10: cannot be read as YAML: a second document begins (---); write one only"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(Mistakes(absl::StrCat(kSmall, c.added, "\n")), ElementsAre(c.expected)) << c.added;
  }
}

TEST(ReadYaml, ListsEveryMistakeInTheOrderOfTheFile) {
  EXPECT_THAT(
      Mistakes("version: 2\nnaem: x\ntokenizer: {}\nstudent:\n  losses: []\n  workers: -1\n"),
      ElementsAre("run.yaml:1: version: must be at most 1, got 2",
                  "run.yaml:1: name: is missing; write name of the run: letters, digits, '-', '_' and '.'",
                  "run.yaml:1: corpus: is missing; write where the records are and how their columns are called",
                  "run.yaml:2: naem: unknown key; did you mean name?",
                  "run.yaml:5: student.losses: must not be empty; write weighted sum of losses",
                  "run.yaml:6: student.workers: must be at least 1, got -1"));
  std::string many = kSmall;
  for (int i = 0; i < 60; ++i) absl::StrAppend(&many, "qqqqqqqqqqq", i, ": 1\n");
  const std::vector<std::string> mistakes = Mistakes(many);
  ASSERT_EQ(mistakes.size(), 51u);
  EXPECT_EQ(mistakes.back(), "and 10 more");
}

// yaml-cpp's own loader never comes back from such a text.
TEST(ReadYaml, StrayMarksEnd) {
  EXPECT_THAT(Mistakes(",a"), ElementsAre("run.yaml:1: cannot be read as YAML: what stands here belongs to no key"));
}

TEST(ReadYaml, EmptyFileIsAllMissing) { EXPECT_EQ(Mistakes("").size(), 5u); }

TEST(ReadYaml, SettingsReplaceAndAdd) {
  v1::RunSpec spec;
  YamlLines lines;
  const std::vector<std::string> settings = {"student.epochs=2", "student.losses.0.temperature=4",
                                             "evaluate.where.pool=C", "baselines=[gold, zero_shot]",
                                             "student.epochs=3"};
  ASSERT_EQ(ReadYaml(kSmall, "run.yaml", settings, &spec, &lines).ToString(), "OK");
  EXPECT_EQ(spec.student().epochs(), 3.0);
  EXPECT_EQ(spec.student().losses(0).temperature(), 4.0);
  EXPECT_EQ(spec.evaluate().where().at("pool"), "C");
  EXPECT_THAT(spec.baselines(), ElementsAre(v1::BASELINE_GOLD, v1::BASELINE_ZERO_SHOT));
  EXPECT_EQ(lines.Locate("student.epochs"), "--set student.epochs=3");
  EXPECT_EQ(lines.Locate("baselines.1"), "--set baselines=[gold, zero_shot]: baselines.1");
}

TEST(ReadYaml, MistakesInSettingsNameTheSetting) {
  const struct {
    std::string setting, expected;
  } cases[] = {
      {"student.epoch=2", "--set student.epoch=2: unknown key; did you mean epochs?"},
      {"studnt.epochs=2", "--set studnt.epochs=2: studnt: unknown key; did you mean student?"},
      {"student.epochs=x", "--set student.epochs=x: expected a number, got 'x'"},
      {"student.epochs=", "--set student.epochs=: expected a number, got nothing"},
      {"baselines=[gold, x]",
       "--set baselines=[gold, x]: baselines.1: unknown value 'x'; known: zero_shot, no_teacher, gold, pseudo_label, "
       "gold_all"},
      {"student.losses.1.weight=2",
       "--set student.losses.1.weight=2: there is no entry 1 in a list of 1 (the first is 0)"},
      {"name.x=2", "--set name.x=2: there is no x in a single value"},
      {"name=", "--set name=: expected text, got nothing"},
      {"name=''", "--set name='': must not be empty; write name of the run: letters, digits, '-', '_' and '.'"},
      {"student.losses=", "--set student.losses=: must not be empty; write weighted sum of losses"},
      {"corpus.labels=a", "--set corpus.labels=a: expected a list (write [a]), got 'a'"},
      {"student", "--set student: write it as key=value, e.g. student.epochs=2"},
      {"a..b=1", "--set a..b=1: the key must be words with single dots between, e.g. student.epochs=2"},
      {"baselines=[gold}", "--set baselines=[gold}: value:1: cannot be read as YAML: illegal flow end"},
  };
  for (const auto& c : cases) EXPECT_THAT(Mistakes(kSmall, {c.setting}), ElementsAre(c.expected));
}

TEST(ReadYaml, SizeDepthAndAliasesAreBounded) {
  EXPECT_THAT(Mistakes(std::string((1 << 20) + 1, ' ')), ElementsAre(HasSubstr("at most 1048576 are read")));
  EXPECT_THAT(Mistakes(absl::StrCat("output: ", std::string(100, '['), std::string(100, ']'))),
              ElementsAre("run.yaml:1: cannot be read as YAML: nested more than 64 deep"));
  EXPECT_THAT(Mistakes(absl::StrCat("output: ", std::string(500000, '['))),
              ElementsAre(HasSubstr("cannot be read as YAML")));
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string before = absl::StrCat("*a", i - 1, ", ");
    absl::StrAppend(&bomb, "a", i, ": &a", i, " [", before, before, before, before, before, "*a", i - 1, "]\n");
  }
  EXPECT_THAT(Mistakes(bomb), ElementsAre(HasSubstr("more than 100000 values")));
  EXPECT_THAT(Mistakes("output: &a [*a]\n"), ElementsAre(HasSubstr("an anchor cannot hold itself")));
}

// Text of any kind ends in a status, never in an exception or a crash.
TEST(ReadYaml, RandomTextIsAnswered) {
  constexpr char kPieces[] = "[]{}:,-?&*!|>'\"#%@ \n\t~ab1.<=\\";
  uint64_t state = 1;
  for (int round = 0; round < 20000; ++round) {
    std::string text = round % 2 == 0 ? "" : "student: {losses: ";
    for (int i = 0; i < 24; ++i) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      text += kPieces[(state >> 33) % (sizeof(kPieces) - 1)];
    }
    EXPECT_FALSE(Mistakes(text).empty()) << text;
  }
}

TEST(WriteYaml, ReadsBackEqual) {
  v1::RunSpec spec, again;
  const std::string yaml = absl::StrCat(kSmall, R"(  optimizer: {weight_decay: 0, lr: 5e-3, eps: 1.2345678901234567e-9}
  languages: {targets: ["no", zh_CN, "1.10", "ja: x", "", "日本"], mixture: {kind: weights, weights: {"no": 0.1, zh_CN: 3}}}
teachers:
  - {name: a, train: {where: {pool: A, language: "no"}}}
  - {name: b, package: "a b/c#d"}
baselines: [gold]
evaluate: {metrics: [accuracy]}
)");
  ASSERT_EQ(ReadYaml(yaml, "f", {}, &spec).ToString(), "OK");
  const std::string written = WriteYaml(spec);
  ASSERT_EQ(ReadYaml(written, "f", {}, &again).ToString(), "OK") << written;
  EXPECT_TRUE(MessageDifferencer::Equals(spec, again)) << written;
  EXPECT_EQ(WriteYaml(again), written);
  EXPECT_THAT(written, HasSubstr("\"no\""));
  EXPECT_THAT(written, HasSubstr("weight_decay: 0\n"));
}

TEST(FillDefaults, FillsSetSubMessagesOnly) {
  v1::RunSpec spec;
  spec.add_teachers()->set_name("a");
  spec.mutable_student()->add_losses();
  FillDefaults(&spec);
  EXPECT_FALSE(spec.has_corpus());
  EXPECT_FALSE(spec.teachers(0).has_train());
  EXPECT_EQ(spec.teachers(0).replicas(), 1);
  EXPECT_EQ(spec.student().losses(0).weight(), 1.0);
  EXPECT_EQ(spec.student().model().width(), 128);
}

TEST(EnumName, DropsThePrefixOfTheType) {
  EXPECT_EQ(EnumName(v1::LossKind_descriptor()->FindValueByName("LOSS_KIND_SOFT_LABEL")), "soft_label");
  EXPECT_EQ(EnumName(v1::Tokenizer::Kind_descriptor()->FindValueByName("KIND_IDS")), "ids");
}

TEST(DescribeKeys, HasALineAKey) {
  const std::string keys = DescribeKeys(v1::RunSpec::descriptor());
  EXPECT_THAT(keys, StartsWith("version: whole number (required)  # version of the run file's format; 1\n"));
  EXPECT_THAT(keys, HasSubstr("\nteachers.N.train.optimizer.kind: adamw|adam|sgd = adamw  # adamw, adam or sgd\n"));
  EXPECT_THAT(keys, HasSubstr("\nstudent.where: keys and values  # records it learns from"));
  EXPECT_THAT(keys, HasSubstr("\nbaselines: list of zero_shot|no_teacher|gold|pseudo_label|gold_all  #"));
}

TEST(NearestName, FindsWhatWasMeant) {
  const std::vector<std::string> names = {"text", "source_text", "epochs", "id"};
  const struct {
    std::string word, nearest;
  } cases[] = {{"epoch", "epochs"}, {"txet", "text"},        {"sourcetext", "source_text"}, {"x", ""}, {"", ""},
               {"ids", "id"},       {"completely else", ""}, {std::string(1000, 'e'), ""}};
  for (const auto& c : cases) EXPECT_EQ(NearestName(c.word, names), c.nearest) << c.word;
}

}  // namespace
}  // namespace polystill
