#include "losses/packed_losses.h"

#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "losses/losses.h"

namespace polystill::losses {
namespace {

using nlohmann::json;

// [rows, width] of a list of lists.
at::Tensor Matrix(const json& rows, int64_t width, at::ScalarType type) {
  std::vector<double> flat;
  for (const json& row : rows) {
    for (const json& value : row) flat.push_back(value.get<double>());
  }
  return at::tensor(flat, at::kDouble).view({static_cast<int64_t>(rows.size()), width}).to(type);
}

at::Tensor Vector(const json& numbers, at::ScalarType type) {
  return at::tensor(numbers.get<std::vector<double>>(), at::kDouble).to(type);
}

at::Tensor Evaluate(const json& loss, const at::Tensor& student) {
  const double temperature = loss["temperature"];
  const at::ScalarType type = student.scalar_type();
  if (loss["kind"] == "ghost_top_k") {
    const int64_t k = loss["ids"].empty() ? 1 : static_cast<int64_t>(loss["ids"][0].size());
    return GhostTopK(student, Matrix(loss["ids"], k, at::kLong), Matrix(loss["log_p"], k, type),
                     Vector(loss["log_rest"], type), temperature);
  }
  const at::Tensor counts = Matrix(loss["counts"], student.size(1), type);
  const at::Tensor places = counts.nonzero();
  const at::Tensor rows = places.select(1, 0), ids = places.select(1, 1);
  return SampledSoftLabel(student, rows, ids, counts.index({rows, ids}), Vector(loss["entropies"], type), loss["draws"],
                          temperature);
}

double Excess(const at::Tensor& computed, const at::Tensor& expected, double relative) {
  if (expected.numel() == 0) return 0;
  const double unit = std::max(1.0, expected.abs().max().item<double>());
  return ((computed.to(at::kDouble) - expected).abs() - relative * expected.abs()).max().item<double>() / unit;
}

class PackedReferenceTest : public testing::TestWithParam<at::ScalarType> {};

TEST_P(PackedReferenceTest, ValuesAndGradientsAgree) {
  const bool exact = GetParam() == at::kDouble;
  const double relative = exact ? 1e-10 : 1e-4, rounding = exact ? 1e-13 : 1e-4;
  std::ifstream file("losses/testdata/packed_references.json");
  const json cases = json::parse(file);
  std::set<std::string> kinds;
  for (const json& test : cases) {
    const int64_t classes = test["classes"];
    for (const json& loss : test["losses"]) {
      kinds.insert(loss["kind"]);
      SCOPED_TRACE(absl::StrCat(test["name"].get<std::string>(), ", ", loss["kind"].get<std::string>(), ", T ",
                                loss["temperature"].get<double>()));
      const at::Tensor student = Matrix(test["student"], classes, GetParam()).set_requires_grad(true);
      const at::Tensor value = Evaluate(loss, student);
      ASSERT_EQ(value.dim(), 0);
      EXPECT_LE(Excess(value.detach(), at::scalar_tensor(loss["value"].get<double>(), at::kDouble), relative),
                rounding);
      value.backward();
      EXPECT_LE(Excess(student.grad(), Matrix(loss["gradient"], classes, at::kDouble), relative), rounding);
    }
  }
  EXPECT_EQ(kinds.size(), 2);
  EXPECT_GE(cases.size(), 8);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, PackedReferenceTest, testing::Values(at::kDouble, at::kFloat),
                         [](const auto& info) { return info.param == at::kDouble ? "Float64" : "Float32"; });

// A student so sure of one of the k that the others together have less than the least float32.
TEST(PackedLossesTest, APeakedStudentHasFiniteGradients) {
  at::Tensor student = at::zeros({1, 8});
  student[0][3] = 500;
  student.set_requires_grad(true);
  const at::Tensor loss = GhostTopK(student, at::tensor({1, 3}, at::kLong).view({1, 2}),
                                    at::tensor({0.4f, 0.4f}).log().view({1, 2}), at::tensor({0.2f}).log(), 1);
  loss.backward();
  EXPECT_NEAR(loss.item<double>(), 0.4 * 500 + 0.2 * 500, 5);
  EXPECT_TRUE(student.grad().isfinite().all().item<bool>());
  EXPECT_NEAR(student.grad()[0][3].item<double>(), 1 - 0.4, 1e-5);
  EXPECT_NEAR(student.grad()[0][0].item<double>(), -0.2 / 6, 1e-5);
}

// With every id among the k, and with counts that are N p, both are the loss that dense labels have.
TEST(PackedLossesTest, WholeLabelsAreTheDenseLoss) {
  const at::Tensor teacher = at::arange(12.0, at::kDouble).reshape({3, 4}).sin() * 3;
  const at::Tensor student = at::arange(12.0, at::kDouble).reshape({3, 4}).cos() * 2;
  const double temperature = 2.5, dense = SoftLabel(student, teacher, temperature).item<double>();
  const at::Tensor log_p = at::log_softmax(teacher / temperature, 1), p = log_p.exp();
  const at::Tensor ids = at::arange(4).expand({3, 4});
  EXPECT_NEAR(GhostTopK(student, ids, log_p, {}, temperature).item<double>(), dense, 1e-12);
  const at::Tensor rows = at::arange(3).unsqueeze(1).expand({3, 4}).reshape({12});
  EXPECT_NEAR(
      SampledSoftLabel(student, rows, ids.reshape({12}), p.reshape({12}) * 64, -(p * log_p).sum(1), 64, temperature)
          .item<double>(),
      dense, 1e-12);
}

}  // namespace
}  // namespace polystill::losses
