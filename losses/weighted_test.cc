#include "losses/weighted.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "losses/feature_losses.h"
#include "losses/losses.h"

namespace polystill::losses {
namespace {

using testing::HasSubstr;
using LossList = google::protobuf::RepeatedPtrField<v1::Loss>;

v1::Loss LossOf(v1::LossKind kind, double weight, const std::string& teacher = "", double temperature = 1,
                v1::Codec codec = v1::CODEC_DENSE_FP16) {
  v1::Loss loss;
  loss.set_kind(kind);
  loss.set_weight(weight);
  loss.set_teacher(teacher);
  loss.set_temperature(temperature);
  loss.set_codec(codec);
  return loss;
}

LossList ListOf(const std::vector<v1::Loss>& losses) { return LossList(losses.begin(), losses.end()); }

// Of what EvaluateLosses gives.
absl::StatusOr<at::Tensor> SumOf(const absl::StatusOr<std::vector<at::Tensor>>& values) {
  if (!values.ok()) return values.status();
  return at::stack(*values).sum();
}

// Three records of four classes, with labels of two teachers, one of them by both codecs.
class WeightedTest : public testing::Test {
 protected:
  WeightedTest() {
    batch_.logits = at::arange(12.0, at::kDouble).reshape({3, 4}).sin().set_requires_grad(true);
    batch_.gold = at::tensor({0, 3, 1}, at::kLong);
    batch_.teachers[{"a", v1::CODEC_DENSE_FP16, "logits"}] = at::arange(12.0).reshape({3, 4}).cos();
    batch_.teachers[{"a", v1::CODEC_DENSE_FP32, "logits"}] = at::arange(12.0).reshape({3, 4}).cos() * 2;
    batch_.teachers[{"b", v1::CODEC_DENSE_FP16, "logits"}] = at::arange(12.0).reshape({3, 4}).cos() * 3;
    batch_.record_ids = {"first", "second", "third"};
  }

  std::string Refusal(const v1::Loss& loss, absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
    const absl::Status status = EvaluateLosses(ListOf({loss}), batch_).status();
    EXPECT_EQ(status.code(), code);
    return status.ToString();
  }

  at::Tensor& TeacherB() { return batch_.teachers[{"b", v1::CODEC_DENSE_FP16, "logits"}].numbers; }

  Batch batch_;
  const v1::Loss task_ = LossOf(v1::LOSS_KIND_TASK, 1);
  const v1::Loss soft_b_ = LossOf(v1::LOSS_KIND_SOFT_LABEL, 1, "b", 2);
};

TEST_F(WeightedTest, SumsWhatEachLossSays) {
  const auto values_of_list =
      EvaluateLosses(ListOf({LossOf(v1::LOSS_KIND_TASK, 0.25), LossOf(v1::LOSS_KIND_SOFT_LABEL, 2, "a", 3),
                             LossOf(v1::LOSS_KIND_SOFT_LABEL, 1, "", 3, v1::CODEC_DENSE_FP32),
                             LossOf(v1::LOSS_KIND_HARD_LABEL, 0.5, "b"), LossOf(v1::LOSS_KIND_LOGIT_MSE, 4, "b")}),
                     batch_);
  const auto sum = SumOf(values_of_list);
  ASSERT_TRUE(sum.ok()) << sum.status();
  ASSERT_EQ(values_of_list->size(), 5u);
  const auto teacher = [this](const char* name, v1::Codec codec) {
    return batch_.teachers[{name, codec, "logits"}].numbers.to(at::kDouble);
  };
  const at::Tensor& s = batch_.logits;
  const at::Tensor b = teacher("b", v1::CODEC_DENSE_FP16);
  const std::vector<at::Tensor> values = {
      CrossEntropy(s, batch_.gold), SoftLabel(s, teacher("a", v1::CODEC_DENSE_FP16), 3),
      SoftLabel(s, teacher("a", v1::CODEC_DENSE_FP32), 3), HardLabel(s, b), LogitMse(s, b)};
  const std::vector<double> weights = {0.25, 2, 1, 0.5, 4};
  at::Tensor total = at::zeros({}, at::kDouble);
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_NEAR(values_of_list->at(i).item<double>(), weights[i] * values[i].item<double>(), 1e-12);
    total = total + weights[i] * values[i];
  }
  EXPECT_NEAR(sum->item<double>(), total.item<double>(), 1e-12);
  sum->backward();
  const at::Tensor gradient = batch_.logits.grad().clone();
  batch_.logits.mutable_grad().reset();
  total.backward();
  EXPECT_TRUE(at::allclose(gradient, batch_.logits.grad(), 1e-12, 1e-12));
}

TEST_F(WeightedTest, AnEmptySliceHasAGradientOfNothing) {
  const at::Tensor all = batch_.logits;
  batch_.logits = all.narrow(0, 0, 0);
  batch_.gold = batch_.gold.narrow(0, 0, 0);
  for (auto& [key, logits] : batch_.teachers) logits = logits.numbers.narrow(0, 0, 0);
  const auto sum = SumOf(EvaluateLosses(ListOf({task_, soft_b_, LossOf(v1::LOSS_KIND_LOGIT_MSE, 1, "b")}), batch_));
  ASSERT_TRUE(sum.ok()) << sum.status();
  EXPECT_EQ(sum->item<double>(), 0);
  sum->backward();
  EXPECT_TRUE(at::equal(all.grad(), at::zeros({3, 4}, at::kDouble)));
}

TEST_F(WeightedTest, RefusesBadGoldLabels) {
  EXPECT_THAT(EvaluateLosses({}, batch_).status().ToString(), HasSubstr("empty"));
  EXPECT_THAT(Refusal(LossOf(v1::LOSS_KIND_UNSPECIFIED, 1, "b")), HasSubstr("losses[0]"));
  batch_.gold = at::tensor({0, 4, 1}, at::kLong);
  EXPECT_THAT(Refusal(task_), HasSubstr("record 'second': gold label 4"));
  batch_.gold = at::tensor({0, 3, -1}, at::kLong);
  EXPECT_THAT(Refusal(task_), HasSubstr("record 'third': gold label -1"));
  batch_.gold = at::tensor({0, 3}, at::kLong);
  EXPECT_THAT(Refusal(task_), HasSubstr("int64 [3]"));
  batch_.gold = at::Tensor();
  EXPECT_THAT(Refusal(task_), HasSubstr("losses[0] LOSS_KIND_TASK: needs gold labels"));
  EXPECT_TRUE(EvaluateLosses(ListOf({soft_b_}), batch_).ok());
}

// What a task makes of a kind of loss.
TEST_F(WeightedTest, EachTaskHasItsForm) {
  const at::Tensor& s = batch_.logits;
  const at::Tensor b = TeacherB().to(at::kDouble);
  const auto value = [this](v1::LossKind kind) {
    const auto sum =
        SumOf(EvaluateLosses(ListOf({LossOf(kind, 1, "b", kind == v1::LOSS_KIND_BINARY ? 2 : 1)}), batch_));
    EXPECT_TRUE(sum.ok()) << sum.status();
    return sum.ok() ? sum->item<double>() : 0;
  };
  batch_.task = v1::TASK_MULTI_LABEL;
  batch_.gold = at::tensor({1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1}, at::kLong).reshape({3, 4});
  EXPECT_NEAR(value(v1::LOSS_KIND_TASK), BinaryCrossEntropy(s, batch_.gold).item<double>(), 1e-12);
  EXPECT_NEAR(value(v1::LOSS_KIND_BINARY), Binary(s, b, 2).item<double>(), 1e-12);
  EXPECT_NEAR(value(v1::LOSS_KIND_HARD_LABEL), BinaryHardLabel(s, b).item<double>(), 1e-12);
  EXPECT_NEAR(value(v1::LOSS_KIND_LOGIT_MSE), BinaryLogitMse(s, b).item<double>(), 1e-12);
  EXPECT_THAT(Refusal(LossOf(v1::LOSS_KIND_SOFT_LABEL, 1, "b")), HasSubstr("binary"));
  batch_.gold[1][2] = 2;
  EXPECT_THAT(Refusal(task_), HasSubstr("record 'second': a gold label is neither 0 nor 1"));
  batch_.gold = at::tensor({1, 0, 0}, at::kLong);
  EXPECT_THAT(Refusal(task_), HasSubstr("int64 [3, 4]"));

  batch_.task = v1::TASK_TOKEN_CLASSIFICATION;
  batch_.gold = at::tensor({3, -1, 0}, at::kLong);
  EXPECT_NEAR(value(v1::LOSS_KIND_TASK), CrossEntropy(s, batch_.gold).item<double>(), 1e-12);
  EXPECT_NEAR(value(v1::LOSS_KIND_SOFT_LABEL), SoftLabel(s, b, 1).item<double>(), 1e-12);
  EXPECT_THAT(Refusal(LossOf(v1::LOSS_KIND_BINARY, 1, "b")), HasSubstr("soft_label"));

  batch_.task = v1::TASK_BINARY;
  batch_.logits = s.narrow(1, 0, 1);
  TeacherB() = TeacherB().narrow(1, 0, 1);
  batch_.gold = at::tensor({1, 0, 1}, at::kLong);
  EXPECT_NEAR(value(v1::LOSS_KIND_TASK), BinaryCrossEntropy(batch_.logits, batch_.gold.view({3, 1})).item<double>(),
              1e-12);
  batch_.gold[2] = 2;
  EXPECT_THAT(Refusal(task_), HasSubstr("record 'third': gold label 2 is not one of 2 classes"));
}

TEST_F(WeightedTest, RefusesBadTeachers) {
  EXPECT_THAT(Refusal(LossOf(v1::LOSS_KIND_SOFT_LABEL, 1, "c")), HasSubstr("teacher 'c'"));
  EXPECT_THAT(Refusal(LossOf(v1::LOSS_KIND_SOFT_LABEL, 1)), HasSubstr("teacher ''"));  // a and b both came
  EXPECT_THAT(Refusal(LossOf(v1::LOSS_KIND_SOFT_LABEL, 1, "b", 1, v1::CODEC_DENSE_FP32)), HasSubstr("DENSE_FP32"));
  EXPECT_THAT(Refusal(LossOf(v1::LOSS_KIND_SOFT_LABEL, 1, "b", 0)), HasSubstr("temperature"));
  TeacherB()[1][2] = std::nan("");
  EXPECT_THAT(Refusal(soft_b_), HasSubstr("record 'second': teacher 'b'"));
  batch_.rows_of_records = {0, 1, 2};  // of tokens
  EXPECT_THAT(Refusal(soft_b_), HasSubstr("record 'third': teacher 'b'"));
  batch_.record_ids.clear();
  TeacherB()[1][2] = std::numeric_limits<double>::infinity();
  EXPECT_THAT(Refusal(soft_b_), HasSubstr("row 1: teacher 'b'"));
  for (const at::Tensor& wrong :
       {at::zeros({3, 5}), at::zeros({2, 4}), at::zeros({12}), at::zeros({3, 4}, at::kLong)}) {
    TeacherB() = wrong;
    EXPECT_THAT(Refusal(soft_b_), HasSubstr("teacher 'b' gave"));
  }
  TeacherB() = at::Tensor();
  EXPECT_THAT(Refusal(soft_b_), HasSubstr("carries none"));
}

// Of records by one pair, of tokens by two.
class WeightedFeaturesTest : public WeightedTest {
 protected:
  WeightedFeaturesTest() {
    const auto numbers = [](int64_t rows, int64_t width, double pitch) {
      return at::sin(at::arange(rows * width, at::kDouble) * pitch).reshape({rows, width});
    };
    embedding_ = LossOf(v1::LOSS_KIND_EMBEDDING, 2, "a");
    embedding_.set_distance(v1::Loss::DISTANCE_COSINE);
    hidden_ = LossOf(v1::LOSS_KIND_HIDDEN, 0.5, "a");
    for (const int layer : {1, 0}) {
      hidden_.add_layers()->set_student(layer);
      hidden_.mutable_layers()->rbegin()->set_teacher(3);
    }
    batch_.features = {
        {"embedding", numbers(3, 2, 0.3)}, {"hidden.0", numbers(7, 2, 0.4)}, {"hidden.1", numbers(7, 2, 0.5)}};
    batch_.projections = {{"projection.0.0.weight", numbers(5, 2, 0.6)},
                          {"projection.1.0.weight", numbers(4, 2, 0.7)},
                          {"projection.1.1.weight", numbers(4, 2, 0.8)}};
    batch_.teachers[{"a", v1::CODEC_DENSE_FP16, "embedding"}] = numbers(3, 5, 0.9).to(at::kFloat);
    batch_.teachers[{"a", v1::CODEC_DENSE_FP16, "hidden.3"}] = numbers(7, 4, 1.1).to(at::kFloat);
  }

  at::Tensor Said(const char* output) {
    return batch_.teachers[{"a", v1::CODEC_DENSE_FP16, output}].numbers.to(at::kDouble);
  }

  v1::Loss embedding_, hidden_;
};

TEST_F(WeightedFeaturesTest, EachPairHasItsProjection) {
  const auto values = EvaluateLosses(ListOf({embedding_, hidden_, task_}), batch_);
  ASSERT_TRUE(values.ok()) << values.status();
  const at::Tensor embedding =
      FeatureCosine(batch_.features["embedding"], batch_.projections["projection.0.0.weight"], Said("embedding"));
  const at::Tensor hidden =
      FeatureMse(batch_.features["hidden.1"], batch_.projections["projection.1.0.weight"], Said("hidden.3")) +
      FeatureMse(batch_.features["hidden.0"], batch_.projections["projection.1.1.weight"], Said("hidden.3"));
  EXPECT_NEAR(values->at(0).item<double>(), 2 * embedding.item<double>(), 1e-12);
  EXPECT_NEAR(values->at(1).item<double>(), 0.5 * hidden.item<double>(), 1e-12);
}

TEST_F(WeightedFeaturesTest, RefusesWhatDoesNotFit) {
  const auto refusal = [&](absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
    const absl::Status status = EvaluateLosses(ListOf({embedding_, hidden_}), batch_).status();
    EXPECT_EQ(status.code(), code);
    return status.ToString();
  };
  batch_.features["hidden.0"][4][1] = std::nan("");
  EXPECT_THAT(refusal(absl::StatusCode::kFailedPrecondition), HasSubstr("row 4 of the student's 'hidden.0'"));
  batch_.features.erase("hidden.0");
  EXPECT_THAT(refusal(), HasSubstr("losses[1] LOSS_KIND_HIDDEN: needs the student's 'hidden.0'"));
  at::Tensor& said = batch_.teachers[{"a", v1::CODEC_DENSE_FP16, "embedding"}].numbers;
  said[1][0] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(refusal(), HasSubstr("row 1 of 'embedding' of teacher 'a'"));
  said = said.narrow(0, 0, 2);
  EXPECT_THAT(refusal(), HasSubstr("losses[0] LOSS_KIND_EMBEDDING: 'embedding' of teacher 'a' is [2, 5]"));
  said = at::Tensor();
  EXPECT_THAT(refusal(), HasSubstr("needs 'embedding' of teacher 'a' by codec CODEC_DENSE_FP16"));
  hidden_.clear_layers();
  EXPECT_THAT(EvaluateLosses(ListOf({hidden_}), batch_).status().ToString(), HasSubstr("names no layers"));
}

TEST_F(WeightedTest, ADivergedStudentIsToldApart) {
  batch_.logits = batch_.logits.detach().clone();
  batch_.logits[2][0] = std::nan("");
  EXPECT_THAT(Refusal(task_, absl::StatusCode::kFailedPrecondition), HasSubstr("record 'third'"));
  batch_.logits = at::zeros({3});
  EXPECT_THAT(Refusal(task_), HasSubstr("[rows, classes]"));
}

// The same teacher's labels by every codec that serves soft_label: what is not exact is close, and all of top_k is
// dense.
TEST_F(WeightedTest, TakesTheLabelsOfEveryCodec) {
  const at::Tensor z = at::arange(12.0).reshape({3, 4}).cos() * 3, log_p = at::log_softmax(z / 2, 1);
  const auto value = [this](v1::Loss loss) {
    const auto sum = SumOf(EvaluateLosses(ListOf({loss}), batch_));
    EXPECT_TRUE(sum.ok()) << sum.status();
    return sum.ok() ? sum->item<double>() : 0;
  };
  const double dense = value(soft_b_);

  v1::Loss top = LossOf(v1::LOSS_KIND_SOFT_LABEL, 1, "b", 2, v1::CODEC_TOP_K);
  top.set_k(4);
  TeacherLabels& all = batch_.teachers[{"b", soft_labels::SettingsOf(top), "logits"}];
  all.numbers = at::cat({log_p, at::full({3, 1}, -std::numeric_limits<float>::infinity())}, 1);
  all.ids = at::arange(4).expand({3, 4});
  EXPECT_NEAR(value(top), dense, 1e-6);
  all.ids = all.ids + 1;
  EXPECT_THAT(Refusal(top), HasSubstr("gave an id that is not one of 4 classes"));
  top.set_k(3);
  EXPECT_THAT(Refusal(top), HasSubstr("CODEC_TOP_K, and the batch carries none"));

  v1::Loss sampled = LossOf(v1::LOSS_KIND_SOFT_LABEL, 1, "b", 2, v1::CODEC_SAMPLED);
  sampled.set_draws_per_token(1000);
  TeacherLabels& drawn = batch_.teachers[{"b", soft_labels::SettingsOf(sampled), "logits"}];
  drawn.numbers = -(log_p.exp() * log_p).sum(1, true);
  drawn.ids = at::arange(4).repeat({3});
  drawn.counts = (log_p.exp() * 1000).round().to(at::kLong).reshape({12});
  drawn.offsets = {0, 4, 8, 12};
  EXPECT_NEAR(value(sampled), dense, 0.02);
  drawn.offsets = {0, 4, 12};
  EXPECT_THAT(Refusal(sampled), HasSubstr("teacher 'b' gave [3, 1] Float, ids [12] Long, the student has [3, 4]"));

  const v1::Loss hidden = LossOf(v1::LOSS_KIND_SOFT_LABEL, 1, "b", 2, v1::CODEC_HIDDEN_HEAD);
  batch_.teachers[{"b", v1::CODEC_HIDDEN_HEAD, "logits"}] = z.narrow(1, 0, 2) * 2;
  EXPECT_THAT(Refusal(hidden), HasSubstr("teacher 'b' gave [3, 2]"));
  batch_.heads["b"] = {at::eye(4).narrow(1, 0, 2) / 2, at::tensor({0.f, 0.f, 5.f, 6.f})};
  const at::Tensor made = at::linear(z.narrow(1, 0, 2) * 2, batch_.heads["b"].weight, batch_.heads["b"].bias);
  EXPECT_NEAR(value(hidden), SoftLabel(batch_.logits, made.to(at::kDouble), 2).item<double>(), 1e-6);

  const v1::Loss hard = LossOf(v1::LOSS_KIND_HARD_LABEL, 1, "b", 1, v1::CODEC_CLASSES);
  batch_.teachers[{"b", v1::CODEC_CLASSES, "logits"}].ids = z.argmax(1);
  EXPECT_NEAR(value(hard), value(LossOf(v1::LOSS_KIND_HARD_LABEL, 1, "b")), 1e-9);
  EXPECT_THAT(Refusal(LossOf(v1::LOSS_KIND_LOGIT_MSE, 1, "b", 1, v1::CODEC_CLASSES)),
              HasSubstr("classes does not carry what logit_mse needs; write one of dense_fp32"));
}

// With a head, logits are computed on the way; the losses and what flows back are the same.
TEST_F(WeightedTest, AHeadMakesTheLogits) {
  const at::Tensor hidden = at::arange(6.0, at::kDouble).reshape({3, 2}).sin().set_requires_grad(true);
  const Head head{at::arange(8.0, at::kDouble).reshape({4, 2}).cos().set_requires_grad(true),
                  at::arange(4.0, at::kDouble)};
  const LossList list = ListOf({task_, soft_b_});
  batch_.logits = at::linear(hidden, head.weight, head.bias);
  const double expected = SumOf(EvaluateLosses(list, batch_))->item<double>();
  batch_.logits = hidden;
  batch_.head = head;
  const at::Tensor sum = *SumOf(EvaluateLosses(list, batch_));
  EXPECT_NEAR(sum.item<double>(), expected, 1e-12);
  sum.backward();
  EXPECT_TRUE(head.weight.grad().any().item<bool>() && hidden.grad().any().item<bool>());
}

}  // namespace
}  // namespace polystill::losses
