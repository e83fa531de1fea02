#include "losses/losses.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"

namespace polystill::losses {
namespace {

using nlohmann::json;

// A list of rows, or of numbers, as float64 [rows, classes] or int64 [rows].
at::Tensor Matrix(const json& rows, int64_t classes) {
  std::vector<double> flat;
  for (const json& row : rows) {
    for (const json& value : row) flat.push_back(value.get<double>());
  }
  return at::tensor(flat, at::kDouble).reshape({static_cast<int64_t>(rows.size()), classes});
}

at::Tensor Evaluate(const json& loss, const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& gold,
                    const at::Tensor& holds) {
  const std::string kind = loss["kind"];
  if (kind == "task") return CrossEntropy(student, gold);
  if (kind == "hard_label") return HardLabel(student, teacher);
  if (kind == "logit_mse") return LogitMse(student, teacher);
  if (kind == "binary_task") return BinaryCrossEntropy(student, holds);
  if (kind == "binary_hard_label") return BinaryHardLabel(student, teacher);
  if (kind == "binary_logit_mse") return BinaryLogitMse(student, teacher);
  if (kind == "binary") return Binary(student, teacher, loss["temperature"].get<double>());
  EXPECT_EQ(kind, "soft_label");
  return SoftLabel(student, teacher, loss["temperature"].get<double>());
}

// Largest of |computed - expected| - relative * |expected|, in units of the largest expected number (at least 1).
double Excess(const at::Tensor& computed, const at::Tensor& expected, double relative) {
  if (expected.numel() == 0) return 0;
  const double unit = std::max(1.0, expected.abs().max().item<double>());
  return ((computed.to(at::kDouble) - expected).abs() - relative * expected.abs()).max().item<double>() / unit;
}

class ReferenceTest : public testing::TestWithParam<at::ScalarType> {};

TEST_P(ReferenceTest, ValuesAndGradientsAgree) {
  const bool exact = GetParam() == at::kDouble;
  const double relative = exact ? 1e-10 : 1e-4;
  const double rounding = exact ? 1e-13 : 1e-4;
  std::ifstream file("losses/testdata/references.json");
  const json cases = json::parse(file);
  std::set<std::string> kinds;
  for (const json& test : cases) {
    const int64_t classes = test["classes"];
    const at::Tensor teacher = Matrix(test["teacher"], classes).to(GetParam());
    const at::Tensor gold = at::tensor(test["gold"].get<std::vector<int64_t>>(), at::kLong);
    const at::Tensor holds = Matrix(test["holds"], classes).to(at::kLong);
    for (const json& loss : test["losses"]) {
      SCOPED_TRACE(absl::StrCat(test["name"].get<std::string>(), ", ", loss["kind"].get<std::string>(), ", T ",
                                loss.value("temperature", 1.0)));
      const at::Tensor student = Matrix(test["student"], classes).to(GetParam()).set_requires_grad(true);
      const at::Tensor value = Evaluate(loss, student, teacher, gold, holds);
      ASSERT_EQ(value.dim(), 0);
      EXPECT_LE(Excess(value.detach(), at::scalar_tensor(loss["value"].get<double>(), at::kDouble), relative),
                rounding);
      value.backward();
      EXPECT_LE(Excess(student.grad(), Matrix(loss["gradient"], classes), relative), rounding);
      kinds.insert(loss["kind"]);
    }
  }
  EXPECT_EQ(kinds.size(), 8);
  EXPECT_GE(cases.size(), 12);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ReferenceTest, testing::Values(at::kDouble, at::kFloat),
                         [](const auto& info) { return info.param == at::kDouble ? "Float64" : "Float32"; });

// The gradients that the header states.
TEST(LossesTest, GradientsAreTheFormulas) {
  const at::Tensor teacher = at::arange(12.0, at::kDouble).reshape({3, 4}).sin() * 3;
  const at::Tensor start = at::arange(12.0, at::kDouble).reshape({3, 4}).cos() * 2;
  const auto gradient = [&start](auto loss) {
    const at::Tensor student = start.clone().set_requires_grad(true);
    loss(student).backward();
    return student.grad();
  };
  const double t = 2.5;
  const at::Tensor soft = gradient([&](const at::Tensor& s) { return SoftLabel(s, teacher, t); });
  EXPECT_TRUE(at::allclose(soft, t * (at::softmax(start / t, 1) - at::softmax(teacher / t, 1)), 1e-12, 1e-12));
  const at::Tensor hard = gradient([&](const at::Tensor& s) { return HardLabel(s, teacher); });
  EXPECT_TRUE(at::allclose(hard, at::softmax(start, 1) - at::one_hot(teacher.argmax(1), 4), 1e-12, 1e-12));
  const at::Tensor mse = gradient([&](const at::Tensor& s) { return LogitMse(s, teacher); });
  const at::Tensor binary = gradient([&](const at::Tensor& s) { return Binary(s, teacher, t); });
  EXPECT_TRUE(at::allclose(binary, t * (at::sigmoid(start / t) - at::sigmoid(teacher / t)), 1e-12, 1e-12));
  const at::Tensor holds = gradient([&](const at::Tensor& s) { return BinaryHardLabel(s, teacher); });
  EXPECT_TRUE(at::allclose(holds, at::sigmoid(start) - teacher.gt(0).to(at::kDouble), 1e-12, 1e-12));
  const at::Tensor difference = start - teacher;
  EXPECT_TRUE(at::allclose(mse, 0.5 * (difference - difference.mean(1, true)), 1e-12, 1e-12));
}

// One logit is the second of two classes, whose first one has the logit 0.
TEST(LossesTest, OneLogitIsTwoClasses) {
  const at::Tensor student = at::arange(5.0, at::kDouble).reshape({5, 1}).sin() * 4;
  const at::Tensor teacher = at::arange(5.0, at::kDouble).reshape({5, 1}).cos() * 4;
  const auto both = [](const at::Tensor& logit) { return at::cat({at::zeros_like(logit), logit}, 1); };
  EXPECT_NEAR(Binary(student, teacher, 2).item<double>(), SoftLabel(both(student), both(teacher), 2).item<double>(),
              1e-12);
  EXPECT_NEAR(BinaryHardLabel(student, teacher).item<double>(), HardLabel(both(student), both(teacher)).item<double>(),
              1e-12);
}

TEST(LossesTest, ATokenWithoutALabelCountsForNothing) {
  const at::Tensor student = at::arange(12.0, at::kDouble).reshape({3, 4}).sin().set_requires_grad(true);
  const at::Tensor loss = CrossEntropy(student, at::tensor({2, -1, 0}, at::kLong));
  const at::Tensor judged = at::cat({student.detach().narrow(0, 0, 1), student.detach().narrow(0, 2, 1)});
  EXPECT_NEAR(loss.item<double>(), CrossEntropy(judged, at::tensor({2, 0}, at::kLong)).item<double>(), 1e-12);
  loss.backward();
  EXPECT_EQ(student.grad()[1].abs().sum().item<double>(), 0);
}

TEST(LossesTest, SlicesAddUpAndTheTeacherGetsNoGradient) {
  const at::Tensor student = at::arange(20.0, at::kDouble).reshape({5, 4}).sin();
  const at::Tensor teacher = at::arange(20.0, at::kDouble).reshape({5, 4}).cos().set_requires_grad(true);
  const double whole = SoftLabel(student, teacher, 2).item<double>();
  double parts = 0;
  for (const auto& [first, length] : {std::pair(0, 2), {2, 0}, {2, 3}}) {
    parts += SoftLabel(student.narrow(0, first, length), teacher.narrow(0, first, length), 2).item<double>();
  }
  EXPECT_NEAR(whole, parts, 1e-12);
  EXPECT_GT(whole, 0);
  EXPECT_FALSE(SoftLabel(student, teacher, 2).requires_grad());
  EXPECT_FALSE(LogitMse(student, teacher).requires_grad());
}

}  // namespace
}  // namespace polystill::losses
