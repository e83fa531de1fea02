#include "losses/feature_losses.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace polystill::losses {
namespace {

using nlohmann::json;

at::Tensor Matrix(const json& rows, int64_t width) {
  std::vector<double> flat;
  for (const json& row : rows) {
    for (const json& value : row) flat.push_back(value.get<double>());
  }
  return at::tensor(flat, at::kDouble).reshape({static_cast<int64_t>(rows.size()), width});
}

// As a share of the largest expected number, or absolute where that is below 1 (values of 1 - cos near 0).
double Apart(const at::Tensor& computed, const at::Tensor& expected) {
  if (expected.numel() == 0) return 0;
  const double unit = std::max(1.0, expected.abs().max().item<double>());
  return (computed.to(at::kDouble) - expected).abs().max().item<double>() / unit;
}

class FeatureReferenceTest : public testing::TestWithParam<at::ScalarType> {};

TEST_P(FeatureReferenceTest, ValuesAndGradientsAgree) {
  const double rounding = GetParam() == at::kDouble ? 1e-12 : 1e-5;
  const json cases = json::parse(std::ifstream("losses/testdata/feature_references.json"));
  EXPECT_GE(cases.size(), 11u);
  for (const json& test : cases) {
    const int64_t width = static_cast<int64_t>(test["projection"].size());
    const int64_t student_width = static_cast<int64_t>(test["projection"][0].size());
    const at::Tensor teacher = Matrix(test["teacher"], width).to(GetParam());
    for (const auto& [name, expected] : test["losses"].items()) {
      SCOPED_TRACE(absl::StrCat(test["name"].get<std::string>(), ", ", name));
      const at::Tensor student = Matrix(test["student"], student_width).to(GetParam()).set_requires_grad(true);
      const at::Tensor projection = Matrix(test["projection"], student_width).to(GetParam()).set_requires_grad(true);
      const at::Tensor value = (name == "mse" ? FeatureMse : FeatureCosine)(student, projection, teacher);
      ASSERT_EQ(value.dim(), 0);
      value.backward();
      // Directions of tiny vectors have large gradients, which the unit of Apart follows.
      EXPECT_LE(Apart(value.detach(), at::scalar_tensor(expected["value"].get<double>(), at::kDouble)), rounding);
      EXPECT_LE(Apart(student.grad(), Matrix(expected["student_gradient"], student_width)), rounding);
      EXPECT_LE(Apart(projection.grad(), Matrix(expected["projection_gradient"], student_width)), rounding);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, FeatureReferenceTest, testing::Values(at::kDouble, at::kFloat),
                         [](const auto& info) { return info.param == at::kDouble ? "Float64" : "Float32"; });

// Squares of such numbers neither fit nor differ from 0 in float32.
TEST(FeatureLossesTest, TheCosineIsFiniteWhateverTheSizes) {
  const at::Tensor identity = at::eye(3).set_requires_grad(true);
  const at::Tensor teacher = at::tensor({1.0f, 1.0f, 0.0f}).reshape({1, 3});
  for (const float size : {1e-30f, 1.0f, 1e30f}) {
    const at::Tensor student = at::tensor({size, 0.0f, 0.0f}).reshape({1, 3}).set_requires_grad(true);
    const at::Tensor value = FeatureCosine(student, identity, teacher * (1 / size));
    EXPECT_NEAR(value.item<double>(), 1 - std::sqrt(0.5), 1e-6) << size;
    value.backward();
    EXPECT_TRUE(at::isfinite(student.grad()).all().item<bool>()) << size;
    EXPECT_NEAR(student.grad()[0][1].item<double>() * size, -std::sqrt(0.5), 1e-6) << size;
  }
}

TEST(FeatureLossesTest, SlicesAddUpAndTheTeacherGetsNoGradient) {
  const at::Tensor student = at::arange(20.0, at::kDouble).reshape({5, 4}).sin();
  const at::Tensor projection = at::arange(12.0, at::kDouble).reshape({3, 4}).cos();
  const at::Tensor teacher = at::arange(15.0, at::kDouble).reshape({5, 3}).cos().set_requires_grad(true);
  for (const auto loss : {FeatureMse, FeatureCosine}) {
    const at::Tensor whole = loss(student, projection, teacher);
    double parts = 0;
    for (const auto& [first, length] : {std::pair(0, 2), {2, 0}, {2, 3}}) {
      parts += loss(student.narrow(0, first, length), projection, teacher.narrow(0, first, length)).item<double>();
    }
    EXPECT_NEAR(whole.item<double>(), parts, 1e-12);
    EXPECT_FALSE(whole.requires_grad());
  }
}

}  // namespace
}  // namespace polystill::losses
