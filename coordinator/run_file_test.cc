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
    ASSERT_TRUE(WriteFileAtomically(folder_ + "/package/teacher.yaml", "x").ok());
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
  EXPECT_THAT(spec.evaluate().metrics(),
              testing::ElementsAre(v1::Evaluate::METRIC_ACCURACY, v1::Evaluate::METRIC_MACRO_F1));
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

TEST_F(RunFileTest, ModelsAndMixturesOfEveryKind) {
  const struct {
    std::string written;
    std::string setting;
  } cases[] = {
      {"model: {kind: transformer, width: 96, layers: 2, heads: 3, feed_forward: 10, dropout: 0}", "name=x"},
      {"model: {kind: torchscript, path: FOLDER/file}", "name=x"},
      {"languages: {mixture: {kind: unimax, max_epochs: 1.5}}", "name=x"},
      {"languages: {targets: [de, fr], mixture: {kind: weights, weights: {fr: 1, de: 0.5}}}", "name=x"},
      {"languages: {mixture: {kind: weights, weights: {fr: 1}}}", "teachers.0.train.model.kind=transformer"},
      {"autocast: bfloat16\n  micro_batch: 8", "student.dtype=float32"},
  };
  for (const auto& test : cases) {
    const auto run = Read(absl::StrReplaceAll(kGood, {{"where: {pool: B}", test.written}}), {test.setting});
    ASSERT_TRUE(run.ok()) << run.status();
    const auto again = Read(WriteYaml(run->spec));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(run->spec, again->spec)) << test.written;
  }
}

TEST_F(RunFileTest, AModulesPathBecomesAbsolute) {
  const std::string relative = fs::relative(folder_ + "/file", fs::current_path());
  const auto run = Read(kGood, {"student.model.kind=torchscript", "student.model.path=" + relative,
                                "teachers.0.train.model.kind=torchscript", "teachers.0.train.model.path=" + relative});
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->spec.student().model().path(), folder_ + "/file");
  EXPECT_EQ(run->spec.teachers(0).train().model().path(), folder_ + "/file");
}

// What a task asks of the rest of the file.
TEST_F(RunFileTest, EachTaskHasItsRules) {
  const auto masked = [](std::vector<std::string> settings) {
    settings.insert(settings.begin(), {"task=masked_lm", "corpus.labels=[]", "evaluate.metrics=[accuracy, perplexity]",
                                       "student.model.kind=transformer", "teachers.0.train.model.kind=transformer"});
    return settings;
  };
  const struct {
    std::vector<std::string> settings;
    std::string expected;  // a part of the message; empty: fine
  } cases[] = {
      {{"task=classification"}, ""},
      {{"task=masked_lm"}, "corpus.labels: task: masked_lm predicts tokens, not labels; leave them out"},
      {masked({}), ""},
      {masked({"student.losses.0.kind=binary"}), "with masked_lm write soft_label"},
      {masked({"evaluate.metrics=[macro_f1]"}), "macro_f1 is of labels; with task: masked_lm write accuracy, top_k or"},
      {masked({"student.early_stopping.metric=macro_f1"}),
       "macro_f1 is of labels; with task: masked_lm write accuracy or loss"},
      {masked({"tokenizer.kind=ids"}), "tokenizer.mask_id: is -1; with task: masked_lm and kind: ids write the id"},
      {masked({"tokenizer.kind=ids", "tokenizer.mask_id=3"}), ""},
      {masked({"masking.random=0.7", "masking.keep=0.4"}), "masking: random and keep are shares"},
      {masked({"student.model.kind=subword_bag"}), "subword_bag judges whole texts; task: masked_lm needs transf"},
      {masked({"student.reads=source_text"}), "teachers.0.reads: the student reads source_text"},
      {{"task=ranking"}, "task"},
      {{"masking.share=0.3"}, "masking: goes with task: masked_lm only, not with classification"},
      {{"task=binary"},
       "student.losses.0.kind: soft_label is of one label among several, but with task: binary each "
       "has its sigmoid; write binary"},
      {{"task=binary", "student.losses.0.kind=binary"}, ""},
      {{"task=binary", "student.losses.0.kind=binary", "corpus.labels=[a, b, c]"},
       "has 3; task: binary needs exactly 2"},
      {{"task=multi_label", "student.losses.0.kind=binary", "corpus.labels=[a]"}, ""},
      {{"task=multi_label", "student.losses.0.kind=binary", "corpus.labels=[]"},
       "is missing or empty; write the classes"},
      {{"task=multi_label", "student.losses.0.kind=binary", "evaluate.metrics=[micro_precision, micro_recall]"}, ""},
      {{"task=multi_label", "student.losses.0.kind=binary", "evaluate.metrics=[top_k]"},
       "evaluate.metrics.0: top_k ranks one label among several; with task: multi_label write accuracy or macro_f1"},
      {{"evaluate.metrics=[accuracy, micro_recall]"}, "evaluate.metrics.1: micro_recall goes with task: multi_label"},
      {{"evaluate.metrics=[perplexity]"}, "evaluate.metrics.0: perplexity goes with task: masked_lm only"},
      {{"student.losses.0.kind=binary"},
       "binary goes with task: binary or multi_label; with classification write soft_label"},
      {{"task=token_classification", "student.model.kind=transformer", "teachers.0.train.model.kind=transformer"}, ""},
      {{"task=token_classification", "teachers.0.train.model.kind=transformer"},
       "student.model.kind: subword_bag judges whole texts; task: token_classification needs transformer"},
      {{"task=token_classification", "student.model.kind=transformer"}, "teachers.0.train.model.kind: subword_bag"},
      {{"task=token_classification", "student.model.kind=transformer", "teachers.0.train.model.kind=transformer",
        "student.reads=source_text"},
       "teachers.0.reads: the student reads source_text"},
  };
  for (const auto& test : cases) {
    const absl::Status status = Read(kGood, test.settings).status();
    const std::string settings = absl::StrJoin(test.settings, " ");
    if (test.expected.empty()) {
      EXPECT_TRUE(status.ok()) << settings << ": " << status;
    } else {
      EXPECT_THAT(std::string(status.message()), testing::HasSubstr(test.expected)) << settings;
    }
  }
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
       "run.yaml:3: corpus.labels: is missing or empty; write the classes, in the order of the model's outputs"},
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
       "run.yaml:8: teachers.1: has none of train, package, address and store; write exactly one\n"
       "run.yaml:12: student.losses.0: several teachers; write teacher: one of english, other"},
      {"    train:", "    package: FOLDER/package\n    train:",
       "run.yaml:6: teachers.0: has more than one of train, package, address and store; write exactly one"},
      {"    train: {where: {language: en, pool: A}}", "    package: FOLDER/none",
       "run.yaml:7: teachers.0.package: no such folder: FOLDER/none\n"
       "run.yaml:12: baselines.1: no_teacher learns from the records of a teacher that is trained here; no teacher has "
       "a "
       "train key"},
      {"    train: {where: {language: en, pool: A}}", "    package: FOLDER",
       "run.yaml:7: teachers.0.package: FOLDER is no model package: it holds no teacher.yaml; the packages of a run "
       "are the folders below its models/\n"
       "run.yaml:12: baselines.1: no_teacher learns from the records of a teacher that is trained here; no teacher has "
       "a train key"},
      {"    train: {where: {language: en, pool: A}}", "    address: far",
       "run.yaml:7: teachers.0.address: 'far' is not host:port\n"
       "run.yaml:12: baselines.0: zero_shot evaluates the package of the teacher that the student learns from; english "
       "has an address, write its package instead\n"
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
      {"where: {pool: B}", "languages: {mixture: {kind: temperature, max_epochs: 2}}",
       "run.yaml:9: student.languages.mixture.max_epochs: goes with kind: unimax only"},
      {"where: {pool: B}", "languages: {mixture: {kind: unimax, weights: {de: 1}}}",
       "run.yaml:9: student.languages.mixture.weights: goes with kind: weights only"},
      {"where: {pool: B}", "languages: {mixture: {kind: weights}}",
       "run.yaml:9: student.languages.mixture.weights: kind: weights needs weights; write a share for each language"},
      {"where: {pool: B}", "languages: {targets: [de, fr], mixture: {kind: weights, weights: {de: 1, frr: 2}}}",
       "run.yaml:9: student.languages.mixture.weights: has no share for 'fr' of languages.targets\n"
       "run.yaml:9: student.languages.mixture.weights.frr: is none of languages.targets; did you mean fr?"},
      {"where: {pool: B}", "model: {layers: 2, heads: 2, feed_forward: 8, dropout: 0}",
       "run.yaml:9: student.model.dropout: goes with kind: transformer only\n"
       "run.yaml:9: student.model.feed_forward: goes with kind: transformer only\n"
       "run.yaml:9: student.model.heads: goes with kind: transformer only\n"
       "run.yaml:9: student.model.layers: goes with kind: transformer only"},
      {"where: {pool: B}", "model: {kind: transformer, hidden_layers: 1, path: FOLDER/file}",
       "run.yaml:9: student.model.hidden_layers: goes with kind: subword_bag only\n"
       "run.yaml:9: student.model.path: goes with kind: torchscript only"},
      {"where: {pool: B}", "model: {kind: transformer, width: 100, heads: 8}",
       "run.yaml:9: student.model.width: must be a multiple of heads, which is 8; got 100"},
      {"where: {pool: B}", "model: {kind: torchscript, width: 64}",
       "run.yaml:9: student.model.width: goes with kind: subword_bag or transformer only\n"
       "run.yaml:9: student.model.path: missing; write the file of the TorchScript module"},
      {"where: {pool: B}", "model: {kind: torchscript, path: FOLDER/none.pt}",
       "run.yaml:9: student.model.path: no such file: FOLDER/none.pt"},
      {"pool: A}}", "pool: A}, model: {heads: 3}}",
       "run.yaml:7: teachers.0.train.model.heads: goes with kind: transformer only"},
      {"where: {pool: B}", "dtype: float64\n  autocast: bfloat16",
       "run.yaml:10: student.autocast: bfloat16 goes with dtype: float32 only"},
      {"where: {pool: B}", "workers: 3\n  min_workers: 4\n  max_workers: 2",
       "run.yaml:10: student.min_workers: is 4, more than the workers to start with, 3; write at most so many\n"
       "run.yaml:11: student.max_workers: is 2, fewer than the workers to start with, 3; write at least so many"},
      {"where: {pool: B}", "workers: 3\n  evict_slower_than: 1.2",
       "run.yaml:10: student.evict_slower_than: is 1.2, but a worker is slow from 1.5 times on; write at least so "
       "much, or 0"},
      {"kind: soft_label", "kind: logit_mse",
       "run.yaml:11: student.losses.0.temperature: goes with kind: soft_label or binary only"},
      {"{kind: soft_label, temperature: 2}", "{kind: soft_label, distance: cosine, layers: [{student: 0, teacher: 0}]}",
       "run.yaml:11: student.losses.0.distance: goes with kind: embedding or hidden only\n"
       "run.yaml:11: student.losses.0.layers: goes with kind: hidden only\n"
       "run.yaml:11: student.losses.0.layers.0.student: the student is a subword_bag, which has no layers; take a "
       "transformer, or the loss embedding"},
      {"temperature: 2", "codec: top_k, k: 4, draws_per_token: 8, draws: per_epoch",
       "run.yaml:11: student.losses.0.k: is 4, but there are 2 logits; write at most so many\n"
       "run.yaml:11: student.losses.0.draws: goes with codec: sampled only\n"
       "run.yaml:11: student.losses.0.draws_per_token: goes with codec: sampled only"},
      {"temperature: 2", "codec: sampled, k: 4", "run.yaml:11: student.losses.0.k: goes with codec: top_k only"},
      {"temperature: 2", "codec: classes",
       "run.yaml:11: student.losses.0.codec: classes does not carry what soft_label needs; write one of dense_fp32, "
       "dense_fp16, dense_bf16, dense_int8, hidden_head, top_k, sampled"},
      {"temperature: 2", "codec: sampled, draws_per_token: 65537",
       "run.yaml:11: student.losses.0.draws_per_token: must be at most 65536, got 65537"},
      {"temperature: 2", "teacher: englsh",
       "run.yaml:11: student.losses.0.teacher: no teacher is called 'englsh'; did you mean english?"},
      {"temperature: 2", "weight: 0", "run.yaml:10: student.losses: all weights are 0: nothing would be learned"},
      {"{kind: soft_label, temperature: 2}", "{kind: task, teacher: english}",
       "run.yaml:11: student.losses.0.teacher: task learns from gold labels, not from a teacher"},
      {"teachers:\n  - name: english\n    train: {where: {language: en, pool: A}}\n", "",
       "run.yaml:8: student.losses.0: soft_label needs a teacher; add one under teachers\n"
       "run.yaml:9: baselines.0: zero_shot evaluates the package of the teacher that the student learns from; no "
       "teacher has a train or package key\n"
       "run.yaml:9: baselines.1: no_teacher learns from the records of a teacher that is trained here; no teacher has "
       "a "
       "train key"},
      {"gold]", "gold, pseudo_label, gold_all]", ""},
      {"gold]", "gold, gold]", "run.yaml:12: baselines.3: 'gold' is listed twice"},
      {"baselines:", "evaluate: {where: {lang: de}}\nbaselines:",
       "run.yaml:12: evaluate.where.lang: no column role that records can be chosen by; known: language, split, pool, "
       "group, id"},
      {"corpus: {path: FOLDER/corpus, ",
       "evaluate: {where: {lang: de}}\ncorpus: {path: FOLDER/corpus, columns: {language: lang}, ",
       "run.yaml:3: evaluate.where.lang: no column role that records can be chosen by; the column is that of the role "
       "language: write language"},
      {"baselines:", "evaluate: {languages: [de, de]}\nbaselines:",
       "run.yaml:12: evaluate.languages.1: 'de' is listed twice"},
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

TEST_F(RunFileTest, LayersAreThoseThatTheModelsHave) {
  const std::vector<std::string> sound = {
      "student.model={kind: transformer, layers: 2}", "teachers.0.train.model={kind: transformer, layers: 3}",
      "teachers.0.reads=text",
      "student.losses=[{kind: hidden, layers: [{student: 2, teacher: 3}]}, {kind: soft_label}]"};
  EXPECT_THAT(Mistakes(kGood, sound), ElementsAre());
  struct Case {
    std::string setting;
    std::string mistake;
  };
  const Case cases[] = {
      {"student.losses.0={kind: hidden}", "hidden needs layers; write which layer"},
      {"student.losses.0.layers.0.student=3", "the student has no layer 3; it has 0, the embedding, to 2"},
      {"student.losses.0.layers.0.teacher=4", "teacher 'english' has no layer 4; it has 0, the embedding, to 3"},
      {"teachers.0.train.model={kind: subword_bag}", "teacher 'english' is a subword_bag, which has no layers"},
      {"teachers.0.reads=source_text", "but teacher 'english' and the student read different sides of a record"},
  };
  for (const Case& c : cases) {
    std::vector<std::string> settings = sound;
    settings.push_back(c.setting);
    EXPECT_THAT(Mistakes(kGood, settings), ElementsAre(HasSubstr(c.mistake))) << c.setting;
  }
}

TEST_F(RunFileTest, PseudoLabelsNeedALossOnLogits) {
  EXPECT_THAT(Mistakes(kGood, {"student.losses=[{kind: embedding}]", "baselines=[pseudo_label]"}),
              ElementsAre(HasSubstr("no loss of student.losses asks a teacher for logits")));
}

TEST_F(RunFileTest, RulesNameTheSettingThatBreaksThem) {
  EXPECT_THAT(Mistakes(kGood, {"name=a b"}), ElementsAre(HasSubstr("--set name=a b: 'a b' is no name")));
  EXPECT_THAT(Mistakes(kGood, {"student.epoch=2"}),
              ElementsAre("--set student.epoch=2: unknown key; did you mean epochs?"));
}

TEST_F(RunFileTest, ACorpusMayBeAUri) {
  for (const char* uri : {"s3://bucket/corpus", "file:///none/corpus"}) {
    const auto run = Read(absl::StrReplaceAll(kGood, {{"FOLDER/corpus", uri}}));
    ASSERT_TRUE(run.ok()) << run.status();
    EXPECT_EQ(run->spec.corpus().path(), uri);
  }
}

TEST_F(RunFileTest, NoFileIsNamed) {
  const absl::Status status = ReadRunFile(folder_ + "/none.yaml", {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("none.yaml"));
}

// A run file with keys of models and baselines that other releases have: each is named with what is known here.
TEST_F(RunFileTest, UnknownModelsAndBaselinesAreNamed) {
  EXPECT_THAT(Mistakes(R"(version: 1
name: package-topics
seed: 7
corpus:
  path: FOLDER/corpus          # folder; Parquet or JSONL
  columns: {id: id, language: language, text: text, source_text: source_text, label: label, split: split, group: group, pool: pool}
  labels: [net, devel, science, desktop, admin, text, games, av, l10n, graphics]
tokenizer: {kind: sentencepiece, vocab_size: 24000}
teachers:
  - name: english
    train: {model: {kind: transformor, layer: 4, width: 256}, where: {language: en, pool: A}, loss: task, epochs: 6}
    reads: source_text
    replicas: 2
student:
  model: {kind: subword_bag, width: 128}
  reads: text
  where: {pool: B}
  languages: {targets: [de, fr, ja], mixture: {kind: temperature, tau: 2.0}}
  losses:
    - {kind: soft_label, weight: 1.0, temperature: 2.0, codec: dense_fp16}
  optimizer: {kind: adamw, lr: 5e-3, weight_decay: 0.01, schedule: cosine, warmup_steps: 50, clip_norm: 1.0}
  batch_size: 64
  epochs: 8
  workers: 2
  device: cpu
baselines: [zero_shot, no_teacher, pseudo_label, gold, silver]
evaluate: {where: {split: test}, metrics: [accuracy, macro_f1]}
output: runs/package-topics
)"),
              ElementsAre("run.yaml:11: teachers.0.train.model.kind: unknown value 'transformor'; known: subword_bag, "
                          "transformer, torchscript; did you mean transformer?",
                          HasSubstr("run.yaml:11: teachers.0.train.model.layer: unknown key"),
                          HasSubstr("run.yaml:26: baselines.4: unknown value 'silver'")));
}

}  // namespace
}  // namespace polystill::coordinator
