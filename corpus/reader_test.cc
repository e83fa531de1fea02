#include "corpus/reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "arrow/io/file.h"
#include "arrow/type.h"
#include "corpus/index.h"
#include "corpus/test_corpus.h"
#include "parquet/file_reader.h"
#include "parquet/metadata.h"
#include "runtime/counter_rng.h"

namespace polystill::corpus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::shared_ptr<const v1::CorpusIndex> IndexOf(const v1::Selection& selection) {
  return std::make_shared<v1::CorpusIndex>(BuildIndex(selection).value());
}

// Every record of every block.
absl::StatusOr<std::vector<Record>> ReadAll(const v1::Selection& selection) {
  auto index = BuildIndex(selection);
  if (!index.ok()) return index.status();
  auto reader = Reader::Open(std::make_shared<v1::CorpusIndex>(*index));
  if (!reader.ok()) return reader.status();
  std::vector<Record> all;
  for (int language = 0; language < index->languages_size(); ++language) {
    for (int block = 0; block < index->languages(language).blocks_size(); ++block) {
      auto records = (*reader)->ReadBlock(language, block);
      if (!records.ok()) return records.status();
      all.insert(all.end(), records->begin(), records->end());
    }
  }
  return all;
}

std::string ErrorOf(const v1::Selection& selection) {
  const auto records = ReadAll(selection);
  return records.ok() ? "no error" : std::string(records.status().message());
}

class ReaderFormatTest : public testing::TestWithParam<std::string> {
 protected:
  void Write(const std::vector<std::string>& rows) const {
    if (GetParam() == "parquet") return corpus_.WriteParquet("a.parquet", rows, 2);
    std::string lines;
    for (const std::string& row : rows) absl::StrAppend(&lines, row, "\n");
    corpus_.WriteFile("a.jsonl", lines);
  }
  const TestCorpus corpus_;
};

TEST_P(ReaderFormatTest, FillsWhatTheSelectionAsksFor) {
  Write({RowJson("1", "de", "games"), RowJson("2", "fr"), RowJson("3", "de", "net", "test"),
         R"({"id":"4","language":"de","text":"","source_text":"\u65e5\u672c","label":"net","split":"train"})"});
  v1::Selection selection = corpus_.Selection();
  (*selection.mutable_where())["split"] = "train";
  selection.set_reads_source_text(true);
  const std::vector<Record> records = ReadAll(selection).value();
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[0].id, "1");
  EXPECT_EQ(records[0].language, "de");
  EXPECT_EQ(records[0].text, "text of 1");
  EXPECT_EQ(records[0].source_text, "source of 1");
  EXPECT_EQ(records[0].label, 0);
  EXPECT_EQ(records[0].group, "group of 1");
  EXPECT_EQ(records[1].text, "");
  EXPECT_EQ(records[1].source_text, "\u65e5\u672c");
  EXPECT_EQ(records[1].label, 1);
  EXPECT_EQ(records[1].group, "");
  EXPECT_EQ(records[2].language, "fr");

  selection.set_reads_text(false);
  selection.set_reads_labels(false);
  const std::vector<Record> source_only = ReadAll(selection).value();
  EXPECT_EQ(source_only[0].text, "");
  EXPECT_EQ(source_only[0].source_text, "source of 1");
  EXPECT_EQ(source_only[0].label, -1);
}

TEST_P(ReaderFormatTest, ReadsTheRecordsOfAnyAlternativeOnce) {
  Write({RowJson("1", "en"), RowJson("2", "de"), RowJson("3", "de", "net", "dev"), RowJson("4", "fr", "net", "dev")});
  v1::Selection selection = corpus_.Selection();
  (*selection.add_alternatives()->mutable_where())["split"] = "train";
  selection.add_alternatives()->add_languages("de");
  const auto records = ReadAll(selection);
  ASSERT_TRUE(records.ok()) << records.status();
  std::vector<std::string> ids;
  for (const Record& record : *records) ids.push_back(record.id);
  EXPECT_THAT(ids, testing::UnorderedElementsAre("1", "2", "3"));
}

TEST_P(ReaderFormatTest, ErrorsNameTheRecord) {
  struct Case {
    std::string row;
    std::string says;
  };
  const Case cases[] = {
      {R"({"language":"de","text":"x","label":"net"})", "row 3: column \"id\" (run file: corpus.columns.id) is null"},
      {R"({"id":"","language":"de","text":"x","label":"net"})", "row 3: the id is empty"},
      {R"({"id":"bad","language":"de","label":"net"})", "record \"bad\" (row 3): column \"text\" (run file"},
      {RowJson("2", "de"), "record \"2\" (row 4): an earlier row of the block has this id"},
  };
  for (const Case& c : cases) {
    Write({RowJson("1", "de", "games"), RowJson("1b", "de"), c.row, RowJson("2", "de")});
    EXPECT_THAT(ErrorOf(corpus_.Selection()), HasSubstr(c.says));
  }
}

// A step's records come back in the step's order, whatever their blocks.
TEST_P(ReaderFormatTest, ReadsWhatAPlanNames) {
  std::vector<std::string> rows;
  rows.reserve(60);
  for (int i = 0; i < 60; ++i) rows.push_back(RowJson(std::to_string(i), i % 3 == 0 ? "fr" : "de"));
  Write(rows);
  const auto index = IndexOf(corpus_.Selection());
  v1::PlanSegment segment;
  segment.set_algorithm(2);
  segment.set_batch_size(12);
  segment.set_index_digest(IndexDigest(*index));
  const Plan plan = Plan::Create(segment, index).value();
  const auto reader = Reader::Open(index).value();
  std::set<std::string> ids;
  for (int64_t step = 0; step < plan.StepsForEpochs(1).value(); ++step) {
    const std::vector<RecordRef> refs = plan.Slice(step, 0, 12);
    const std::vector<Record> records = reader->Read(refs).value();
    ASSERT_EQ(records.size(), refs.size());
    for (size_t i = 0; i < refs.size(); ++i) {
      const std::vector<Record> block = reader->ReadBlock(refs[i].language, refs[i].block).value();
      EXPECT_EQ(records[i].id, block[refs[i].row].id);
      EXPECT_EQ(records[i].language, index->languages(refs[i].language).name());
      ids.insert(records[i].id);
    }
  }
  EXPECT_EQ(ids.size(), 60u);
  // Every block once: all of them fit in the cache.
  int64_t blocks = 0;
  for (const auto& language : index->languages()) blocks += language.blocks_size();
  EXPECT_EQ(reader->blocks_decoded(), blocks);
}

// Whatever bytes are damaged, reading ends in records or in a status that names the file, never in a crash.
TEST_P(ReaderFormatTest, DamagedFilesEndInAStatus) {
  std::vector<std::string> rows;
  rows.reserve(20);
  for (int i = 0; i < 20; ++i) rows.push_back(RowJson(std::to_string(i), i % 3 == 0 ? "fr" : "de"));
  Write(rows);
  const std::string name = "a." + GetParam();
  const std::string whole = corpus_.ReadFile(name);
  int refused = 0;
  for (uint64_t i = 0; i < 200; ++i) {
    std::string bytes = whole;
    for (uint64_t k = 0; k <= i % 5; ++k) bytes[CombineKey(i, k) % bytes.size()] = static_cast<char>(CombineKey(k, i));
    if (i % 8 == 0) bytes.resize(CombineKey(i) % bytes.size());
    corpus_.WriteFile(name, bytes);
    const std::string error = ErrorOf(corpus_.Selection());
    if (error == "no error") continue;
    ++refused;
    ASSERT_THAT(error, HasSubstr(name.substr(0, 2))) << "damage " << i;
  }
  EXPECT_GT(refused, 100);
}

INSTANTIATE_TEST_SUITE_P(Formats, ReaderFormatTest, testing::Values("parquet", "jsonl"),
                         [](const auto& info) { return info.param; });

TEST(ReaderTest, DecodesARowGroupOnceForAllItsLanguages) {
  const TestCorpus corpus;
  corpus.WriteParquet("a.parquet", {RowJson("1", "de"), RowJson("2", "fr"), RowJson("3", "de"), RowJson("4", "fr")}, 2);
  const auto reader = Reader::Open(IndexOf(corpus.Selection())).value();
  ASSERT_TRUE(reader->ReadBlock(0, 0).ok());
  EXPECT_EQ(reader->blocks_decoded(), 2);
  ASSERT_TRUE(reader->ReadBlock(1, 0).ok());
  EXPECT_EQ(reader->blocks_decoded(), 2);
  ASSERT_TRUE(reader->ReadBlock(1, 1).ok());
  EXPECT_EQ(reader->blocks_decoded(), 4);
}

TEST(ReaderTest, ASmallCacheReadsAgain) {
  const TestCorpus corpus;
  corpus.WriteParquet("a.parquet", {RowJson("1", "de"), RowJson("2", "de")}, 1);
  const auto reader = Reader::Open(IndexOf(corpus.Selection()), {.cache_bytes = 1}).value();
  for (const int block : {0, 0, 1, 0}) ASSERT_TRUE(reader->ReadBlock(0, block).ok());
  EXPECT_EQ(reader->blocks_decoded(), 3);
}

TEST(ReaderTest, BlocksOutOfOrderAreRefused) {
  const TestCorpus corpus;
  corpus.WriteParquet("a.parquet", {RowJson("1", "de"), RowJson("2", "fr"), RowJson("3", "fr")}, 1);
  const auto index = IndexOf(corpus.Selection());
  for (const auto& [first, second] : {std::pair(1, 0), std::pair(0, 0)}) {
    auto spoilt = std::make_shared<v1::CorpusIndex>(*index);
    *spoilt->mutable_languages(1)->mutable_blocks(0) = index->languages(1).blocks(first);
    *spoilt->mutable_languages(1)->mutable_blocks(1) = index->languages(1).blocks(second);
    const absl::Status status = Reader::Open(spoilt).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("blocks of fr"));
  }
}

TEST(ReaderTest, TokenIdsAreCutAndChecked) {
  for (const auto& type :
       {arrow::list(arrow::int32()), arrow::list(arrow::int64()), arrow::large_list(arrow::int32())}) {
    const TestCorpus corpus;
    v1::Selection selection = corpus.Selection();
    selection.set_reads_labels(false);
    selection.mutable_tokenizer()->set_kind(v1::Tokenizer::KIND_IDS);
    selection.mutable_tokenizer()->set_vocab_size(100);
    selection.mutable_tokenizer()->set_max_length(3);
    const auto write = [&](const std::string& ids) {
      corpus.WriteParquet("a.parquet",
                          {R"({"id":"first","language":"de","ids":[99]})",
                           absl::StrCat(R"({"id":"second","language":"de","ids":)", ids, "}")},
                          10, TestCorpus::With("ids", type));
    };
    write("[0,1,99,3]");
    const auto records = ReadAll(selection);
    ASSERT_TRUE(records.ok()) << records.status();
    EXPECT_THAT((*records)[0].ids, ElementsAre(99));
    EXPECT_THAT((*records)[1].ids, ElementsAre(0, 1, 99));
    EXPECT_THAT((*records)[1].source_ids, ElementsAre());
    for (const char* bad : {"[5,100]", "[5,-1]", "[5,null]", "[1,2,3,100]"}) {
      write(bad);
      EXPECT_THAT(ErrorOf(selection), HasSubstr("record \"second\" (row 2): column \"ids\" (run file: "
                                                "corpus.columns.ids): token "))
          << bad;
      EXPECT_THAT(ErrorOf(selection), HasSubstr("ids are at least 0 and below 100")) << bad;
    }
    for (const char* bad : {"[]", "null"}) {
      write(bad);
      EXPECT_THAT(ErrorOf(selection), HasSubstr("record \"second\"")) << bad;
    }
  }
}

TEST(ReaderTest, TokenIdsOfJsonLines) {
  const TestCorpus corpus;
  corpus.WriteFile("a.jsonl", R"({"id":"1","language":"de","source_ids":[4,5]})");
  v1::Selection selection = corpus.Selection();
  selection.set_reads_labels(false);
  selection.set_reads_text(false);
  selection.set_reads_source_text(true);
  selection.mutable_tokenizer()->set_kind(v1::Tokenizer::KIND_IDS);
  selection.mutable_tokenizer()->set_vocab_size(6);
  selection.mutable_tokenizer()->set_max_length(8);
  EXPECT_THAT(ReadAll(selection).value()[0].source_ids, ElementsAre(4, 5));
  selection.mutable_tokenizer()->set_vocab_size(5);
  EXPECT_THAT(ErrorOf(selection), HasSubstr("record \"1\" (row 1): column \"source_ids\""));
}

TEST(ReaderTest, TextMustBeUtf8) {
  const TestCorpus corpus;
  const std::string text = "caf\xc3\xa9";
  corpus.WriteParquet("a.parquet", {absl::StrCat(R"({"id":"x","language":"de","label":"net","text":")", text, "\"}")});
  std::string bytes = corpus.ReadFile("a.parquet");
  for (size_t at = bytes.find("\xc3\xa9"); at != std::string::npos; at = bytes.find("\xc3\xa9")) bytes[at + 1] = 'e';
  corpus.WriteFile("a.parquet", bytes);
  EXPECT_THAT(ErrorOf(corpus.Selection()), HasSubstr("record \"x\" (row 1): column \"text\" (run file: "
                                                     "corpus.columns.text) is not valid UTF-8"));
}

// Where the label column's bytes lie in the file.
std::pair<size_t, size_t> LabelBytes(const std::string& path) {
  const auto file = parquet::ParquetFileReader::OpenFile(path);
  const auto chunk = file->metadata()->RowGroup(0)->ColumnChunk(file->metadata()->schema()->ColumnIndex("label"));
  return {chunk->dictionary_page_offset(), chunk->total_compressed_size()};
}

TEST(ReaderTest, LabelsThatAreNotReadAreNeverOpened) {
  const TestCorpus corpus;
  corpus.WriteParquet("a.parquet", {RowJson("1", "de"), RowJson("2", "de", "games")});
  const auto [offset, length] = LabelBytes(corpus.PathOf("a.parquet"));
  std::string bytes = corpus.ReadFile("a.parquet");
  bytes.replace(offset, length, std::string(length, '\xff'));
  corpus.WriteFile("a.parquet", bytes);
  v1::Selection selection = corpus.Selection();
  EXPECT_NE(ErrorOf(selection), "no error");
  selection.set_reads_labels(false);
  const auto records = ReadAll(selection);
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_EQ((*records)[1].label, -1);
}

TEST(ReaderTest, LabelsOfJsonLinesThatAreNotReadMayBeAnything) {
  const TestCorpus corpus;
  corpus.WriteFile("a.jsonl", R"({"id":"1","language":"de","text":"x","label":{"a":[1,2]}})");
  v1::Selection selection = corpus.Selection();
  EXPECT_NE(ErrorOf(selection), "no error");
  selection.set_reads_labels(false);
  EXPECT_EQ(ErrorOf(selection), "no error");
}

TEST(ReaderTest, AChangedCorpusIsRefused) {
  const TestCorpus corpus;
  corpus.WriteFile("a.jsonl", RowJson("1", "de") + "\n" + RowJson("2", "de") + "\n");
  const auto index = IndexOf(corpus.Selection());
  const std::string original = corpus.ReadFile("a.jsonl");

  corpus.WriteFile("a.jsonl", original + RowJson("3", "de"));
  EXPECT_EQ(Reader::Open(index).status().code(), absl::StatusCode::kFailedPrecondition);
  std::filesystem::remove(corpus.PathOf("a.jsonl"));
  const absl::Status gone = Reader::Open(index).status();
  EXPECT_EQ(gone.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(gone.message()), HasSubstr("a.jsonl had"));

  // The same size, another language.
  std::string changed = original;
  changed.replace(changed.find("\"de\""), 4, "\"fr\"");
  corpus.WriteFile("a.jsonl", changed);
  const absl::Status status = Reader::Open(index).value()->ReadBlock(0, 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("a block holds 1 records of de and held 2"));
}

TEST(ReaderTest, ATornBlockIsDataLoss) {
  const TestCorpus corpus;
  corpus.WriteParquet("a.parquet", {RowJson("1", "de"), RowJson("2", "de")});
  const auto index = IndexOf(corpus.Selection());
  std::string bytes = corpus.ReadFile("a.parquet");
  for (size_t i = 4; i < 200; ++i) bytes[i] = '\xff';
  corpus.WriteFile("a.parquet", bytes);
  const absl::Status status = Reader::Open(index).value()->ReadBlock(0, 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("a.parquet: row group 0"));
}

TEST(ReaderTest, PlacesThatAreNotThereAreOutOfRange) {
  const TestCorpus corpus;
  corpus.WriteParquet("a.parquet", {RowJson("1", "de")});
  const auto reader = Reader::Open(IndexOf(corpus.Selection())).value();
  for (const RecordRef& ref :
       {RecordRef{1, 0, 0, 0}, RecordRef{0, 0, 1, 0}, RecordRef{0, 0, 0, 1}, RecordRef{-1, 0, 0, 0}}) {
    EXPECT_EQ(reader->Read({ref}).status().code(), absl::StatusCode::kOutOfRange);
  }
}

}  // namespace
}  // namespace polystill::corpus
