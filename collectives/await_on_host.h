#pragma once

#include <c10/util/Exception.h>

#include <chrono>
#include <exception>
#include <thread>
#include <torch/csrc/distributed/c10d/Work.hpp>

namespace polystill::collectives {

// Returns when a work has come to its end; throws what it failed with, or c10::Error after `timeout`. Its wait() makes
// only the stream wait for what a GPU does.
inline void AwaitOnHost(c10d::Work& work, std::chrono::milliseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  while (!work.isCompleted()) {
    TORCH_CHECK(std::chrono::steady_clock::now() < end, "a collective did not end in time");
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  if (work.exception()) std::rethrow_exception(work.exception());
}

}  // namespace polystill::collectives
