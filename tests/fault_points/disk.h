#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace polystill::fault_points {

// A disk that fails at a point of our choice. Every call that changes a file below a watched folder is a point, whoever
// makes it (our code, SQLite, Arrow, RocksDB, the standard library): disk.cc defines write, fsync, rename and the like,
// which the dynamic linker finds before the C library's. Every FAULT_POINT is one too. No fsync reaches the machine's
// own disk; what it would have made safe is kept here.
enum class Fault {
  kCount,              // none: points are reported
  kKill,               // SIGKILL; what was written stays
  kPowerCut,           // at every point: contents and names stay as they were synced last
  kPowerCutNamesStay,  // the same for contents; names are as the process left them
  kDiskFull,           // from here on every write, new file and new folder fails with ENOSPC
  kIoError,            // this call alone fails with EIO
};

struct Point {
  // "fault point: NAME" or "CALL PATH".
  std::string name;
  // Whether it is a call that may fail, and one that needs space.
  bool can_fail = false;
  bool needs_space = false;
};

struct Plan {
  Fault fault = Fault::kCount;
  // Number of the point, from 0. Unused with power cuts: the process lives on, and what each would leave is put aside.
  int64_t at = 0;
  // The watched folder; absolute.
  std::string root;
  // With power cuts: a folder for folders NUMBER, what a machine would find after one at that point; a point without a
  // folder has that of the last point before it. Only of points that are multiples of `every`, and the end.
  std::string images;
  int64_t every = 1;
};

// A write of two bytes or more is two points: before it, and when its first half is there. With kIoError the second is
// a short write.

// From here on this process has such a disk. `reached` hears of every point. One plan a process.
void Arm(const Plan& plan, std::function<void(const Point&)> reached);
// A healthy disk again. The end is one more point for power cuts.
void Disarm();

// A path below `root`, or its name alone, without process ids and long numbers, so that it is the same in each process.
std::string PlainName(const std::string& root, const std::string& path);

}  // namespace polystill::fault_points
