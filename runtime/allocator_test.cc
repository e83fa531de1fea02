#include "runtime/allocator.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <barrier>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

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

int Arenas() {
  char* text = nullptr;
  size_t size = 0;
  FILE* const file = ::open_memstream(&text, &size);
  malloc_info(0, file);
  ::fclose(file);
  const std::string told(text, size);
  ::free(text);
  int count = 0;
  for (size_t at = told.find("<heap nr="); at != std::string::npos; at = told.find("<heap nr=", at + 1)) ++count;
  return count;
}

TEST(ShareArenas, LeavesTwoToAnyNumberOfThreads) {
  ShareArenas();
  constexpr int kThreads = 32;
  std::barrier all(kThreads);
  std::vector<std::jthread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      const auto memory = std::make_unique<char[]>(1000);
      __asm__ volatile("" : : "r"(memory.get()) : "memory");  // it is used
      all.arrive_and_wait();                                  // so that none takes over another's arena
    });
  }
  threads.clear();
  EXPECT_GE(Arenas(), 1);
  EXPECT_LE(Arenas(), 2);
}

}  // namespace
}  // namespace polystill
