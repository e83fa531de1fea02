#include "soft_labels/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace polystill::soft_labels {
namespace {

// The value of a half by its definition, in double arithmetic.
double ValueOf(uint16_t half) {
  const int exponent = (half >> 10) & 0x1f;
  const int mantissa = half & 0x3ff;
  const double sign = half & 0x8000 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(HalfTest, EveryHalfBecomesItsValueAndComesBack) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint16_t half = bits;
    const float value = HalfToFloat(half);
    if (std::isnan(ValueOf(half))) {
      EXPECT_TRUE(std::isnan(value)) << bits;
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value)))) << bits;
      continue;
    }
    EXPECT_EQ(static_cast<double>(value), ValueOf(half)) << bits;
    EXPECT_EQ(std::signbit(value), (half & 0x8000) != 0) << bits;
    EXPECT_EQ(FloatToHalf(value), half);
  }
}

// Between two neighbouring halves the nearer one is taken, at the middle the even one.
TEST(HalfTest, RoundsToNearestEven) {
  for (uint16_t half = 0; half < 0x7bff; ++half) {
    const double low = ValueOf(half);
    const double high = ValueOf(half + 1);
    const float middle = static_cast<float>((low + high) / 2);  // exact: one more bit than a half
    EXPECT_EQ(FloatToHalf(middle), half + (half & 1)) << half;
    EXPECT_EQ(FloatToHalf(std::nextafter(middle, 0.0f)), half) << half;
    EXPECT_EQ(FloatToHalf(std::nextafter(middle, INFINITY)), half + 1) << half;
    EXPECT_EQ(FloatToHalf(-middle), 0x8000 + half + (half & 1)) << half;
  }
}

TEST(HalfTest, Edges) {
  const std::vector<std::pair<float, uint16_t>> cases = {
      {65504.0f, 0x7bff}, {65519.996f, 0x7bff}, {65520.0f, 0x7c00}, {1e30f, 0x7c00},
      {INFINITY, 0x7c00}, {-INFINITY, 0xfc00},  {0x1p-25f, 0},      {std::nextafter(0x1p-25f, 1.0f), 1},
      {0x1p-149f, 0},     {-0.0f, 0x8000},      {1.0f, 0x3c00},     {0x1.ffcp-15f, 0x0400},
  };
  for (const auto& [value, half] : cases) EXPECT_EQ(FloatToHalf(value), half) << value;
  EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(NAN))));
  EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(-std::numeric_limits<float>::signaling_NaN()))));
}

}  // namespace
}  // namespace polystill::soft_labels
