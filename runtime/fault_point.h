#pragma once

// FAULT_POINT("file synced"): a place between two steps of a durable write. tests/fault_points compiles the sources
// that have such places with POLYSTILL_FAULT_POINTS, and kills a process at each of them, to see what is left. In all
// other builds it is nothing: no code, and no string in any program (tests/test_fault_points.py).
#ifdef POLYSTILL_FAULT_POINTS

namespace polystill {
// Of the test.
void ReachFaultPoint(const char* name);
}  // namespace polystill

#define FAULT_POINT(name) ::polystill::ReachFaultPoint("fault point: " name)

#else

#define FAULT_POINT(name) static_cast<void>(0)

#endif
