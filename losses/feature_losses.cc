#include "losses/feature_losses.h"

namespace polystill::losses {
namespace {

constexpr int64_t kChannels = 1;  // the dimension

// Vectors of smaller numbers count as zero: a float32 could not hold the gradient of their direction.
constexpr double kLeast = 0x1p-120;

// Rows of length 1, or of zeros where there are only zeros. Scaled by their largest number first, which changes neither
// the direction nor its gradient, so that squares neither overflow nor vanish.
at::Tensor Directions(const at::Tensor& rows) {
  const at::Tensor largest = rows.detach().abs().amax(kChannels, /*keepdim=*/true);
  const at::Tensor is_zero = largest < kLeast;
  const at::Tensor scaled = (rows / at::where(is_zero, 1, largest)).masked_fill(is_zero, 0);
  const at::Tensor squares = scaled.square().sum(kChannels, /*keepdim=*/true).masked_fill(is_zero, 1);
  return scaled / squares.sqrt();
}

}  // namespace

at::Tensor FeatureMse(const at::Tensor& student, const at::Tensor& projection, const at::Tensor& teacher) {
  return (at::linear(student, projection) - teacher.detach()).square().mean(kChannels).sum();
}

at::Tensor FeatureCosine(const at::Tensor& student, const at::Tensor& projection, const at::Tensor& teacher) {
  const at::Tensor cosines =
      (Directions(at::linear(student, projection)) * Directions(teacher.detach())).sum(kChannels);
  return (1 - cosines).sum();
}

}  // namespace polystill::losses
