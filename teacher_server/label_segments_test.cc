#include "teacher_server/label_segments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/counter_rng.h"
#include "runtime/files.h"

namespace polystill::teacher_server {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int64_t kMiB = int64_t{1} << 20;

std::string Key(uint64_t number) {
  std::string key(LabelSegments::kKeyBytes, '\0');
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<char>(CombineKey(number, i));
  return key;
}

// Bytes that do not compress, another for each key.
std::string Label(uint64_t number, size_t size) {
  std::string label(size, '\0');
  for (size_t i = 0; i < size; i += 8) {
    const uint64_t word = CombineKey(~number, i);
    label.replace(i, std::min<size_t>(8, size - i), reinterpret_cast<const char*>(&word),
                  std::min<size_t>(8, size - i));
  }
  return label;
}

// A machine whose disk is full on demand.
class FullDisk : public rocksdb::EnvWrapper {
 public:
  FullDisk() : EnvWrapper(rocksdb::Env::Default()) {}
  std::atomic<bool> full = false;

  rocksdb::Status NewWritableFile(const std::string& name, std::unique_ptr<rocksdb::WritableFile>* file,
                                  const rocksdb::EnvOptions& options) override {
    rocksdb::Status status = target()->NewWritableFile(name, file, options);
    if (status.ok()) *file = std::make_unique<File>(std::move(*file), &full);
    return status;
  }

 private:
  class File : public rocksdb::WritableFileWrapper {
   public:
    File(std::unique_ptr<rocksdb::WritableFile> file, std::atomic<bool>* full)
        : WritableFileWrapper(file.get()), file_(std::move(file)), full_(full) {}
    rocksdb::Status Append(const rocksdb::Slice& data) override {
      return *full_ ? rocksdb::Status::NoSpace("no space left on device") : file_->Append(data);
    }
    rocksdb::Status Append(const rocksdb::Slice& data, const rocksdb::DataVerificationInfo& info) override {
      return *full_ ? rocksdb::Status::NoSpace("no space left on device") : file_->Append(data, info);
    }

   private:
    const std::unique_ptr<rocksdb::WritableFile> file_;
    std::atomic<bool>* const full_;
  };
};

class LabelSegmentsTest : public testing::Test {
 protected:
  void SetUp() override {
    options_.folder =
        testing::TempDir() + "label_segments-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(options_.folder);
    options_.max_bytes = 64 * kMiB;
  }
  void TearDown() override {
    segments_.reset();
    fs::remove_all(options_.folder);
  }

  void Open() {
    segments_.reset();
    auto opened = LabelSegments::Open(options_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    segments_ = *std::move(opened);
  }
  absl::Status OpenStatus() { return LabelSegments::Open(options_).status(); }

  // The database itself, while it is closed here; `change` gets the column family of the newest labels.
  void Change(const std::function<void(rocksdb::DB*, rocksdb::ColumnFamilyHandle*)>& change) {
    segments_.reset();
    rocksdb::Options options;
    options.create_if_missing = true;
    std::vector<std::string> names = {rocksdb::kDefaultColumnFamilyName};
    rocksdb::DB::ListColumnFamilies(options, options_.folder, &names);
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const std::string& name : names) families.emplace_back(name, rocksdb::ColumnFamilyOptions());
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    const rocksdb::Status opened = rocksdb::DB::Open(options, options_.folder, families, &handles, &db);
    ASSERT_TRUE(opened.ok()) << opened.ToString();
    change(db, handles.back());
    for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
    delete db;
  }

  int64_t BytesOnDisk() const {
    int64_t bytes = 0;
    for (const auto& file : fs::directory_iterator(options_.folder)) bytes += static_cast<int64_t>(file.file_size());
    return bytes;
  }

  LabelSegments::Options options_;
  std::unique_ptr<LabelSegments> segments_;
};

TEST_F(LabelSegmentsTest, GivesWhatWasPutAlsoAfterARestart) {
  Open();
  EXPECT_TRUE(absl::IsNotFound(segments_->Get(Key(0)).status()));
  std::map<uint64_t, std::string> labels = {{0, ""}, {1, "x"}, {2, std::string(5, '\0')}, {3, Label(3, 1'000'000)}};
  for (const auto& [number, label] : labels) segments_->Put(Key(number), label);
  for (const bool restarted : {false, true}) {
    if (restarted) Open();
    for (const auto& [number, label] : labels) EXPECT_EQ(segments_->Get(Key(number)).value_or("none"), label) << number;
    EXPECT_TRUE(absl::IsNotFound(segments_->Get(Key(9)).status()));
  }
}

TEST_F(LabelSegmentsTest, SurvivesAKill) {
  Open();
  for (uint64_t i = 0; i < 100; ++i) segments_->Put(Key(i), Label(i, 1000));
  const std::string killed = options_.folder + "-killed";  // what a process leaves that ends here
  fs::remove_all(killed);
  fs::copy(options_.folder, killed);
  const std::string first = std::exchange(options_.folder, killed);
  Open();
  for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(segments_->Get(Key(i)).value_or(""), Label(i, 1000)) << i;
  fs::remove_all(first);
}

TEST_F(LabelSegmentsTest, KeepsTheCap) {
  options_.max_bytes = 8 * kMiB;
  for (const size_t size : {100, 50'000}) {
    fs::remove_all(options_.folder);
    Open();
    int64_t written = 0, most = 0, dropped = 0;
    for (uint64_t i = 0; written < options_.max_bytes / 2 * 3; ++i, written += static_cast<int64_t>(size)) {
      segments_->Put(Key(i), Label(i, size));
      most = std::max(most, segments_->bytes());
      dropped += segments_->TakeDroppedBytes();
    }
    EXPECT_LE(most, options_.max_bytes) << size;
    EXPECT_GE(most, options_.max_bytes / 4 * 3) << size;
    EXPECT_GE(dropped, options_.max_bytes / 2) << size;
    // Beside what is in files, the log holds what is in memory: a quarter of a segment and what was last written.
    EXPECT_LE(BytesOnDisk(), options_.max_bytes + options_.max_bytes / 8 + (1 << 20)) << size;
    Open();                         // all is in files now
    const int64_t own = 512 << 10;  // manifest, options, log of messages
    EXPECT_LE(BytesOnDisk(), options_.max_bytes + own) << size;
    EXPECT_NEAR(static_cast<double>(BytesOnDisk()), static_cast<double>(segments_->bytes()), own) << size;
  }
}

TEST_F(LabelSegmentsTest, WhatIsUsedStaysAndTheRestGoes) {
  options_.max_bytes = 8 * kMiB;
  Open();
  const uint64_t kUsed = 1'000'000, kUnused = 2'000'000;
  segments_->Put(Key(kUsed), Label(kUsed, 1000));
  segments_->Put(Key(kUnused), Label(kUnused, 1000));
  const uint64_t of_the_cap = static_cast<uint64_t>(options_.max_bytes) / 1000;
  for (uint64_t i = 0; i < 4 * of_the_cap; ++i) {
    segments_->Put(Key(i), Label(i, 1000));
    // Less than a quarter of the cap is written between two uses.
    if (i % (of_the_cap / 5) != 0) continue;
    ASSERT_EQ(segments_->Get(Key(kUsed)).value_or(""), Label(kUsed, 1000)) << i;
  }
  EXPECT_TRUE(absl::IsNotFound(segments_->Get(Key(kUnused)).status()));
}

TEST_F(LabelSegmentsTest, NothingIsCopiedWhileAllFits) {
  options_.max_bytes = 8 * kMiB;
  Open();
  const uint64_t count = static_cast<uint64_t>(options_.max_bytes) * 7 / 10 / 1100;
  for (uint64_t i = 0; i < count; ++i) segments_->Put(Key(i), Label(i, 1000));
  const int64_t bytes = segments_->bytes();
  for (int epoch = 0; epoch < 3; ++epoch) {
    for (uint64_t i = 0; i < count; ++i) ASSERT_TRUE(segments_->Get(Key(i)).ok()) << i;
  }
  EXPECT_EQ(segments_->bytes(), bytes);
  EXPECT_EQ(segments_->TakeDroppedBytes(), 0);
}

TEST_F(LabelSegmentsTest, ASmallerCapDropsTheOldest) {
  options_.max_bytes = 8 * kMiB;
  Open();
  const uint64_t count = 5'000;
  for (uint64_t i = 0; i < count; ++i) segments_->Put(Key(i), Label(i, 1000));
  options_.max_bytes = 4 * kMiB;
  Open();
  EXPECT_LE(segments_->bytes(), options_.max_bytes);
  EXPECT_FALSE(segments_->Get(Key(0)).ok());
  EXPECT_TRUE(segments_->Get(Key(count - 1)).ok());
}

TEST_F(LabelSegmentsTest, TooLargeALabelIsNotKept) {
  options_.max_bytes = kMiB;
  Open();
  segments_->Put(Key(1), Label(1, 100'000));
  EXPECT_TRUE(absl::IsNotFound(segments_->Get(Key(1)).status()));
  options_.max_bytes = kMiB - 1;
  EXPECT_EQ(OpenStatus().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(LabelSegmentsTest, TornAndForeignEntriesAreRefusedUntilReplaced) {
  const auto spoil = [](std::string* entry, const std::string& other, int how) {
    if (how == 0) entry->resize(10);
    if (how == 1) entry->pop_back();
    if (how == 2) entry->back() ^= 1;
    if (how == 3) (*entry)[0] ^= 1;
    if (how == 4) *entry = other;  // whole, but of another key
    if (how == 5) entry->clear();
  };
  Open();
  for (uint64_t i = 0; i < 7; ++i) segments_->Put(Key(i), Label(i, 50));
  Change([&](rocksdb::DB* db, rocksdb::ColumnFamilyHandle* newest) {
    std::string other;
    ASSERT_TRUE(db->Get(rocksdb::ReadOptions(), newest, Key(6), &other).ok());
    for (int how = 0; how < 6; ++how) {
      std::string entry;
      ASSERT_TRUE(db->Get(rocksdb::ReadOptions(), newest, Key(how), &entry).ok());
      spoil(&entry, other, how);
      ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), newest, Key(how), entry).ok());
    }
  });
  Open();
  for (uint64_t i = 0; i < 6; ++i) {
    const auto label = segments_->Get(Key(i));
    EXPECT_EQ(label.status().code(), absl::StatusCode::kDataLoss) << i;
    EXPECT_THAT(std::string(label.status().message()), HasSubstr(options_.folder));
    segments_->Put(Key(i), "again");
    EXPECT_EQ(segments_->Get(Key(i)).value_or(""), "again") << i;
  }
  EXPECT_EQ(segments_->Get(Key(6)).value_or(""), Label(6, 50));
}

TEST_F(LabelSegmentsTest, DamagedFilesLoseWhatTheyHeldAndNothingElse) {
  Open();
  for (uint64_t i = 0; i < 1'000; ++i) segments_->Put(Key(i), Label(i, 1'000));
  Open();  // all is in files now
  segments_.reset();
  for (const auto& file : fs::directory_iterator(options_.folder)) {
    if (file.path().extension() != ".sst" || file.file_size() < 500'000) continue;
    std::fstream bytes(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(100'000);
    bytes.write("damage", 6);
  }
  Open();
  int lost = 0;
  for (uint64_t i = 0; i < 1'000; ++i) {
    const auto label = segments_->Get(Key(i));
    lost += absl::IsDataLoss(label.status());
    EXPECT_TRUE(absl::IsDataLoss(label.status()) || *label == Label(i, 1'000)) << i << ": " << label.status();
  }
  EXPECT_GE(lost, 1);
  EXPECT_LE(lost, 10);
}

TEST_F(LabelSegmentsTest, OtherThingsInTheFolderAreRefused) {
  const auto expect_foreign = [&](const char* what) {
    const absl::Status status = OpenStatus();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << what;
    EXPECT_THAT(std::string(status.message()), HasSubstr(options_.folder)) << what;
    EXPECT_THAT(std::string(status.message()), HasSubstr("name another folder, or delete that one")) << what;
    fs::remove_all(options_.folder);
  };
  ASSERT_TRUE(WriteFileAtomically(options_.folder + "/notes.txt", "mine").ok());
  expect_foreign("a file");
  ASSERT_TRUE(WriteFileAtomically(options_.folder + "/server.log", "mine").ok());
  expect_foreign("somebody's log");
  ASSERT_TRUE(WriteFileAtomically(options_.folder + "/20240101.log", "mine").ok());
  expect_foreign("somebody's numbered log");
  EXPECT_TRUE(MakeFolder(options_.folder).ok());
  Change([](rocksdb::DB* db, auto) { db->Put(rocksdb::WriteOptions(), "a", "b"); });
  expect_foreign("somebody's database");
  EXPECT_TRUE(MakeFolder(options_.folder).ok());
  Change([](rocksdb::DB* db, auto) {
    rocksdb::ColumnFamilyHandle* handle = nullptr;
    db->CreateColumnFamily(rocksdb::ColumnFamilyOptions(), "users", &handle);
    db->DestroyColumnFamilyHandle(handle);
  });
  expect_foreign("somebody's column family");
  Open();
  Change([](rocksdb::DB* db, auto) { db->Put(rocksdb::WriteOptions(), "format", "polystill labels 2"); });
  expect_foreign("a later format");
}

TEST_F(LabelSegmentsTest, AFolderWhoseMakerDiedIsMadeAnew) {
  for (const char* name : {"LOCK", "IDENTITY", "LOG", "000001.dbtmp", "MANIFEST-000001", "000004.log"}) {
    ASSERT_TRUE(WriteFileAtomically(options_.folder + "/" + name, "torn").ok());
  }
  EXPECT_EQ(OpenStatus(), absl::OkStatus());
}

TEST_F(LabelSegmentsTest, AFolderIsOfOneProcess) {
  Open();
  const absl::Status second = OpenStatus();
  EXPECT_EQ(second.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.message()), HasSubstr("a folder of its own"));
}

TEST_F(LabelSegmentsTest, ADamagedDatabaseIsRefusedWithARemedy) {
  options_.folder += "-block";  // a name that looks like a lock's
  for (const char* manifest : {"MANIFEST-999999\n", "", "nonsense"}) {
    Open();
    segments_->Put(Key(1), "x");
    segments_.reset();
    std::ofstream(options_.folder + "/CURRENT") << manifest;
    const absl::Status status = OpenStatus();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << manifest << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("delete the folder")) << manifest;
    fs::remove_all(options_.folder);
  }
}

TEST_F(LabelSegmentsTest, AFullDiskStopsWritingWithOneWarning) {
  std::ostringstream said;
  const auto usual = spdlog::default_logger();
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("full", std::make_shared<spdlog::sinks::ostream_sink_mt>(said)));
  FullDisk disk;
  options_.env = &disk;
  Open();
  for (uint64_t i = 0; i < 100; ++i) segments_->Put(Key(i), Label(i, 1'000));
  disk.full = true;
  for (uint64_t i = 100; i < 200; ++i) segments_->Put(Key(i), Label(i, 1'000));
  for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(segments_->Get(Key(i)).value_or(""), Label(i, 1'000)) << i;
  EXPECT_TRUE(absl::IsNotFound(segments_->Get(Key(150)).status()));
  disk.full = false;
  Open();  // mended, and started again
  segments_->Put(Key(150), "later");
  EXPECT_EQ(segments_->Get(Key(150)).value_or(""), "later");
  for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(segments_->Get(Key(i)).value_or(""), Label(i, 1'000)) << i;
  segments_.reset();
  spdlog::set_default_logger(usual);
  const std::string text = said.str();
  EXPECT_THAT(text, HasSubstr(absl::StrCat("label cache ", options_.folder, ": IO error: No space left")));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
}

TEST_F(LabelSegmentsTest, ThreadsShareIt) {
  options_.max_bytes = 4 * kMiB;
  Open();
  std::vector<std::jthread> threads;
  std::atomic<int> wrong = 0;
  for (uint64_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (uint64_t i = thread; i < 12'000; i += 4) {
        segments_->Put(Key(i), Label(i, 1'000));
        const auto label = segments_->Get(Key(i / 2));  // may be gone, or somebody else's
        if (label.ok() ? *label != Label(i / 2, 1'000) : !absl::IsNotFound(label.status())) ++wrong;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(segments_->bytes(), options_.max_bytes);
}

}  // namespace
}  // namespace polystill::teacher_server
