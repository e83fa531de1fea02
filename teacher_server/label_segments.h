#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/mutex.h"

namespace rocksdb {
class DB;
class Env;
struct ColumnFamilyOptions;
}  // namespace rocksdb

namespace polystill::teacher_server {

// Encoded labels by key, in a folder, up to a number of bytes; what has not been used for longest goes first.
//
// RocksDB keeps no order of use. So entries lie in segments, column families of equal size that are written one after
// the other; when the cap is reached, the oldest is dropped as a whole, which rewrites nothing:
//
//   newest <- Put | ... | ... | at risk: the oldest quarter of the cap | -> dropped
//     ^-------------- Get copies what it finds there ------'
//
// So a label stays at least until a quarter of the cap has been written since its last use, and nothing is copied, nor
// dropped, while all labels fit three quarters of the cap.
//
// Value of an entry: crc32 of what follows (4 bytes, little-endian; zlib's), the key again, the label. Column families:
// "labels-" and 16 digits; "default" holds the format's version. Versions are frozen: another layout gets another one.
//
// Thread-safe. One process at a time may have the folder open.
class LabelSegments {
 public:
  static constexpr int kKeyBytes = 32;
  // Smallest cap; RocksDB's own files take some hundred KiB more.
  static constexpr int64_t kMinBytes = int64_t{1} << 20;

  struct Options {
    // Made when it is not there.
    std::string folder;
    // Of all files that hold labels. A smaller cap than before drops the oldest.
    int64_t max_bytes = 0;
    // Where files are; the machine's file system when null. Outlives the object.
    rocksdb::Env* env = nullptr;
  };

  // INVALID_ARGUMENT: the cap is less than kMinBytes. FAILED_PRECONDITION: the folder holds something else, or another
  // format. ALREADY_EXISTS: another process has it open. DATA_LOSS: it is damaged as a whole. Messages name the folder
  // and the remedy.
  static absl::StatusOr<std::unique_ptr<LabelSegments>> Open(const Options& options);
  ~LabelSegments();

  // The label of a key of kKeyBytes. NOT_FOUND; DATA_LOSS when what lies there is torn, or another key's: a Put
  // replaces it.
  absl::StatusOr<std::string> Get(std::string_view key);

  // Keeps a label, unless it is larger than a segment (a seventeenth of the cap). When that fails (the disk is full),
  // this and all later ones keep nothing, one warning says so, and what is stored stays readable. At most one thread at
  // a time for equal keys.
  void Put(std::string_view key, std::string_view label);

  // Bytes on the disk.
  int64_t bytes() const;
  // Bytes that were dropped since this was called last.
  int64_t TakeDroppedBytes() { return dropped_bytes_.exchange(0); }

 private:
  struct Segment;
  // The oldest first.
  using Segments = std::vector<std::shared_ptr<Segment>>;

  explicit LabelSegments(const Options& options);
  absl::Status OpenSegments(std::vector<std::string> names);
  absl::Status CheckFormat();
  std::shared_ptr<const Segments> Now() const;
  // The newest segment, with `size` bytes charged to it; null when it could not be made.
  std::shared_ptr<Segment> Reserve(int64_t size);
  bool BeginSegment() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The oldest segments, until `size` bytes more fit under the cap.
  void DropWhatIsTooMuch(int64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static int64_t BytesOf(const Segments& segments);
  void StopWriting(const std::string& why);

  const Options options_;
  const int64_t segment_bytes_;
  const std::unique_ptr<const rocksdb::ColumnFamilyOptions> segment_options_;
  std::unique_ptr<rocksdb::DB> db_;  // set once, by Open
  std::atomic<int64_t> dropped_bytes_ = 0;
  std::atomic<bool> writes_ = true;

  mutable Mutex mutex_;
  std::shared_ptr<const Segments> segments_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace polystill::teacher_server
