#include "teacher_server/label_segments.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <spdlog/spdlog.h>
#include <zlib.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "runtime/fault_point.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::teacher_server {
namespace {

namespace fs = std::filesystem;

constexpr int kSegments = 16;
// Part of the cap that counts as old.
constexpr double kAtRisk = 0.25;
constexpr char kPrefix[] = "labels-";
constexpr char kFormatKey[] = "format";
constexpr char kFormat[] = "polystill labels 1";
constexpr size_t kHeaderBytes = sizeof(uint32_t) + LabelSegments::kKeyBytes;
// What RocksDB adds to an entry, about: lengths, sequence number, index, filter.
constexpr int64_t kEntryBytes = 32;
constexpr size_t kReadCacheBytes = 64 << 20;
constexpr size_t kMaxWriteBufferBytes = 32 << 20;
constexpr int kMaxOpenFiles = 512;

uint32_t Checksum(std::string_view bytes) {
  return static_cast<uint32_t>(::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

std::string Pack(std::string_view key, std::string_view label) {
  std::string entry(sizeof(uint32_t), '\0');
  entry.reserve(kHeaderBytes + label.size());
  entry.append(key).append(label);
  const uint32_t checksum = Checksum(std::string_view(entry).substr(sizeof(uint32_t)));
  for (size_t i = 0; i < sizeof(checksum); ++i) entry[i] = static_cast<char>(checksum >> (8 * i) & 0xFF);
  return entry;
}

// Empty when the entry is torn, or another key's.
std::optional<std::string> Unpack(std::string_view key, std::string_view entry) {
  if (entry.size() < kHeaderBytes) return std::nullopt;
  uint32_t checksum = 0;
  for (size_t i = 0; i < sizeof(checksum); ++i) checksum |= uint32_t{static_cast<uint8_t>(entry[i])} << (8 * i);
  const std::string_view rest = entry.substr(sizeof(checksum));
  if (Checksum(rest) != checksum || rest.substr(0, key.size()) != key) return std::nullopt;
  return std::string(rest.substr(key.size()));
}

// RocksDB's own log is a file beside the data, and Debian's RocksDB ends the process when that cannot be written.
class DebugLog final : public rocksdb::Logger {
 public:
  DebugLog() : Logger(rocksdb::WARN_LEVEL) {}
  using Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    char text[1024];
    std::vsnprintf(text, sizeof(text), format, arguments);
    spdlog::debug("label cache: {}", text);
  }
};

rocksdb::DBOptions DatabaseOptions(rocksdb::Env* env) {
  rocksdb::DBOptions options;
  options.info_log = std::make_shared<DebugLog>();
  options.create_if_missing = true;
  if (env != nullptr) options.env = env;
  options.max_open_files = kMaxOpenFiles;
  options.stats_dump_period_sec = 0;
  return options;
}

rocksdb::ColumnFamilyOptions SegmentOptions(int64_t segment_bytes) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(kReadCacheBytes);
  table.cache_index_and_filter_blocks = true;  // so that memory is bounded
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  rocksdb::ColumnFamilyOptions options;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.compression = rocksdb::kNoCompression;  // so that bytes are known before they are written
  options.disable_auto_compactions = true;        // a segment is written once, and dropped as a whole
  // A quarter of a segment at most, so that the log of what is in memory alone fits beside the segments.
  options.write_buffer_size = std::min<size_t>(static_cast<size_t>(segment_bytes) / 4, kMaxWriteBufferBytes);
  return options;
}

std::string NameOf(uint64_t number) { return absl::StrFormat("%s%016d", kPrefix, number); }

bool ReadNumber(absl::string_view name, uint64_t* number) {
  return absl::ConsumePrefix(&name, kPrefix) && absl::SimpleAtoi(name, number);
}

absl::Status Foreign(const std::string& folder) {
  return absl::FailedPreconditionError(absl::StrCat("label cache ", folder,
                                                    ": holds something else than labels of this version of Polystill; "
                                                    "name another folder, or delete that one"));
}

absl::Status OpenError(const std::string& folder, const rocksdb::Status& status) {
  const std::string what = absl::StrCat("label cache ", folder, ": ", status.ToString());
  // RocksDB's words, with the folder after them, which may hold any.
  const std::string said = status.ToString();
  if (absl::StartsWith(said, "IO error: While lock file") || absl::StartsWith(said, "IO error: lock hold")) {
    return absl::AlreadyExistsError(absl::StrCat(what, "; each teacher server needs a folder of its own"));
  }
  if (status.IsCorruption() || status.IsPathNotFound()) {
    return absl::DataLossError(absl::StrCat(what, "; delete the folder: labels are computed again"));
  }
  if (status.IsNoSpace()) return absl::ResourceExhaustedError(what);
  return absl::UnavailableError(what);
}

// Whether RocksDB gives that name to a file that it makes before a new database is whole, when it writes CURRENT.
bool IsOfUnfinishedDatabase(absl::string_view name) {
  if (name == "CURRENT" || name == "LOCK" || name == "IDENTITY" || name == "LOG" || absl::StartsWith(name, "LOG.old."))
    return true;
  uint64_t number = 0;
  const bool prefixed = absl::ConsumePrefix(&name, "MANIFEST-");
  return (prefixed || absl::ConsumeSuffix(&name, ".dbtmp") || absl::ConsumeSuffix(&name, ".log")) &&
         absl::SimpleAtoi(name, &number);
}

// Nothing for a folder without a database, which is made when needed, or that a process left which died while it made
// one. A folder with other files is refused.
absl::StatusOr<std::vector<std::string>> FamiliesIn(const std::string& folder, const rocksdb::DBOptions& options) {
  RETURN_IF_ERROR(MakeFolder(folder));
  std::error_code error;
  const fs::path current = fs::path(folder) / "CURRENT";
  if (!fs::exists(current, error)) {
    bool begun = false;
    std::vector<fs::path> logs;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
      const std::string name = entry->path().filename().string();
      if (!IsOfUnfinishedDatabase(name)) return Foreign(folder);
      begun |= name == "IDENTITY" || absl::StartsWith(name, "MANIFEST-");
      if (absl::EndsWith(name, ".log")) logs.push_back(entry->path());
    }
    if (!begun && !logs.empty()) return Foreign(folder);
    // RocksDB makes no database beside one. Of a process that makes one just now, they come after CURRENT.
    for (const fs::path& log : logs) {
      if (!fs::exists(current, error)) fs::remove(log, error);
    }
    return std::vector<std::string>{};
  }
  std::vector<std::string> names;
  const rocksdb::Status status = rocksdb::DB::ListColumnFamilies(options, folder, &names);
  if (!status.ok()) return OpenError(folder, status);
  return names;
}

}  // namespace

struct LabelSegments::Segment {
  Segment(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* handle) : db(db), handle(handle) {}
  // Of one that was dropped, its files go now.
  ~Segment() { db->DestroyColumnFamilyHandle(handle); }

  rocksdb::DB* const db;
  rocksdb::ColumnFamilyHandle* const handle;
  uint64_t number = 0;  // rises; set before others see the segment
  std::atomic<int64_t> bytes = 0;
};

LabelSegments::LabelSegments(const Options& options)
    : options_(options),
      segment_bytes_(options.max_bytes / (kSegments + 1)),  // one part more: RocksDB's log
      segment_options_(std::make_unique<rocksdb::ColumnFamilyOptions>(SegmentOptions(segment_bytes_))),
      segments_(std::make_shared<const Segments>()) {}

LabelSegments::~LabelSegments() {
  MutexLock lock(&mutex_);
  segments_.reset();
  if (db_ != nullptr) db_->Close();
}

absl::StatusOr<std::unique_ptr<LabelSegments>> LabelSegments::Open(const Options& options) {
  if (options.max_bytes < kMinBytes) {
    return absl::InvalidArgumentError(absl::StrCat("label cache ", options.folder, ": needs at least ", kMinBytes,
                                                   " bytes, got ", options.max_bytes));
  }
  ASSIGN_OR_RETURN(std::vector<std::string> names, FamiliesIn(options.folder, DatabaseOptions(options.env)));
  auto segments = std::unique_ptr<LabelSegments>(new LabelSegments(options));
  RETURN_IF_ERROR(segments->OpenSegments(std::move(names)));
  RETURN_IF_ERROR(segments->CheckFormat());
  return segments;
}

absl::Status LabelSegments::OpenSegments(std::vector<std::string> names) {
  if (names.empty()) names = {rocksdb::kDefaultColumnFamilyName};
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (const std::string& name : names) families.emplace_back(name, *segment_options_);
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status opened =
      rocksdb::DB::Open(DatabaseOptions(options_.env), options_.folder, families, &handles, &db);
  if (!opened.ok()) return OpenError(options_.folder, opened);
  db_.reset(db);
  Segments found;
  bool foreign = false;
  for (rocksdb::ColumnFamilyHandle* handle : handles) {
    if (handle->GetName() == rocksdb::kDefaultColumnFamilyName) {
      db->DestroyColumnFamilyHandle(handle);
      continue;
    }
    found.push_back(std::make_shared<Segment>(db, handle));
    foreign |= !ReadNumber(handle->GetName(), &found.back()->number);
    uint64_t bytes = 0;  // what the log held has been written to files by now
    db->GetIntProperty(handle, rocksdb::DB::Properties::kTotalSstFilesSize, &bytes);
    found.back()->bytes = static_cast<int64_t>(bytes);
  }
  if (foreign) return Foreign(options_.folder);
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a->number < b->number; });
  MutexLock lock(&mutex_);
  segments_ = std::make_shared<const Segments>(std::move(found));
  DropWhatIsTooMuch(0);
  return absl::OkStatus();
}

absl::Status LabelSegments::CheckFormat() {
  std::string format;
  const rocksdb::Status read = db_->Get(rocksdb::ReadOptions(), kFormatKey, &format);
  if (read.ok()) return format == kFormat ? absl::OkStatus() : Foreign(options_.folder);
  // A process that ended while it made the database leaves it without segments.
  if (!read.IsNotFound()) return OpenError(options_.folder, read);
  std::unique_ptr<rocksdb::Iterator> any(db_->NewIterator(rocksdb::ReadOptions()));
  any->SeekToFirst();
  if (any->Valid()) return Foreign(options_.folder);
  rocksdb::Status written = db_->Put(rocksdb::WriteOptions(), kFormatKey, kFormat);
  // The log is kept for as long as anything in it is in memory alone.
  FAULT_POINT("format of the cache written");
  if (written.ok()) written = db_->Flush(rocksdb::FlushOptions());
  return written.ok() ? absl::OkStatus() : OpenError(options_.folder, written);
}

std::shared_ptr<const LabelSegments::Segments> LabelSegments::Now() const {
  MutexLock lock(&mutex_);
  return segments_;
}

int64_t LabelSegments::BytesOf(const Segments& segments) {
  return std::accumulate(segments.begin(), segments.end(), int64_t{0},
                         [](int64_t sum, const auto& segment) { return sum + segment->bytes; });
}

int64_t LabelSegments::bytes() const { return BytesOf(*Now()); }

absl::StatusOr<std::string> LabelSegments::Get(std::string_view key) {
  const auto segments = Now();
  const rocksdb::Slice wanted(key.data(), key.size());
  const int64_t safe_bytes = static_cast<int64_t>((1 - kAtRisk) * static_cast<double>(options_.max_bytes));
  int64_t newer_bytes = 0;
  bool refused = false;
  for (auto segment = segments->rbegin(); segment != segments->rend(); ++segment) {
    rocksdb::PinnableSlice entry;
    const rocksdb::Status read = db_->Get(rocksdb::ReadOptions(), (*segment)->handle, wanted, &entry);
    if (read.ok()) {
      if (auto label = Unpack(key, {entry.data(), entry.size()})) {
        if (newer_bytes >= safe_bytes) Put(key, *label);
        return *std::move(label);
      }
    }
    refused |= !read.IsNotFound();
    newer_bytes += (*segment)->bytes;
  }
  if (refused) return absl::DataLossError(absl::StrCat("label cache ", options_.folder, ": a torn or foreign entry"));
  return absl::NotFoundError("not cached");
}

void LabelSegments::Put(std::string_view key, std::string_view label) {
  const std::string entry = Pack(key, label);
  const int64_t size = static_cast<int64_t>(key.size() + entry.size()) + kEntryBytes;
  if (size > segment_bytes_ || !writes_) return;
  const std::shared_ptr<Segment> segment = Reserve(size);
  if (segment == nullptr) return;
  const rocksdb::Status written =
      db_->Put(rocksdb::WriteOptions(), segment->handle, {key.data(), key.size()}, {entry.data(), entry.size()});
  FAULT_POINT("label kept");
  if (!written.ok()) StopWriting(written.ToString());
}

std::shared_ptr<LabelSegments::Segment> LabelSegments::Reserve(int64_t size) {
  MutexLock lock(&mutex_);
  const bool full = segments_->empty() || segments_->back()->bytes + size > segment_bytes_;
  if (full && !BeginSegment()) return nullptr;
  DropWhatIsTooMuch(size);
  segments_->back()->bytes += size;
  return segments_->back();
}

bool LabelSegments::BeginSegment() {
  const uint64_t number = segments_->empty() ? 1 : segments_->back()->number + 1;
  rocksdb::ColumnFamilyHandle* handle = nullptr;
  const rocksdb::Status made = db_->CreateColumnFamily(*segment_options_, NameOf(number), &handle);
  if (!made.ok()) {
    StopWriting(made.ToString());
    return false;
  }
  FAULT_POINT("segment made");
  if (!segments_->empty()) {
    rocksdb::FlushOptions aside;  // frees its memory, and its part of the log
    aside.wait = false;
    db_->Flush(aside, segments_->back()->handle);
  }
  Segments segments = *segments_;
  segments.push_back(std::make_shared<Segment>(db_.get(), handle));
  segments.back()->number = number;
  segments_ = std::make_shared<const Segments>(std::move(segments));
  return true;
}

void LabelSegments::DropWhatIsTooMuch(int64_t size) {
  int64_t total = size + BytesOf(*segments_);
  if (total <= options_.max_bytes - segment_bytes_) return;
  Segments segments = *segments_;
  while (segments.size() > 1 && total > options_.max_bytes - segment_bytes_) {
    const std::shared_ptr<Segment> oldest = segments.front();
    segments.erase(segments.begin());
    total -= oldest->bytes;
    dropped_bytes_ += oldest->bytes;
    const rocksdb::Status dropped = db_->DropColumnFamily(oldest->handle);
    FAULT_POINT("segment dropped");
    if (!dropped.ok()) StopWriting(dropped.ToString());
  }
  if (segments.size() < segments_->size()) segments_ = std::make_shared<const Segments>(std::move(segments));
}

void LabelSegments::StopWriting(const std::string& why) {
  if (!writes_.exchange(false)) return;
  spdlog::warn("label cache {}: {}; no more labels are kept until this process is started again", options_.folder, why);
}

}  // namespace polystill::teacher_server
