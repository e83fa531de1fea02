#include "soft_labels/store_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "corpus/index.h"
#include "runtime/files.h"
#include "soft_labels/decode.h"
#include "soft_labels/store_manifest.h"
#include "soft_labels/test_store.h"

namespace polystill::soft_labels {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

// Twelve records of three languages, in two files and row groups of four.
class LabelStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::vector<std::string> rows;
    for (int i = 0; i < 8; ++i) {
      const std::string id = "r" + std::to_string(i);
      rows.push_back(corpus::RowJson(id, i % 2 == 0 ? "de" : "fr", "net", i < 6 ? "train" : "test"));
    }
    corpus_.WriteParquet("a.parquet", rows, 4);
    std::string lines;
    for (int i = 8; i < 12; ++i) lines += corpus::RowJson("r" + std::to_string(i), "ja") + "\n";
    corpus_.WriteFile("b.jsonl", lines);
  }

  std::string Folder() const { return corpus_.folder() + "/store"; }

  v1::Selection Select(const std::string& split = "") const {
    v1::Selection selection = corpus_.Selection();
    selection.set_reads_labels(false);
    if (!split.empty()) (*selection.mutable_where())["split"] = split;
    return selection;
  }

  static std::shared_ptr<const v1::CorpusIndex> IndexOf(const v1::Selection& selection) {
    return std::make_shared<const v1::CorpusIndex>(corpus::BuildIndex(selection).value());
  }

  // A store that reads the records of an index.
  absl::StatusOr<std::unique_ptr<LabelStore>> Open(const std::shared_ptr<const v1::CorpusIndex>& index,
                                                   LabelStore::Options options = {}) {
    auto store = LabelStore::Open(Folder(), options);
    if (!store.ok()) return store;
    if (const absl::Status holds = (*store)->UseIndex(index); !holds.ok()) return holds;
    (*store)->UseOutputs(TestOutputs((*store)->manifest().spec()));
    return store;
  }

  absl::Status ReadAll(LabelStore* store, const v1::CorpusIndex& index) {
    const TestRecords records(index);
    return store->Read(TestOutputs(store->manifest().spec()), records.refs, records.inputs).status();
  }

  corpus::TestCorpus corpus_;
};

TEST_F(LabelStoreTest, GivesWhatWasWrittenByEveryCodec) {
  for (const v1::Codec codec : {v1::CODEC_DENSE_FP32, v1::CODEC_DENSE_FP16, v1::CODEC_DENSE_BF16, v1::CODEC_DENSE_INT8,
                                v1::CODEC_TOP_K, v1::CODEC_SAMPLED, v1::CODEC_HIDDEN_HEAD, v1::CODEC_CLASSES}) {
    SCOPED_TRACE(CodecName(codec));
    fs::remove_all(Folder());
    const v1::LabelSpec spec = TestSpec(codec);
    WriteTestStore(Folder(), Select(), spec, /*part_records=*/3);
    const auto index = IndexOf(Select("train"));
    const auto store = Open(index);
    ASSERT_TRUE(store.ok()) << store.status();
    TestRecords records(*index);
    ASSERT_EQ(records.refs.size(), 10u);
    // In no order of the file's.
    std::reverse(records.refs.begin(), records.refs.end());
    std::reverse(records.inputs.begin(), records.inputs.end());
    const Outputs outputs = TestOutputs(spec);
    const auto labels = (*store)->Read(outputs, records.refs, records.inputs);
    ASSERT_TRUE(labels.ok()) << labels.status();
    ASSERT_EQ(labels->outputs.size(), outputs.size());
    int64_t bytes = 0;
    for (size_t o = 0; o < outputs.size(); ++o) {
      Array expected;
      for (const v1::LabelInput& input : records.inputs) {
        const LabelledRecord labelled = TestLabels(input.id(), "", spec);
        bytes += static_cast<int64_t>(labelled.labels[o].dense().data().size() + labelled.labels[o].packed().size());
        Append(Decode(labelled.labels[o], spec, outputs[o], {SizeOf(spec, outputs[o], input)}).value(), &expected);
      }
      EXPECT_EQ(labels->outputs[o].numbers, expected.numbers);
      EXPECT_EQ(labels->outputs[o].width, expected.width);
      EXPECT_EQ(labels->outputs[o].ids, expected.ids);
      EXPECT_EQ(labels->outputs[o].counts, expected.counts);
      EXPECT_EQ(labels->outputs[o].offsets, expected.offsets);
    }
    EXPECT_EQ(labels->bytes, bytes);
  }
}

TEST_F(LabelStoreTest, HoldsNoMoreThanItsCacheAndReadsAgain) {
  WriteTestStore(Folder(), Select(), TestSpec(v1::CODEC_DENSE_FP32), /*part_records=*/2);
  const auto index = IndexOf(Select());
  for (const auto& [bytes, groups] : {std::pair<int64_t, int64_t>(1, 24), {1 << 20, 6}}) {
    const auto store = Open(index, {bytes});
    ASSERT_TRUE(store.ok()) << store.status();
    ASSERT_TRUE(ReadAll(store->get(), *index).ok());
    ASSERT_TRUE(ReadAll(store->get(), *index).ok());
    EXPECT_EQ((*store)->groups_decoded(), groups);
  }
}

TEST_F(LabelStoreTest, ATornPartIsNamed) {
  WriteTestStore(Folder(), Select(), TestSpec(v1::CODEC_DENSE_FP32));
  const std::string part = Folder() + "/labels/part-000001.parquet";
  fs::resize_file(part, fs::file_size(part) - 1);
  const auto index = IndexOf(Select());
  const auto store = Open(index);
  const absl::Status read = ReadAll(store->get(), *index);
  EXPECT_TRUE(absl::IsDataLoss(read)) << read;
  EXPECT_THAT(read.message(), AllOf(HasSubstr(part), HasSubstr("torn, or another store's")));
  fs::remove(part);
  const absl::Status gone = ReadAll(Open(index)->get(), *index);
  EXPECT_TRUE(absl::IsDataLoss(gone)) << gone;
  EXPECT_THAT(gone.message(), HasSubstr(part));
}

TEST_F(LabelStoreTest, APartOfAnotherStoreIsRefused) {
  WriteTestStore(Folder(), Select(), TestSpec(v1::CODEC_DENSE_FP32), 2);
  fs::copy_file(Folder() + "/labels/part-000000.parquet", Folder() + "/labels/part-000001.parquet",
                fs::copy_options::overwrite_existing);
  const auto index = IndexOf(Select());
  EXPECT_THAT(ReadAll(Open(index)->get(), *index).message(), HasSubstr("part-000001.parquet: its SHA-256 is not"));
}

TEST_F(LabelStoreTest, RecordsThatWereNotLabelledAreRefusedAtTheStart) {
  WriteTestStore(Folder(), Select("train"), TestSpec(v1::CODEC_DENSE_FP32));
  const absl::Status refused = Open(IndexOf(Select())).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_THAT(refused.message(), AllOf(HasSubstr("holds 1 of 2 records of language de"), HasSubstr("a.parquet"),
                                       HasSubstr("{split=train}")));
}

TEST_F(LabelStoreTest, ARecordThatIsMissingAmongAsManyIsNamed) {
  WriteTestStore(Folder(), Select("train"), TestSpec(v1::CODEC_DENSE_FP32));
  // The same file with as many train records in each row group says nothing of which these are.
  v1::Selection other = Select();
  (*other.mutable_where())["id"] = "r6";
  const auto index = IndexOf(other);
  const auto store = Open(index);
  ASSERT_TRUE(store.ok()) << store.status();
  const absl::Status read = ReadAll(store->get(), *index);
  EXPECT_TRUE(absl::IsNotFound(read)) << read;
  EXPECT_THAT(read.message(), AllOf(HasSubstr("no label of record 'r6'"), HasSubstr("label again")));
}

TEST_F(LabelStoreTest, AnotherCorpusIsRefused) {
  WriteTestStore(Folder(), Select(), TestSpec(v1::CODEC_DENSE_FP32));
  corpus_.WriteFile("b.jsonl", corpus::RowJson("r8", "ja") + "\n");
  EXPECT_THAT(Open(IndexOf(Select())).status().message(), HasSubstr("the store is of another corpus"));
}

TEST_F(LabelStoreTest, ACorpusThatWasMovedIsTheSame) {
  WriteTestStore(Folder(), Select(), TestSpec(v1::CODEC_DENSE_FP32));
  const std::string moved = corpus_.folder() + "/moved";
  fs::create_directory(moved);
  fs::rename(corpus_.PathOf("a.parquet"), moved + "/z.parquet");
  fs::rename(corpus_.PathOf("b.jsonl"), moved + "/b.jsonl");
  v1::Selection selection = Select();
  selection.mutable_corpus()->set_path(moved);
  const auto index = IndexOf(selection);
  EXPECT_TRUE(ReadAll(Open(index)->get(), *index).ok());
}

TEST_F(LabelStoreTest, WhatIsNoStoreOrNotFinishedIsRefused) {
  fs::create_directory(Folder());
  EXPECT_THAT(LabelStore::Open(Folder()).status().message(), HasSubstr("is no label store"));
  WriteTestStore(Folder(), Select(), TestSpec(v1::CODEC_DENSE_FP32));
  const std::string manifest = Folder() + "/" + kStoreManifestFile;
  const std::string yaml = ReadFile(manifest).value();
  ASSERT_TRUE(WriteFileAtomically(manifest, yaml.substr(0, yaml.size() / 2)).ok());
  EXPECT_TRUE(absl::IsDataLoss(LabelStore::Open(Folder()).status()));
  fs::rename(manifest, Folder() + "/" + kStoreJobFile);
  EXPECT_THAT(LabelStore::Open(Folder()).status().message(), HasSubstr("its labels are not complete"));
}

TEST(CheckStoredTest, NamesWhatIsMissingAndTheRemedy) {
  v1::LabelStoreManifest store;
  *store.mutable_spec() = TestSpec(v1::CODEC_SAMPLED);
  store.set_reads(v1::SIDE_TEXT);
  CodecSettings wanted = SettingsOf(store.spec(), false);
  EXPECT_TRUE(CheckStored(store, kLogits, wanted).ok());
  EXPECT_THAT(CheckStored(store, "embedding", wanted).message(), HasSubstr("--outputs logits,embedding"));
  const auto refusal = [&](auto CodecSettings::*setting, auto value) {
    CodecSettings other = wanted;
    other.*setting = value;
    return std::string(CheckStored(store, kLogits, other).message());
  };
  EXPECT_THAT(refusal(&CodecSettings::codec, v1::CODEC_DENSE_FP32), HasSubstr("write codec: sampled, or label again"));
  EXPECT_THAT(refusal(&CodecSettings::temperature, 4.0), HasSubstr("temperature: 2, the loss asks for 4"));
  EXPECT_THAT(refusal(&CodecSettings::draws, 8), HasSubstr("draws_per_token: 7, the loss asks for 8"));
  EXPECT_THAT(refusal(&CodecSettings::draws_anew, true), HasSubstr("write draws: fixed"));
  EXPECT_THAT(CheckStoredSide(store, v1::SIDE_SOURCE_TEXT, v1::TASK_CLASSIFICATION).message(),
              HasSubstr("write reads: text, or label again with --reads source_text"));
  EXPECT_THAT(CheckStoredSide(store, v1::SIDE_TEXT, v1::TASK_MASKED_LM).message(),
              HasSubstr("other tokens are hidden"));
}

}  // namespace
}  // namespace polystill::soft_labels
