#include "runtime/cores.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <sstream>
#include <string>

#include "runtime/files.h"

namespace polystill {
namespace {

constexpr char kCpuMax[] = "/sys/fs/cgroup/cpu.max";
constexpr int64_t kMaxBytes = 256;

}  // namespace

int CoresAllowed(int runnable, std::string_view cpu_max) {
  std::istringstream words{std::string(cpu_max)};
  double quota = 0, period = 0;
  if (!(words >> quota >> period) || quota <= 0 || period <= 0) return std::max(runnable, 1);
  return std::clamp(static_cast<int>(std::ceil(std::min(quota / period, 1e6))), 1, std::max(runnable, 1));
}

int UsableCores() {
  cpu_set_t set;
  const int runnable = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  const auto cpu_max = ReadFile(kCpuMax, kMaxBytes);
  return CoresAllowed(runnable, cpu_max.ok() ? *cpu_max : "");
}

}  // namespace polystill
