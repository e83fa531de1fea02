#include "runtime/allocator.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstring>
#include <memory>

namespace polystill {
namespace {

int64_t PageFaults() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

TEST(KeepFreedMemory, MakesPagesFaultOnce) {
  KeepFreedMemory();
  constexpr size_t kBytes = size_t{8} << 20;
  constexpr int64_t kPages = kBytes / 4'096;
  int64_t before = 0;
  for (int round = 0; round < 10; ++round) {
    if (round == 1) before = PageFaults();
    const std::unique_ptr<char[]> memory(new char[kBytes]);
    std::memset(memory.get(), round, kBytes);
    __asm__ volatile("" : : "r"(memory.get()) : "memory");  // it is used
  }
  EXPECT_LT(PageFaults() - before, kPages);
}

}  // namespace
}  // namespace polystill
