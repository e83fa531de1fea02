#include "models/transformer.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "models/package.h"
#include "runtime/counter_rng.h"
#include "runtime/files.h"

namespace polystill::models {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int64_t kVocabulary = 300;
constexpr int64_t kMaxLength = 100;

ModelShape SomeShape(v1::Student::Dtype dtype = v1::Student::DTYPE_FLOAT32) {
  ModelShape shape;
  shape.spec.set_kind(v1::Model::KIND_TRANSFORMER);
  shape.spec.set_width(24);
  shape.spec.set_layers(2);
  shape.spec.set_heads(3);
  shape.spec.set_dropout(0.2);
  shape.vocab_size = kVocabulary;
  shape.classes = 5;
  shape.dtype = dtype;
  shape.max_length = kMaxLength;
  return shape;
}

// Rows of 0 to 100 ids: all four buckets.
Rows SomeRows(size_t count) {
  Rows rows(count);
  for (size_t row = 0; row < count; ++row) {
    rows[row].resize(CombineKey(1, row) % (kMaxLength + 1));
    for (size_t i = 0; i < rows[row].size(); ++i) {
      rows[row][i] = static_cast<int32_t>(CombineKey(2, row, i) % kVocabulary);
    }
  }
  return rows;
}

std::vector<uint64_t> SomeKeys(size_t count) {
  std::vector<uint64_t> keys(count);
  for (size_t row = 0; row < count; ++row) keys[row] = CombineKey(3, row);
  return keys;
}

at::Tensor Flat(const nlohmann::json& numbers) { return at::tensor(numbers.get<std::vector<double>>(), at::kDouble); }

double Apart(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

// tests/references/transformer.py: weights by the same formula, torch.nn.TransformerEncoderLayer in float64.
nlohmann::json Reference() { return nlohmann::json::parse(std::ifstream("models/testdata/transformer.json")); }

std::unique_ptr<Model> ReferenceModel(const nlohmann::json& reference, v1::Task task) {
  ModelShape shape = SomeShape(v1::Student::DTYPE_FLOAT64);
  shape.task = task;
  shape.spec.set_dropout(0);
  shape.spec.set_width(reference["width"]);
  shape.spec.set_heads(reference["heads"]);
  shape.spec.set_layers(reference["layers"]);
  shape.spec.set_feed_forward(reference["feed_forward"]);
  shape.vocab_size = reference["vocabulary"];
  shape.classes = LogitCount(task, reference["classes"], shape.vocab_size);
  shape.max_length = reference["max_length"];
  auto model = MakeModel(shape, 0).value();
  int place = 0;
  for (const auto& [name, parameter] : model->NamedParameters()) {
    const at::NoGradGuard no_grad;
    const at::Tensor flat = at::arange(parameter.numel(), at::kDouble);
    const double center = name.ends_with("norm.weight") ? 1 : 0;
    parameter.copy_((at::sin(flat * 0.9 + 1.7 * place++) * 0.4 + center).reshape(parameter.sizes()));
  }
  return model;
}

void ExpectRows(const at::Tensor& rows, const nlohmann::json& expected) {
  ASSERT_EQ(rows.size(0), static_cast<int64_t>(expected.size()));
  for (size_t row = 0; row < expected.size(); ++row) EXPECT_LT(Apart(rows[row], Flat(expected[row])), 1e-10) << row;
}

TEST(TransformerTest, LogitsAndGradientsOfEachHeadAreThoseOfPyTorch) {
  const nlohmann::json reference = Reference();
  const auto rows = reference["rows"].get<Rows>();
  const Wanted wanted = {reference["positions"].get<Rows>(), {}};
  const std::pair<const char*, v1::Task> tasks[] = {{"classification", v1::TASK_CLASSIFICATION},
                                                    {"token_classification", v1::TASK_TOKEN_CLASSIFICATION},
                                                    {"masked_lm", v1::TASK_MASKED_LM}};
  for (const auto& [name_of_task, task] : tasks) {
    SCOPED_TRACE(name_of_task);
    const auto model = ReferenceModel(reference, task);
    const nlohmann::json& expected = reference["tasks"][name_of_task];
    for (const bool fixed_shape : {true, false}) {
      const at::Tensor logits = fixed_shape ? FixedShapeForward(*model, rows, wanted).logits
                                            : TrainingForward(*model, rows, SomeKeys(rows.size()), wanted).logits;
      ExpectRows(logits, expected["logits"]);
      const at::Tensor probe = at::cos(at::arange(logits.numel(), at::kDouble)).reshape(logits.sizes());
      (logits * probe).sum().backward();
      for (const auto& [name, parameter] : model->NamedParameters()) {
        EXPECT_LT(Apart(parameter.grad().flatten(), Flat(expected["gradients"][name])), 1e-10) << name;
        parameter.mutable_grad().reset();
      }
    }
  }
}

TEST(TransformerTest, FeaturesAreThoseOfPyTorch) {
  const nlohmann::json reference = Reference();
  const auto rows = reference["rows"].get<Rows>();
  const auto model = ReferenceModel(reference, v1::TASK_CLASSIFICATION);
  Wanted wanted;
  for (const auto& [name, width] : model->feature_widths()) {
    EXPECT_EQ(width, reference["width"].get<int64_t>());
    wanted.features.push_back(name);
  }
  ASSERT_EQ(wanted.features.size(), reference["features"].size());
  const Outputs fixed = FixedShapeForward(*model, rows, wanted);
  const Outputs training = TrainingForward(*model, rows, SomeKeys(rows.size()), wanted);
  for (const auto& [name, expected] : reference["features"].items()) {
    SCOPED_TRACE(name);
    ExpectRows(fixed.features.at(name), expected);
    ExpectRows(training.features.at(name), expected);
  }
  const Outputs none = TrainingForward(*model, {}, {}, wanted);
  for (const auto& [name, feature] : none.features) EXPECT_EQ(feature.sizes(), at::IntArrayRef({0, 8})) << name;
  EXPECT_THROW(FixedShapeForward(*model, rows, {{}, {"hidden.3"}}), c10::Error);
}

// A model that judges tokens: what each of them gets does not depend on which others are judged, nor on the other rows.
TEST(TransformerTest, ATokensBitsAreItsOwn) {
  const Rows rows = SomeRows(75);
  const std::pair<v1::Task, bool> cases[] = {{v1::TASK_TOKEN_CLASSIFICATION, false},
                                             {v1::TASK_TOKEN_CLASSIFICATION, true},
                                             {v1::TASK_MASKED_LM, false},
                                             {v1::TASK_MASKED_LM, true}};
  for (const auto& [task, frozen] : cases) {
    ModelShape shape = SomeShape();
    shape.task = task;
    shape.classes = LogitCount(task, 5, kVocabulary);
    const auto model = MakeModel(shape, 1).value();
    if (frozen) model->Freeze();
    const at::NoGradGuard no_grad;
    const Outputs all = FixedShapeForward(*model, rows, {{}, {HiddenName(1)}});
    int64_t tokens = 0;
    for (size_t row = 0; row < rows.size(); ++row) {
      const auto length = static_cast<int64_t>(rows[row].size());
      const Outputs alone = FixedShapeForward(*model, {rows[row]}, {{}, {HiddenName(1)}});
      ASSERT_TRUE(at::equal(alone.logits, all.logits.narrow(0, tokens, length))) << "row " << row;
      ASSERT_TRUE(
          at::equal(alone.features.at(HiddenName(1)), all.features.at(HiddenName(1)).narrow(0, tokens, length)));
      if (length > 2) {
        const at::Tensor two =
            FixedShapeForward(*model, {rows[row]}, {{{1, static_cast<int32_t>(length - 1)}}, {}}).logits;
        ASSERT_TRUE(at::equal(two[0], all.logits[tokens + 1]));
        ASSERT_TRUE(at::equal(two[1], all.logits[tokens + length - 1]));
      }
      tokens += length;
    }
    ASSERT_EQ(tokens, all.logits.size(0));
    EXPECT_THROW(FixedShapeForward(*model, {{1, 2}}, {{{2}}, {}}), c10::Error);
    EXPECT_THROW(FixedShapeForward(*model, {{1, 2}}, {{{0}, {0}}, {}}), c10::Error);
  }
}

TEST(TransformerTest, AnEmptySliceOfTokensGivesEveryParameterAGradientOfZeros) {
  for (const v1::Task task : {v1::TASK_TOKEN_CLASSIFICATION, v1::TASK_MASKED_LM}) {
    ModelShape shape = SomeShape();
    shape.task = task;
    shape.classes = LogitCount(task, 5, kVocabulary);
    const auto model = MakeModel(shape, 1).value();
    const std::pair<Rows, Wanted> slices[] = {{{}, {}}, {{{4, 5}}, {{{}}, {}}}};
    for (const auto& [rows, wanted] : slices) {
      const at::Tensor logits = TrainingForward(*model, rows, SomeKeys(rows.size()), wanted).logits;
      EXPECT_EQ(logits.sizes(), at::IntArrayRef({0, shape.classes}));
      logits.sum().backward();
      for (const auto& [name, parameter] : model->NamedParameters()) {
        ASSERT_TRUE(parameter.grad().defined()) << name;
        EXPECT_EQ(parameter.grad().abs().sum().item<double>(), 0) << name;
        parameter.mutable_grad().reset();
      }
    }
  }
}

TEST(TransformerTest, ARowsBitsAreItsOwn) {
  const Rows rows = SomeRows(75);
  const auto model = MakeModel(SomeShape(), 1).value();
  const std::pair<int, bool> cases[] = {{1, false}, {2, false}, {1, true}, {2, true}};
  for (const auto& [threads, frozen] : cases) {
    at::set_num_threads(threads);
    const at::Tensor with_gradients = FixedShapeForward(*model, rows).logits;
    const at::NoGradGuard no_grad;
    if (frozen) model->Freeze();
    const at::Tensor all = FixedShapeForward(*model, rows).logits;
    EXPECT_LT(Apart(with_gradients, all), frozen ? 1e-5 : 1e-30);
    ASSERT_TRUE(at::equal(all, FixedShapeForward(*model, rows).logits));
    EXPECT_TRUE(at::equal(all, FixedShapeForward(*model, Rows(rows.rbegin(), rows.rend())).logits.flip(0)));
    for (size_t row = 0; row < rows.size(); row += threads == 1 ? 1 : 7) {
      ASSERT_TRUE(at::equal(all[row], FixedShapeForward(*model, {rows[row]}).logits[0])) << "row " << row;
    }
  }
  at::set_num_threads(1);
}

TEST(TransformerTest, AFrozenModelKeepsWhatItWas) {
  const auto model = MakeModel(SomeShape(), 1).value();
  model->Freeze();
  const at::Tensor with_gradients = FixedShapeForward(*model, SomeRows(9)).logits;
  const at::NoGradGuard no_grad;
  const at::Tensor before = FixedShapeForward(*model, SomeRows(9)).logits;
  for (const auto& [name, parameter] : model->NamedParameters()) {
    if (name == "layer.1.feed_forward.inner.weight") parameter.mul_(2);
  }
  EXPECT_TRUE(at::equal(FixedShapeForward(*model, SomeRows(9)).logits, before));
  const at::AutoGradMode gradients(true);
  EXPECT_FALSE(at::equal(FixedShapeForward(*model, SomeRows(9)).logits, with_gradients));
}

// Also with dropout: the whole batch at once, and in slices as ranks and micro-batches take them.
TEST(TransformerTest, TrainingDoesNotDependOnTheSplit) {
  const Rows rows = SomeRows(40);
  const std::vector<uint64_t> keys = SomeKeys(40);
  const auto model = MakeModel(SomeShape(v1::Student::DTYPE_FLOAT64), 1).value();
  const at::NoGradGuard no_grad;
  const at::Tensor all = TrainingForward(*model, rows, keys).logits;
  EXPECT_GT(Apart(all, FixedShapeForward(*model, rows).logits), 0.01);
  for (const size_t piece : {1, 3, 16}) {
    for (size_t first = 0; first < rows.size(); first += piece) {
      const size_t last = std::min(rows.size(), first + piece);
      const at::Tensor some = TrainingForward(*model, Rows(rows.begin() + first, rows.begin() + last),
                                              {keys.begin() + first, keys.begin() + last})
                                  .logits;
      EXPECT_LT(Apart(some, all.narrow(0, first, last - first)), 1e-12) << first;
    }
  }
  std::vector<uint64_t> others = keys;
  others[5] += 1;
  const at::Tensor changed = TrainingForward(*model, rows, others).logits.ne(all).any(1);
  EXPECT_EQ(changed.sum().item<int64_t>(), rows[5].empty() ? 0 : 1);
}

TEST(TransformerTest, WithoutDropoutTrainingIsInference) {
  ModelShape shape = SomeShape(v1::Student::DTYPE_FLOAT64);
  shape.spec.set_dropout(0);
  const auto model = MakeModel(shape, 1).value();
  EXPECT_LT(
      Apart(TrainingForward(*model, SomeRows(40), SomeKeys(40)).logits, FixedShapeForward(*model, SomeRows(40)).logits),
      1e-12);
}

TEST(TransformerTest, ARowWithoutTokensIsTheHeadsBias) {
  const auto model = MakeModel(SomeShape(), 1).value();
  for (const Rows& rows : {Rows{{}}, Rows{{}, {4, 5}}}) {
    EXPECT_TRUE(at::equal(FixedShapeForward(*model, rows).logits[0], model->NamedParameters().back().second));
    const at::Tensor logits = TrainingForward(*model, rows, SomeKeys(rows.size())).logits;
    EXPECT_TRUE(at::equal(logits[0], model->NamedParameters().back().second));
    logits.sum().backward();
    for (const auto& [name, parameter] : model->NamedParameters()) {
      EXPECT_TRUE(at::isfinite(parameter.grad()).all().item<bool>()) << name;
    }
  }
}

TEST(TransformerTest, AnEmptySliceGivesEveryParameterAGradientOfZeros) {
  const auto model = MakeModel(SomeShape(), 1).value();
  const at::Tensor logits = TrainingForward(*model, {}, {}).logits;
  EXPECT_EQ(logits.sizes(), at::IntArrayRef({0, 5}));
  logits.sum().backward();
  for (const auto& [name, parameter] : model->NamedParameters()) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    EXPECT_EQ(parameter.grad().abs().sum().item<double>(), 0) << name;
  }
}

TEST(TransformerTest, RefusesIdsAndRowsThatDoNotFit) {
  const auto model = MakeModel(SomeShape(), 1).value();
  EXPECT_THROW(FixedShapeForward(*model, {{1, kVocabulary}}), c10::Error);
  EXPECT_THROW(FixedShapeForward(*model, {{1, -1}}), c10::Error);
  EXPECT_NO_THROW(FixedShapeForward(*model, {std::vector<int32_t>(kMaxLength, 1)}));
  EXPECT_THROW(FixedShapeForward(*model, {std::vector<int32_t>(kMaxLength + 1, 1)}), c10::Error);
}

// A masked language model becomes a classifier of shorter texts.
TEST(TransformerTest, StartsFromTheBodyOfAPackage) {
  const std::string folder = testing::TempDir() + "transformer_test-initial";
  ModelShape pretrained = SomeShape();
  pretrained.task = v1::TASK_MASKED_LM;
  pretrained.classes = kVocabulary;
  v1::Signature signature;
  signature.set_input(v1::Signature::INPUT_IDS);
  signature.set_vocab_size(kVocabulary);
  signature.set_max_length(kMaxLength);
  signature.set_task(v1::TASK_MASKED_LM);
  signature.set_mask_id(1);
  const auto from = MakeModel(pretrained, 5).value();
  ASSERT_TRUE(SavePackage(folder, "lm", *from, pretrained, signature, "").ok());

  ModelShape shape = SomeShape();
  shape.spec.set_initial(folder);
  shape.max_length = 40;
  const auto model = MakeModel(shape, 6).value();
  const auto fresh = MakeModel(shape, 6).value();
  ASSERT_TRUE(TakeInitialWeights(shape, "", model.get()).ok());
  const auto given = from->NamedParameters(), taken = model->NamedParameters(), drawn = fresh->NamedParameters();
  for (size_t i = 0; i < taken.size(); ++i) {
    SCOPED_TRACE(taken[i].first);
    const bool head = taken[i].first.starts_with("head.");
    const at::Tensor& expected = head ? drawn[i].second : given[i].second;
    EXPECT_TRUE(at::equal(taken[i].second, taken[i].first == "position.weight" ? expected.narrow(0, 0, 40) : expected));
  }

  const auto refused = [&](auto change) {
    ModelShape other = shape;
    change(&other);
    const auto unchanged = MakeModel(other, 6).value();
    const std::string before = WeightsDigest(*unchanged);
    const std::string message = TakeInitialWeights(other, "", unchanged.get()).ToString();
    EXPECT_EQ(WeightsDigest(*unchanged), before);
    return message;
  };
  EXPECT_THAT(refused([](ModelShape* s) { s->spec.set_heads(2); }), HasSubstr("model.heads: is 3, not 2"));
  EXPECT_THAT(refused([](ModelShape* s) { s->spec.set_layers(3); }), HasSubstr("model.layers: is 2, not 3"));
  EXPECT_THAT(refused([](ModelShape* s) { s->spec.set_layers(1); }), HasSubstr("model.layers: is 2, not 1"));
  EXPECT_THAT(refused([](ModelShape* s) { s->spec.set_kind(v1::Model::KIND_SUBWORD_BAG); }), HasSubstr("model.kind"));
  EXPECT_THAT(refused([](ModelShape* s) { s->spec.set_width(48); }), HasSubstr("model.width: is 24, not 48"));
  EXPECT_THAT(refused([](ModelShape* s) { s->max_length = 101; }), HasSubstr("'position.weight' is [100, 24]"));
  EXPECT_THAT(refused([](ModelShape* s) { s->spec.set_initial("/none"); }), HasSubstr("/none"));
}

TEST(TransformerTest, ShapesThatDoNotFitNameTheKey) {
  const auto message = [](auto change) {
    ModelShape shape = SomeShape();
    change(&shape);
    return MakeModel(shape, 0).status().ToString();
  };
  EXPECT_THAT(message([](ModelShape* s) { s->spec.set_width(25); }), HasSubstr("model.width: is 25, must be a multip"));
  EXPECT_THAT(message([](ModelShape* s) { s->spec.set_layers(0); }), HasSubstr("model.layers"));
  EXPECT_THAT(message([](ModelShape* s) { s->spec.set_heads(0); }), HasSubstr("model.heads"));
  EXPECT_THAT(message([](ModelShape* s) { s->spec.set_feed_forward(-1); }), HasSubstr("model.feed_forward"));
  EXPECT_THAT(message([](ModelShape* s) { s->spec.set_dropout(1); }), HasSubstr("model.dropout"));
  EXPECT_THAT(message([](ModelShape* s) { s->max_length = 0; }), HasSubstr("max_length"));
}

TEST(TransformerTest, APackageComesBackEqual) {
  const std::string folder = testing::TempDir() + "transformer_test-package";
  const ModelShape shape = SomeShape();
  v1::Signature signature;
  signature.set_input(v1::Signature::INPUT_IDS);
  signature.set_vocab_size(kVocabulary);
  signature.set_max_length(kMaxLength);
  for (const char* label : {"a", "b", "c", "d", "e"}) signature.add_labels(label);
  const auto model = MakeModel(shape, 1).value();
  ASSERT_TRUE(SavePackage(folder, "english", *model, shape, signature, "").ok());
  const absl::StatusOr<Package> package = LoadPackage(folder);
  ASSERT_TRUE(package.ok()) << package.status();
  const at::NoGradGuard no_grad;
  model->Freeze();  // as a package's is
  EXPECT_EQ(package->info.parameters, CountParameters(shape).value());
  EXPECT_TRUE(
      at::equal(FixedShapeForward(*package->model, SomeRows(9)).logits, FixedShapeForward(*model, SomeRows(9)).logits));

  const std::string yaml = ReadFile(folder + "/teacher.yaml").value();
  const auto status_with = [&](const char* from, const char* to) {
    EXPECT_THAT(yaml, HasSubstr(from));
    EXPECT_TRUE(WriteFileAtomically(folder + "/teacher.yaml", absl::StrReplaceAll(yaml, {{from, to}})).ok());
    return LoadPackage(folder).status();
  };
  EXPECT_THAT(status_with("feed_forward: 96", "feed_forward: 64").ToString(), HasSubstr("model.safetensors: holds"));
  EXPECT_THAT(status_with("max_length: 100", "max_length: 99").ToString(), HasSubstr("signature.max_length"));
  EXPECT_THAT(status_with("heads: 3", "heads: 5").ToString(), HasSubstr("model.width"));
  EXPECT_THAT(status_with("  heads: 3\n", "").ToString(), HasSubstr("teacher.yaml: model.heads: missing"));
  EXPECT_THAT(status_with("  layers: 2\n", "").ToString(), HasSubstr("teacher.yaml: model.layers: missing"));
}

}  // namespace
}  // namespace polystill::models
