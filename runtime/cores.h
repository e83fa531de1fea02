#pragma once

#include <string_view>

namespace polystill {

// CPU cores that this process may keep busy: those it may run on (sched_getaffinity), or the fewer that its control
// group allows (cpu.max of cgroup v2), rounded up; at least 1.
int UsableCores();

// The same of numbers: `runnable` cores, and what stands in cpu.max, "QUOTA PERIOD" in microseconds; "max ..." or
// anything else limits nothing.
int CoresAllowed(int runnable, std::string_view cpu_max);

}  // namespace polystill
