#include "models/model.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "runtime/counter_rng.h"

namespace polystill::models {
namespace {

using testing::HasSubstr;

constexpr int64_t kVocabulary = 500;

ModelShape ShapeOf(int width, int hidden_layers, v1::Student::Dtype dtype = v1::Student::DTYPE_FLOAT32) {
  ModelShape shape;
  shape.spec.set_kind(v1::Model::KIND_SUBWORD_BAG);
  shape.spec.set_width(width);
  shape.spec.set_hidden_layers(hidden_layers);
  shape.vocab_size = kVocabulary;
  shape.classes = 10;
  shape.dtype = dtype;
  return shape;
}

// Rows of 1 to 150 ids.
Rows SomeRows(size_t count) {
  Rows rows(count);
  for (size_t row = 0; row < count; ++row) {
    rows[row].resize(1 + CombineKey(1, row) % 150);
    for (size_t i = 0; i < rows[row].size(); ++i) {
      rows[row][i] = static_cast<int32_t>(CombineKey(2, row, i) % kVocabulary);
    }
  }
  return rows;
}

TEST(ModelTest, BatchesAreRaggedAndFilledUp) {
  const Rows rows = {{5}, {1, 2, 3}, {}};
  const TokenBatch plain = MakeBatch(rows);
  EXPECT_TRUE(at::equal(plain.ids, at::tensor({5, 1, 2, 3}, at::kLong)));
  EXPECT_TRUE(at::equal(plain.offsets, at::tensor({0, 1, 4, 4}, at::kLong)));
  const TokenBatch rows_filled = MakeBatch({{1, 2, 3}}, {.rows = 3});
  EXPECT_TRUE(at::equal(rows_filled.ids, at::tensor({1, 2, 3, 0, 0}, at::kLong)));
  EXPECT_TRUE(at::equal(rows_filled.offsets, at::tensor({0, 3, 4, 5}, at::kLong)));
  const TokenBatch tokens_filled = MakeBatch({{1, 2, 3}}, {.rows = 3, .tokens = 5});
  EXPECT_TRUE(at::equal(tokens_filled.ids, at::tensor({1, 2, 3, 0, 0}, at::kLong)));
  EXPECT_TRUE(at::equal(tokens_filled.offsets, at::tensor({0, 3, 3, 3}, at::kLong)));
}

// The bag written out with plain operations in float64.
TEST(ModelTest, ForwardIsTheFormula) {
  const auto model = MakeModel(ShapeOf(12, 2, v1::Student::DTYPE_FLOAT64), 3).value();
  std::map<std::string, at::Tensor> p;
  for (const auto& [name, tensor] : model->NamedParameters()) p[name] = tensor.detach();
  for (const std::vector<int32_t>& ids : Rows{{4, 4, 9}, {499}, {}}) {
    at::Tensor x = at::zeros({12}, at::kDouble);
    for (const int32_t id : ids) x += p["embedding.weight"][id] / static_cast<double>(ids.size());
    x = (x - x.mean()) / (x.var(/*unbiased=*/false) + 1e-5).sqrt() * p["norm.weight"] + p["norm.bias"];
    for (const char* layer : {"hidden.0", "hidden.1"}) {
      x = p[std::string(layer) + ".weight"].matmul(x) + p[std::string(layer) + ".bias"];
      x = x * 0.5 * (1 + at::erf(x / std::sqrt(2.0)));
    }
    const at::Tensor expected = p["head.weight"].matmul(x) + p["head.bias"];
    EXPECT_TRUE(at::allclose(model->Forward(MakeBatch({ids})).logits[0], expected, 1e-12, 1e-12));
  }
}

TEST(ModelTest, NamesAndShapes) {
  const auto model = MakeModel(ShapeOf(32, 1), 0).value();
  std::vector<std::string> names;
  for (const auto& [name, tensor] : model->NamedParameters()) {
    names.push_back(name);
    EXPECT_TRUE(tensor.requires_grad()) << name;
  }
  EXPECT_THAT(names, testing::ElementsAre("embedding.weight", "norm.weight", "norm.bias", "hidden.0.weight",
                                          "hidden.0.bias", "head.weight", "head.bias"));
  EXPECT_EQ(ParameterCount(model->NamedParameters()), 500 * 32 + 64 + 32 * 33 + 10 * 33);
}

TEST(ModelTest, InitialWeightsDependOnShapeAndSeedAlone) {
  at::set_num_threads(1);
  const auto one = MakeModel(ShapeOf(100, 2), 7).value();
  at::set_num_threads(2);
  const auto two = MakeModel(ShapeOf(100, 2), 7).value();
  at::set_num_threads(1);
  EXPECT_EQ(WeightsDigest(*one), WeightsDigest(*two));
  EXPECT_NE(WeightsDigest(*one), WeightsDigest(*MakeModel(ShapeOf(100, 2), 8).value()));
  // Another depth changes no weight that both have; float64 starts at the same place.
  const auto shallow = MakeModel(ShapeOf(100, 0), 7).value();
  EXPECT_TRUE(at::equal(one->NamedParameters().back().second, shallow->NamedParameters().back().second));
  const auto wide = MakeModel(ShapeOf(100, 2, v1::Student::DTYPE_FLOAT64), 7).value();
  EXPECT_TRUE(at::equal(one->NamedParameters()[0].second, wide->NamedParameters()[0].second.to(at::kFloat)));
  EXPECT_NEAR(one->NamedParameters()[0].second.std().item<double>(), 0.1, 0.002);
  EXPECT_NEAR(one->NamedParameters()[0].second.mean().item<double>(), 0, 0.002);
}

// What remote labels rest on: a row's bits do not depend on the rows it came with, on where it stood among them, or on
// whether gradients were asked for.
TEST(ModelTest, ARowsBitsAreItsOwn) {
  const Rows rows = SomeRows(75);
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    for (const int width : {32, 128, 100}) {
      for (const int hidden_layers : {0, 2}) {
        SCOPED_TRACE(absl::StrCat(threads, " threads, width ", width, ", hidden layers ", hidden_layers));
        const auto model = MakeModel(ShapeOf(width, hidden_layers), 1).value();
        const at::Tensor all = FixedShapeForward(*model, rows).logits;
        const at::NoGradGuard no_grad;
        ASSERT_TRUE(at::equal(all, FixedShapeForward(*model, rows).logits));
        const at::Tensor reversed = FixedShapeForward(*model, Rows(rows.rbegin(), rows.rend())).logits;
        EXPECT_TRUE(at::equal(all, reversed.flip(0)));
        for (size_t row = 0; row < rows.size(); ++row) {
          ASSERT_TRUE(at::equal(all[row], FixedShapeForward(*model, {rows[row]}).logits[0])) << "row " << row;
        }
        const Rows some(rows.begin() + 9, rows.begin() + 9 + kRowsPerForward + 1);
        EXPECT_TRUE(at::equal(all.narrow(0, 9, some.size()), FixedShapeForward(*model, some).logits));
      }
    }
  }
  at::set_num_threads(1);
}

TEST(ModelTest, GradientsPassThroughAndAnEmptySliceGivesZeros) {
  const auto model = MakeModel(ShapeOf(32, 1), 1).value();
  FixedShapeForward(*model, {}).logits.sum().backward();
  for (const auto& [name, tensor] : model->NamedParameters()) {
    ASSERT_TRUE(tensor.grad().defined()) << name;
    EXPECT_EQ(tensor.grad().abs().sum().item<double>(), 0) << name;
  }
  FixedShapeForward(*model, SomeRows(40)).logits.square().sum().backward();
  for (const auto& [name, tensor] : model->NamedParameters())
    EXPECT_GT(tensor.grad().abs().sum().item<double>(), 0) << name;
}

TEST(ModelTest, TrainingIsOneForwardOfAllRows) {
  const auto model = MakeModel(ShapeOf(32, 1, v1::Student::DTYPE_FLOAT64), 1).value();
  const Rows rows = SomeRows(40);
  EXPECT_TRUE(at::allclose(TrainingForward(*model, rows, std::vector<uint64_t>(40)).logits,
                           FixedShapeForward(*model, rows).logits, 0, 1e-12));
  const at::Tensor none = TrainingForward(*model, {}, {}).logits;
  EXPECT_EQ(none.sizes(), at::IntArrayRef({0, 10}));
  none.sum().backward();
  for (const auto& [name, tensor] : model->NamedParameters()) EXPECT_TRUE(tensor.grad().defined()) << name;
}

TEST(ModelTest, TheEmbeddingIsWhatTheHeadReads) {
  const auto model = MakeModel(ShapeOf(32, 1, v1::Student::DTYPE_FLOAT64), 1).value();
  EXPECT_EQ(model->feature_widths(), (std::map<std::string, int64_t>{{kEmbedding, 32}}));
  const Outputs outputs = FixedShapeForward(*model, SomeRows(40), {{}, {kEmbedding}});
  const auto parameters = model->NamedParameters();
  const at::Tensor& weight = parameters[parameters.size() - 2].second;
  const at::Tensor logits = at::linear(outputs.features.at(kEmbedding), weight, parameters.back().second);
  EXPECT_TRUE(at::allclose(logits, outputs.logits, 0, 1e-12));
  EXPECT_THROW(FixedShapeForward(*model, SomeRows(2), {{}, {"hidden.0"}}), c10::Error);
}

TEST(ModelTest, AnIdOutsideTheVocabularyIsAnErrorNotMemory) {
  for (const auto dtype : {v1::Student::DTYPE_FLOAT32, v1::Student::DTYPE_FLOAT64}) {
    const auto model = MakeModel(ShapeOf(32, 0, dtype), 1).value();
    for (const int32_t id : {-1, static_cast<int32_t>(kVocabulary), INT32_MAX}) {
      EXPECT_THROW(FixedShapeForward(*model, {{1, id}}), c10::Error) << id;
    }
  }
}

TEST(ModelTest, ShapesThatDoNotFitNameTheKey) {
  const auto message = [](auto change) {
    ModelShape shape = ShapeOf(32, 0);
    change(&shape);
    return MakeModel(shape, 0).status().ToString();
  };
  EXPECT_THAT(message([](ModelShape* s) { s->spec.set_width(0); }), HasSubstr("model.width"));
  EXPECT_THAT(message([](ModelShape* s) { s->spec.set_hidden_layers(65); }), HasSubstr("model.hidden_layers"));
  EXPECT_THAT(message([](ModelShape* s) { s->spec.clear_kind(); }), HasSubstr("model.kind"));
  EXPECT_THAT(message([](ModelShape* s) { s->task = v1::TASK_TOKEN_CLASSIFICATION; }), HasSubstr("take transformer"));
  EXPECT_THAT(message([](ModelShape* s) { s->vocab_size = 0; }), HasSubstr("vocab_size"));
  EXPECT_THAT(message([](ModelShape* s) { s->classes = 0; }), HasSubstr("labels"));
  EXPECT_THAT(message([](ModelShape* s) { s->dtype = v1::Student::DTYPE_UNSPECIFIED; }), HasSubstr("dtype"));
  EXPECT_EQ(MakeModel({ShapeOf(65536, 0).spec, INT32_MAX, 2, v1::Student::DTYPE_FLOAT64}, 0).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(ModelTest, SetParametersTakesAllOrNothing) {
  const auto model = MakeModel(ShapeOf(32, 0), 1).value();
  const auto other = MakeModel(ShapeOf(32, 0), 2).value();
  const std::string before = WeightsDigest(*model);
  const auto refused = [&](auto change) {
    checkpoint::NamedTensors values = other->NamedParameters();
    change(&values);
    const absl::Status status = SetParameters(values, model.get());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(WeightsDigest(*model), before);
    return status.ToString();
  };
  EXPECT_THAT(refused([](auto* v) { v->pop_back(); }), HasSubstr("'head.bias' is missing"));
  EXPECT_THAT(refused([](auto* v) { v->emplace_back("more", at::ones({1})); }), HasSubstr("'more' is not one"));
  EXPECT_THAT(refused([](auto* v) { v->back().second = at::ones({11}); }), HasSubstr("'head.bias' is [11]"));
  EXPECT_THAT(refused([](auto* v) { v->back().second = at::ones({10}, at::kDouble); }), HasSubstr("'head.bias'"));
  EXPECT_THAT(refused([](auto* v) { v->back().second = at::full({10}, std::nan("")); }), HasSubstr("not finite"));
  ASSERT_TRUE(SetParameters(other->NamedParameters(), model.get()).ok());
  EXPECT_EQ(WeightsDigest(*model), WeightsDigest(*other));
  EXPECT_TRUE(model->NamedParameters()[0].second.requires_grad());
}

}  // namespace
}  // namespace polystill::models
