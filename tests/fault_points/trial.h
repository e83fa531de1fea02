#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/fault_points/disk.h"

namespace polystill::fault_points {

// Something that writes durably. Methods run in processes of their own, so nothing may be kept in the object.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual std::string name() const = 0;
  // Makes what Write reads, beside `folder`. Without faults, once.
  virtual absl::Status Prepare(const std::string&) const { return absl::OkStatus(); }
  // Writes one thing after the other into `folder`, which may hold what an earlier process left, and calls `done` after
  // each that the writer has called durable.
  virtual absl::Status Write(const std::string& folder, const std::function<void()>& done) const = 0;
  // What a reader accepts in it, as text. Lines that begin with '#' may be others after another Write.
  virtual std::string Read(const std::string& folder) const = 0;
  // What is lost is made again: a power cut may take back what was written, and a write that fails is no error.
  virtual bool is_cache() const { return false; }
};

// How one subject stands every fault at every point.
struct Verdict {
  // Broken promises, a line each.
  std::vector<std::string> findings;
  int64_t points_reached = 0;
  int64_t writes = 0;
  // Faults that were tried.
  int64_t trials = 0;
};

// Counts the points of one Write, then lets a process write for each of them, with each fault there, and looks at what
// it left:
//
// - after SIGKILL or a power cut a reader finds what was there before the write under way, or after it; all that was
//   called durable is there;
// - the same after a call that fails, and then Write says so, names the folder (and a full disk, RESOURCE_EXHAUSTED),
//   leaves no file behind that belongs to no finished state, and no descriptor open; a Write that says OK has written;
// - another Write in a process of its own goes on from there to the same end.
//
// Of a cache each fault comes at some twenty points, and its database may leave files that it removes when it starts.
//
// `folder` is made, and is gone afterwards.
Verdict Try(const Subject& subject, const std::string& folder);

// Names of the points that one Write reaches.
std::set<std::string> PointsOf(const Subject& subject, const std::string& folder);

}  // namespace polystill::fault_points
