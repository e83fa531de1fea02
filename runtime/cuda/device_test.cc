#include "runtime/cuda/device.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace polystill::cuda {
namespace {

TEST(OpenDevice, TheCpuIsAlwaysThere) {
  for (const v1::Device device : {v1::DEVICE_UNSPECIFIED, v1::DEVICE_CPU}) {
    const auto opened = OpenDevice(device, 7);
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_TRUE(opened->is_cpu());
  }
}

#ifdef POLYSTILL_CUDA_BUILT
// The library loads, and finds no driver or no GPU.
const auto kWithoutGpu = testing::AnyOf(testing::HasSubstr("NVIDIA"), testing::HasSubstr("CUDA-capable"));
#else
const auto kWithoutGpu = testing::HasSubstr("setup --cuda");
#endif

TEST(OpenDevice, AGpuIsThereOrTheReasonWhyNot) {
  const auto first = OpenDevice(v1::DEVICE_CUDA, 0);
  if (first.ok()) {
    EXPECT_EQ(*first, at::Device(at::kCUDA, 0));
    const at::Tensor numbers = at::arange(1000, at::kFloat);
    EXPECT_TRUE(at::equal(ToHost(ToDevice(numbers, *first).mul(2)), numbers.mul(2)));
    EXPECT_THAT(std::string(OpenDevice(v1::DEVICE_CUDA, 1000).status().message()), testing::HasSubstr("no GPU 1000"));
    return;
  }
  EXPECT_EQ(first.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(first.status().message()), kWithoutGpu);
  EXPECT_EQ(OpenDevice(v1::DEVICE_CUDA, 0).status(), first.status());
}

TEST(Transfers, OnTheCpuTheTensorItself) {
  const at::Tensor numbers = at::arange(4);
  EXPECT_TRUE(ToDevice(numbers, at::kCPU).is_same(numbers));
  EXPECT_TRUE(ToHost(numbers).is_same(numbers));
  EXPECT_FALSE(ToDevice(at::Tensor(), at::kCPU).defined());
}

}  // namespace
}  // namespace polystill::cuda
