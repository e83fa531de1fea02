#include "student_worker/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace polystill::student_worker {
namespace {

constexpr int kSteps = 6;

struct Case {
  const char* name;
  v1::Optimizer::Kind kind;
  double weight_decay;
  double momentum;
  double clip_norm;
  at::ScalarType dtype;
  double tolerance;
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

v1::Optimizer Spec(const Case& c) {
  v1::Optimizer spec;
  spec.set_kind(c.kind);
  spec.set_lr(0.1);
  spec.set_weight_decay(c.weight_decay);
  spec.set_beta1(0.9);
  spec.set_beta2(0.98);
  spec.set_eps(1e-8);
  spec.set_momentum(c.momentum);
  spec.set_schedule(v1::Optimizer::SCHEDULE_CONSTANT);
  spec.set_warmup_steps(2);
  spec.set_clip_norm(c.clip_norm);
  return spec;
}

// Gradient of element i at step t: anything that changes sign and size, beyond the clipping norm at some steps only.
double Gradient(int i, int t) { return (t % 2 == 0 ? 0.3 : 2.0) * std::sin(1.0 + i * 1.7 + t * 0.9); }

// One number of the reference, stepped by the formulas.
struct Reference {
  double weight;
  double m = 0;
  double v = 0;

  void Step(const Case& c, double g, double lr, int t) {
    if (c.kind == v1::Optimizer::KIND_ADAMW) {
      weight -= lr * c.weight_decay * weight;
    } else {
      g += c.weight_decay * weight;
    }
    if (c.kind == v1::Optimizer::KIND_SGD) {
      m = t == 1 ? g : c.momentum * m + g;
      weight -= lr * (c.momentum > 0 ? m : g);
      return;
    }
    m = 0.9 * m + 0.1 * g;
    v = 0.98 * v + 0.02 * g * g;
    weight -= lr * (m / (1 - std::pow(0.9, t))) / (std::sqrt(v / (1 - std::pow(0.98, t))) + 1e-8);
  }
};

class Formulas : public testing::TestWithParam<Case> {};

TEST_P(Formulas, AgreeOverSomeSteps) {
  const Case& c = GetParam();
  const at::Tensor a = at::tensor({0.5, -1.5, 2.0}, at::kDouble).to(c.dtype);
  const at::Tensor b = at::tensor({0.25, -0.75}, at::kDouble).to(c.dtype);
  std::vector<Reference> reference = {{0.5}, {-1.5}, {2.0}, {0.25}, {-0.75}};
  Optimizer optimizer(Spec(c), kSteps, {{"a", a}, {"b", b}});
  for (int t = 1; t <= kSteps; ++t) {
    std::vector<double> g(5);
    double norm = 0;
    for (int i = 0; i < 5; ++i) norm += (g[i] = Gradient(i, t)) * g[i];
    norm = std::sqrt(norm);
    const at::Tensor all = at::tensor(g, at::kDouble).to(c.dtype);
    a.mutable_grad() = all.narrow(0, 0, 3).clone();
    b.mutable_grad() = all.narrow(0, 3, 2).clone();
    ASSERT_TRUE(optimizer.Step().ok());
    const double clip = c.clip_norm > 0 && norm > c.clip_norm ? c.clip_norm / norm : 1.0;
    const double lr = t <= 2 ? 0.1 * t / 3 : 0.1;  // warm-up of two steps
    for (int i = 0; i < 5; ++i) reference[i].Step(c, clip * g[i], lr, t);
  }
  const at::Tensor weights = at::cat({a, b}).to(at::kDouble);
  for (int i = 0; i < 5; ++i) EXPECT_NEAR(weights[i].item<double>(), reference[i].weight, c.tolerance) << i;
  EXPECT_EQ(optimizer.step(), kSteps);
}

constexpr auto kAdamW = v1::Optimizer::KIND_ADAMW;
constexpr auto kAdam = v1::Optimizer::KIND_ADAM;
constexpr auto kSgd = v1::Optimizer::KIND_SGD;
INSTANTIATE_TEST_SUITE_P(Kinds, Formulas,
                         testing::Values(Case{"adamw", kAdamW, 0.01, 0, 0, at::kDouble, 1e-13},
                                         Case{"adamw_clipped", kAdamW, 0.01, 0, 1, at::kDouble, 1e-13},
                                         Case{"adamw_clipped_float32", kAdamW, 0.01, 0, 1, at::kFloat, 2e-6},
                                         Case{"adam", kAdam, 0.1, 0, 0, at::kDouble, 1e-13},
                                         Case{"adam_clipped_float32", kAdam, 0.1, 0, 1, at::kFloat, 2e-6},
                                         Case{"sgd", kSgd, 0.1, 0, 0, at::kDouble, 1e-13},
                                         Case{"sgd_momentum_clipped", kSgd, 0.1, 0.9, 1, at::kDouble, 1e-13},
                                         Case{"sgd_momentum_clipped_float32", kSgd, 0.1, 0.9, 1, at::kFloat, 2e-6}),
                         [](const auto& info) { return info.param.name; });

TEST(Optimizer, AppliesNothingWhenTheGradientsAreNotFinite) {
  for (const double clip_norm : {0.0, 1.0}) {
    const at::Tensor weight = at::ones({2});
    Optimizer optimizer(Spec({"", kAdamW, 0.01, 0, clip_norm, at::kFloat, 0}), kSteps, {{"weight", weight}});
    weight.mutable_grad() = at::tensor({1.0f, std::numeric_limits<float>::quiet_NaN()});
    EXPECT_EQ(optimizer.Step().code(), absl::StatusCode::kFailedPrecondition) << "clip_norm " << clip_norm;
    EXPECT_TRUE(weight.eq(1).all().item<bool>());
    EXPECT_EQ(optimizer.step(), 0);
  }
}

// The second half by an optimiser that was restored gives the bits of one that did it all.
TEST_P(Formulas, GoOnFromASavedState) {
  const Case& c = GetParam();
  const auto step_to = [&](Optimizer* optimizer, at::Tensor weight, int last) {
    for (int t = static_cast<int>(optimizer->step()) + 1; t <= last; ++t) {
      weight.mutable_grad() = at::tensor({Gradient(0, t), Gradient(1, t)}, at::kDouble).to(c.dtype);
      ASSERT_TRUE(optimizer->Step().ok());
    }
  };
  const at::Tensor unbroken = at::ones({2}, c.dtype), broken = at::ones({2}, c.dtype);
  Optimizer all(Spec(c), kSteps, {{"w", unbroken}});
  step_to(&all, unbroken, kSteps);
  Optimizer first(Spec(c), kSteps, {{"w", broken}});
  step_to(&first, broken, kSteps / 2);
  Optimizer second(Spec(c), kSteps, {{"w", broken}});
  ASSERT_TRUE(second.Restore(kSteps / 2, first.State()).ok());
  step_to(&second, broken, kSteps);
  EXPECT_TRUE(at::equal(broken, unbroken));
}

TEST(Optimizer, RefusesAnotherState) {
  const auto make = [](v1::Optimizer::Kind kind, std::initializer_list<int64_t> shape) {
    return Optimizer(Spec({"", kind, 0, 0.9, 0, at::kFloat, 0}), kSteps, {{"w", at::ones(shape)}});
  };
  Optimizer adam = make(kAdamW, {2});
  const auto message = [&](const Optimizer& other) {
    const absl::Status status = adam.Restore(1, other.State());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_EQ(message(make(kAdamW, {3})), "tensor 'exp_avg.w' has another shape or type");
  EXPECT_EQ(message(make(kSgd, {2})), "tensor 'exp_avg.w' is missing");
  EXPECT_EQ(adam.step(), 0);
}

TEST(Optimizer, NamesItsState) {
  const auto names = [](v1::Optimizer::Kind kind, double momentum) {
    std::vector<std::string> found;
    Optimizer optimizer(Spec({"", kind, 0, momentum, 0, at::kFloat, 0}), kSteps, {{"w", at::ones({2})}});
    for (const auto& [name, tensor] : optimizer.State()) found.push_back(name);
    return found;
  };
  EXPECT_EQ(names(kAdamW, 0), (std::vector<std::string>{"exp_avg.w", "exp_avg_sq.w", "count"}));
  EXPECT_EQ(names(kSgd, 0.9), std::vector<std::string>{"momentum.w"});
  EXPECT_TRUE(names(kSgd, 0).empty());
}

}  // namespace
}  // namespace polystill::student_worker
