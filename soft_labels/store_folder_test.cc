#include "soft_labels/store_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "runtime/files.h"
#include "runtime/sha256.h"
#include "soft_labels/store_manifest.h"
#include "soft_labels/store_writer.h"
#include "soft_labels/test_store.h"

namespace polystill::soft_labels {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class StoreFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    corpus_.WriteParquet("a.parquet", {corpus::RowJson("a", "de"), corpus::RowJson("b", "de")});
    job_ = TestJob(corpus_.Selection(), TestSpec(v1::CODEC_DENSE_FP32));
  }

  std::string Folder() const { return corpus_.folder() + "/store"; }
  absl::StatusOr<std::unique_ptr<StoreFolder>> Open() const { return StoreFolder::Open(Folder(), job_); }

  v1::FileDigest WritePart(const StoreFolder& folder, const std::string& name) const {
    const auto writer = PartWriter::Create(folder.PathOfPart(name), job_.spec(), TestOutputs(job_.spec())).value();
    EXPECT_TRUE(writer->Append(TestLabels(name, "de", job_.spec())).ok());
    return writer->Finish().value();
  }

  corpus::TestCorpus corpus_;
  v1::LabelStoreManifest job_;
};

TEST_F(StoreFolderTest, GoesOnWithThePartsThatAreWhole) {
  v1::FileDigest first, second;
  {
    const auto folder = Open().value();
    first = WritePart(*folder, "part-000000.parquet");
    second = WritePart(*folder, "part-000001.parquet");
    ASSERT_TRUE(folder->NoteFinished(first).ok());
    ASSERT_TRUE(folder->NoteFinished(second).ok());
    WritePart(*folder, "part-000002.parquet");  // renamed, and then the process died
    std::ofstream(Folder() + "/labels/.part-000003.parquet.tmp-1") << "half";
    std::ofstream(Folder() + "/" + kStoreFinishedFile, std::ios::app) << "0123  labels/part-0000";  // torn
  }
  fs::resize_file(Folder() + "/labels/part-000001.parquet", 10);
  for (int again = 0; again < 2; ++again) {
    const auto folder = Open();
    ASSERT_TRUE(folder.ok()) << folder.status();
    EXPECT_FALSE((*folder)->sealed());
    EXPECT_EQ((*folder)->FinishedPart("part-000000.parquet").sha256(), first.sha256());
    EXPECT_EQ((*folder)->FinishedPart("part-000000.parquet").bytes(), first.bytes());
    for (const char* torn : {"part-000001.parquet", "part-000002.parquet"}) {
      EXPECT_TRUE((*folder)->FinishedPart(torn).name().empty());
    }
    EXPECT_FALSE(fs::exists(Folder() + "/labels/.part-000003.parquet.tmp-1"));
  }
}

TEST_F(StoreFolderTest, IsSealedUntilAPartIsGone) {
  {
    const auto folder = Open().value();
    v1::LabelStoreManifest manifest = job_;
    for (const char* name : {"part-000000.parquet", "part-000001.parquet"}) {
      v1::LabelStoreManifest::Part& part = *manifest.add_parts();
      *part.mutable_file() = WritePart(*folder, name);
      part.mutable_unit()->set_records(1);
    }
    ASSERT_TRUE(folder->Seal(manifest).ok());
  }
  EXPECT_FALSE(fs::exists(Folder() + "/" + kStoreJobFile));
  EXPECT_FALSE(fs::exists(Folder() + "/" + kStoreFinishedFile));
  EXPECT_TRUE(Open().value()->sealed());
  EXPECT_TRUE(ReadStore(Folder()).ok());
  fs::remove(Folder() + "/labels/part-000000.parquet");
  const auto folder = Open().value();
  EXPECT_FALSE(folder->sealed());
  EXPECT_TRUE(folder->FinishedPart("part-000000.parquet").name().empty());
  EXPECT_EQ(folder->FinishedPart("part-000001.parquet").name(), "part-000001.parquet");
  EXPECT_FALSE(ReadStore(Folder()).ok());
}

TEST_F(StoreFolderTest, IsSealedUntilItsHeadIsGone) {
  const std::string head = Folder() + "/" + kStoreHeadFile;
  {
    const auto folder = Open().value();
    std::ofstream(head) << "head";
    v1::LabelStoreManifest manifest = job_;
    v1::LabelStoreManifest::Part& part = *manifest.add_parts();
    *part.mutable_file() = WritePart(*folder, "part-000000.parquet");
    part.mutable_unit()->set_records(1);
    manifest.mutable_head()->set_name(kStoreHeadFile);
    manifest.mutable_head()->set_sha256(Sha256Hex("head"));
    ASSERT_TRUE(folder->Seal(manifest).ok());
  }
  EXPECT_TRUE(Open().value()->sealed());
  std::ofstream(head) << "hea";
  const auto folder = Open().value();
  EXPECT_FALSE(folder->sealed());
  EXPECT_EQ(folder->FinishedPart("part-000000.parquet").name(), "part-000000.parquet");
}

TEST_F(StoreFolderTest, GoesOnAfterAKillBetweenAnyTwoWrites) {
  fs::create_directories(Folder());
  std::ofstream(Folder() + "/" + kStoreJobFile + ".tmp-71") << "half";
  EXPECT_TRUE(CheckStoreFolder(Folder()).ok());
  ASSERT_TRUE(Open().ok());
  for (const char* file : {kStoreJobFile, kStoreFinishedFile, kStoreManifestFile, kStoreHeadFile}) {
    std::ofstream(Folder() + "/" + file + ".tmp-71") << "half";
  }
  ASSERT_TRUE(Open().ok());
  for (const auto& entry : fs::directory_iterator(Folder())) {
    EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos) << entry.path();
  }
}

TEST_F(StoreFolderTest, NeverMixesLabels) {
  ASSERT_TRUE(Open().ok());
  struct Case {
    std::function<void(v1::LabelStoreManifest*)> change;
    std::string says;
  };
  const Case cases[] = {
      {[](auto* job) { job->mutable_teacher()->set_digest("d2"); }, "--teacher (digest) was 'd1' and is 'd2'"},
      {[](auto* job) { job->mutable_teacher()->set_backend("cuda"); }, "--teacher (backend)"},
      {[](auto* job) { job->mutable_spec()->set_codec(v1::CODEC_DENSE_FP16); },
       "--codec was 'dense_fp32' and is 'dense_fp16'"},
      {[](auto* job) { job->mutable_spec()->add_outputs("hidden.1"); }, "--outputs"},
      {[](auto* job) { job->mutable_spec()->set_seed(3); }, "--seed was '0' and is '3'"},
      {[](auto* job) { job->set_reads(v1::SIDE_SOURCE_TEXT); }, "--reads was 'text' and is 'source_text'"},
      {[](auto* job) { (*job->mutable_selection()->mutable_where())["pool"] = "A"; },
       "--where was '{}' and is '{pool=A}'"},
      {[](auto* job) { job->set_corpus_digest("other"); }, "--corpus"},
  };
  for (const Case& c : cases) {
    v1::LabelStoreManifest other = job_;
    c.change(&other);
    const absl::Status status = StoreFolder::Open(Folder(), other).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(status.message(), HasSubstr(c.says));
    EXPECT_THAT(status.message(), HasSubstr("choose another --out"));
  }
}

TEST_F(StoreFolderTest, OneProcessAtATime) {
  const auto first = Open();
  ASSERT_TRUE(first.ok());
  const absl::Status second = Open().status();
  EXPECT_TRUE(absl::IsAborted(second)) << second;
  EXPECT_THAT(second.message(), HasSubstr("another `polystill label` writes to it"));
}

TEST_F(StoreFolderTest, LeavesWhatIsNoStoreAlone) {
  fs::create_directory(Folder());
  std::ofstream(Folder() + "/thesis.tex") << "text";
  EXPECT_THAT(CheckStoreFolder(Folder()).message(), HasSubstr("holds something else, thesis.tex"));
  EXPECT_TRUE(absl::IsAlreadyExists(Open().status()));
  fs::remove(Folder() + "/thesis.tex");
  EXPECT_TRUE(Open().ok());
  EXPECT_TRUE(absl::IsAlreadyExists(CheckStoreFolder(corpus_.PathOf("a.parquet"))));
}

TEST_F(StoreFolderTest, AFullDiskIsSaidAndLeavesNoPart) {
  const auto folder = Open().value();
  const std::string path = folder->PathOfPart("part-000000.parquet");
  // Every write to /dev/full fails with ENOSPC; the writer's temporary name is led there by a link.
  const std::string temporary = TemporaryOf(Folder() + "/labels/.part-000000.parquet");
  fs::create_symlink("/dev/full", temporary);
  absl::Status status;
  {
    auto writer = PartWriter::Create(path, job_.spec(), TestOutputs(job_.spec()));
    status = writer.status();
    if (writer.ok()) {
      status = (*writer)->Append(TestLabels("a", "de", job_.spec()));
      if (status.ok()) status = (*writer)->Finish().status();
    }
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr(path));
  EXPECT_FALSE(fs::exists(path));
  EXPECT_FALSE(fs::is_symlink(temporary));
}

TEST_F(StoreFolderTest, TheSameRecordsGiveTheSameBytes) {
  const auto folder = Open().value();
  const v1::FileDigest part = WritePart(*folder, "part-000000.parquet");
  EXPECT_EQ(WritePart(*folder, "part-000000.parquet").sha256(), part.sha256());
}

}  // namespace
}  // namespace polystill::soft_labels
