#include "corpus/index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_join.h"
#include "arrow/type.h"
#include "corpus/reader.h"
#include "corpus/test_corpus.h"
#include "runtime/deterministic_bytes.h"
#include "runtime/sha256.h"

namespace polystill::corpus {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// "de:2+1 fr:1": each language's blocks, by their numbers of records.
std::string Summary(const v1::CorpusIndex& index) {
  std::vector<std::string> languages;
  for (const auto& language : index.languages()) {
    std::vector<int64_t> sizes;
    int64_t records = 0;
    for (const auto& block : language.blocks()) {
      sizes.push_back(block.records());
      records += block.records();
    }
    EXPECT_EQ(records, language.records());
    languages.push_back(language.name() + ":" + absl::StrJoin(sizes, "+"));
  }
  return absl::StrJoin(languages, " ");
}

std::string ErrorOf(const v1::Selection& selection) {
  const auto index = BuildIndex(selection);
  return index.ok() ? "no error" : std::string(index.status().message());
}

TEST(IndexTest, FindsLanguagesBlockByBlockInFilesByName) {
  const TestCorpus corpus;
  corpus.WriteParquet("b.parquet", {RowJson("5", "fr"), RowJson("6", "de")});
  corpus.WriteParquet("a.parquet", {RowJson("1", "de"), RowJson("2", "de"), RowJson("3", "fr"), RowJson("4", "ja")}, 2);
  corpus.WriteFile("c.jsonl", RowJson("7", "ja") + "\n" + RowJson("8", "ja"));
  corpus.WriteFile("notes.txt", "not a part of it");
  corpus.WriteFile(".hidden.parquet", "not a part of it");
  const v1::CorpusIndex index = BuildIndex(corpus.Selection()).value();
  EXPECT_EQ(Summary(index), "de:2+1 fr:1+1 ja:1+2");
  ASSERT_EQ(index.files_size(), 3);
  EXPECT_EQ(index.files(0).path(), corpus.PathOf("a.parquet"));
  EXPECT_EQ(index.files(2).path(), corpus.PathOf("c.jsonl"));
  for (const auto& file : index.files()) {
    EXPECT_EQ(file.sha256(), Sha256File(file.path()).value());
    EXPECT_EQ(file.bytes(), static_cast<int64_t>(std::filesystem::file_size(file.path())));
  }
  EXPECT_EQ(index.languages(1).blocks(0).row_group(), 1);
  EXPECT_EQ(index.languages(1).blocks(1).file(), 1);
}

TEST(IndexTest, SelectsByColumnsAndLanguages) {
  const TestCorpus corpus;
  corpus.WriteParquet("a.parquet", {RowJson("1", "de"), RowJson("2", "de", "net", "test"), RowJson("3", "fr"),
                                    RowJson("4", "ja"), R"({"id":"5","language":"ja","label":"net"})"});
  v1::Selection selection = corpus.Selection();
  (*selection.mutable_where())["split"] = "train";
  EXPECT_EQ(Summary(BuildIndex(selection).value()), "de:1 fr:1 ja:1");
  selection.add_languages("ja");
  selection.add_languages("de");
  EXPECT_EQ(Summary(BuildIndex(selection).value()), "de:1 ja:1");
  (*selection.mutable_where())["id"] = "1";
  selection.mutable_languages()->RemoveLast();
  EXPECT_THAT(ErrorOf(selection),
              AllOf(HasSubstr("no record of language \"ja\" where {id: 1, split: train}"), HasSubstr("are de")));
}

TEST(IndexTest, AnyAlternativeIsEnoughAndARecordOfTwoIsThereOnce) {
  const TestCorpus corpus;
  corpus.WriteParquet("a.parquet", {RowJson("1", "en"), RowJson("2", "de"), RowJson("3", "de", "net", "dev"),
                                    RowJson("4", "fr", "net", "dev"), RowJson("5", "fr", "net", "test")});
  v1::Selection selection = corpus.Selection();
  (*selection.add_alternatives()->mutable_where())["split"] = "train";
  auto& second = *selection.add_alternatives();
  (*second.mutable_where())["language"] = "de";
  EXPECT_EQ(Summary(BuildIndex(selection).value()), "de:2 en:1");
  // Languages belong to their alternative alone.
  second.mutable_where()->clear();
  second.add_languages("fr");
  EXPECT_EQ(Summary(BuildIndex(selection).value()), "de:1 en:1 fr:2");
  // What is outside of the alternatives holds for all of them.
  (*selection.mutable_where())["split"] = "dev";
  EXPECT_EQ(Summary(BuildIndex(selection).value()), "fr:1");
  second.add_languages("ja");
  EXPECT_THAT(ErrorOf(selection),
              HasSubstr("no record of language \"ja\" where {split: dev} and {split: train} or {}"));
  (*second.mutable_where())["label"] = "net";
  EXPECT_THAT(ErrorOf(selection), HasSubstr("where: label: records are selected by"));
}

TEST(IndexTest, TakesOneFileRelativePathsAndUris) {
  const TestCorpus corpus;
  corpus.WriteParquet("a.parquet", {RowJson("1", "de")});
  corpus.WriteParquet("b.parquet", {RowJson("2", "de")});
  v1::Selection selection = corpus.Selection();
  const std::string whole = Summary(BuildIndex(selection).value());
  EXPECT_EQ(whole, "de:1+1");
  for (const std::string& path :
       {corpus.folder() + "/", "file://" + corpus.folder(), std::filesystem::relative(corpus.folder()).string()}) {
    selection.mutable_corpus()->set_path(path);
    const auto index = BuildIndex(selection);
    ASSERT_TRUE(index.ok()) << index.status();
    EXPECT_EQ(Summary(*index), whole) << path;
    EXPECT_EQ(index->files(0).path(), corpus.PathOf("a.parquet"));
    const auto reader = Reader::Open(std::make_shared<v1::CorpusIndex>(*index));
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_EQ((*reader)->ReadBlock(0, 1).value()[0].text, "text of 2") << path;
  }
  selection.mutable_corpus()->set_path(corpus.PathOf("b.parquet"));
  EXPECT_EQ(Summary(BuildIndex(selection).value()), "de:1");
}

TEST(IndexTest, MapsColumnsAndTakesEveryKindOfString) {
  const TestCorpus corpus;
  const auto schema = arrow::schema({arrow::field("key", arrow::large_utf8()),
                                     arrow::field("lang", arrow::dictionary(arrow::int32(), arrow::utf8())),
                                     arrow::field("text", arrow::utf8_view())});
  corpus.WriteParquet("a.parquet",
                      {R"({"key":"1","lang":"de","text":"x"})", R"({"key":"2","lang":"fr","text":"y"})",
                       R"({"key":"3","lang":"de","text":"z"})"},
                      2, schema);
  v1::Selection selection = corpus.Selection();
  selection.set_reads_labels(false);
  selection.mutable_corpus()->mutable_columns()->set_id("key");
  selection.mutable_corpus()->mutable_columns()->set_language("lang");
  const auto index = BuildIndex(selection);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(Summary(*index), "de:1+1 fr:1");
}

TEST(IndexTest, SplitsJsonLinesIntoBlocks) {
  const TestCorpus corpus;
  std::string lines;
  for (int i = 0; i < 25'000; ++i) lines += RowJson(std::to_string(i), i % 5 == 0 ? "fr" : "de") + "\n";
  corpus.WriteFile("a.jsonl", lines);
  const v1::CorpusIndex index = BuildIndex(corpus.Selection()).value();
  EXPECT_EQ(Summary(index), "de:8000+8000+4000 fr:2000+2000+1000");
  EXPECT_EQ(index.languages(0).blocks(2).offset() + index.languages(0).blocks(2).length(),
            static_cast<int64_t>(lines.size()));
}

// It is made without a copy of the index, and is that of the message without the folder.
TEST(IndexTest, DigestIsOfTheWholeMessage) {
  v1::CorpusIndex index;
  index.mutable_selection()->mutable_corpus()->set_path("folder");
  (*index.mutable_selection()->mutable_where())["split"] = "train";
  for (const char* path : {"folder/a.parquet", "folder/b.parquet"}) index.add_files()->set_path(path);
  for (const int blocks : {1, 100, 20'000}) {
    v1::CorpusIndex::Language& language = *index.add_languages();
    language.set_name("de");
    for (int i = 0; i < blocks; ++i) language.add_blocks()->set_records(i + 1);
  }
  v1::CorpusIndex placeless = index;
  placeless.mutable_selection()->mutable_corpus()->clear_path();
  placeless.mutable_files(0)->set_path("a.parquet");
  placeless.mutable_files(1)->set_path("b.parquet");
  EXPECT_EQ(IndexDigest(index), Sha256Hex(DeterministicBytes(placeless)));
}

TEST(IndexTest, DigestCoversContentAndSelectionButNotTheFolder) {
  const TestCorpus corpus;
  corpus.WriteParquet("a.parquet", {RowJson("1", "de"), RowJson("2", "de")});
  v1::Selection selection = corpus.Selection();
  (*selection.mutable_where())["split"] = "train";
  const std::string digest = IndexDigest(BuildIndex(selection).value());
  EXPECT_THAT(digest, testing::MatchesRegex("[0-9a-f]{64}"));
  std::filesystem::create_directories(corpus.PathOf("moved"));
  std::filesystem::copy(corpus.PathOf("a.parquet"), corpus.PathOf("moved/a.parquet"));
  v1::Selection moved = selection;
  moved.mutable_corpus()->set_path(corpus.PathOf("moved"));
  EXPECT_EQ(IndexDigest(BuildIndex(moved).value()), digest);
  selection.set_reads_labels(false);
  EXPECT_NE(IndexDigest(BuildIndex(selection).value()), digest);
  corpus.WriteParquet("moved/a.parquet", {RowJson("1", "de"), RowJson("3", "de")});
  EXPECT_NE(IndexDigest(BuildIndex(moved).value()), digest);
}

// Labels are garbage on the disk, and nobody notices who does not read them.
TEST(IndexTest, LabelsThatAreNotReadAreNeverOpened) {
  const TestCorpus corpus;
  corpus.WriteParquet("a.parquet", {R"({"id":"1","language":"de","text":"x","label":7})"}, 10,
                      TestCorpus::With("label", arrow::int64()));
  v1::Selection selection = corpus.Selection();
  EXPECT_THAT(ErrorOf(selection), HasSubstr("column \"label\" (run file: corpus.columns.label) is int64"));
  selection.set_reads_labels(false);
  EXPECT_EQ(Summary(BuildIndex(selection).value()), "de:1");
}

TEST(IndexTest, ErrorsNameFileColumnRowAndRemedy) {
  struct Case {
    const char* what;
    void (*write)(const TestCorpus&);
    std::vector<std::string> says;
    void (*adjust)(v1::Selection*) = [](v1::Selection*) {};
  };
  const Case cases[] = {
      {"no such path",
       [](const TestCorpus& c) { std::filesystem::remove_all(c.folder()); },
       {"no such file or folder", "corpus.path"}},
      {"empty folder", [](const TestCorpus&) {}, {"no *.parquet or *.jsonl file in this folder"}},
      {"another kind of file",
       [](const TestCorpus& c) { c.WriteFile("a.csv", "id"); },
       {"a.csv: neither *.parquet nor *.jsonl"},
       [](v1::Selection* s) { s->mutable_corpus()->set_path(s->corpus().path() + "/a.csv"); }},
      {"not Parquet",
       [](const TestCorpus& c) { c.WriteFile("a.parquet", "hello, this is not Parquet"); },
       {"a.parquet: Parquet magic bytes not found"}},
      {"empty file", [](const TestCorpus& c) { c.WriteFile("a.parquet", ""); }, {"a.parquet: "}},
      {"torn Parquet",
       [](const TestCorpus& c) {
         c.WriteParquet("a.parquet", {RowJson("1", "de")});
         std::string bytes = c.ReadFile("a.parquet");
         c.WriteFile("a.parquet", bytes.substr(0, bytes.size() / 2));
       },
       {"a.parquet: "}},
      {"missing column",
       [](const TestCorpus& c) {
         c.WriteParquet("a.parquet", {R"({"id":"1"})"}, 10, TestCorpus::With("language", nullptr));
       },
       {"a.parquet: there is no column \"language\" (run file: corpus.columns.language)",
        "columns are id, text, source_text, label, split, group, pool"}},
      {"missing column that only the reader needs",
       [](const TestCorpus& c) {
         c.WriteParquet("a.parquet", {R"({"id":"1"})"}, 10, TestCorpus::With("text", nullptr));
       },
       {"there is no column \"text\" (run file: corpus.columns.text)"}},
      {"wrong type",
       [](const TestCorpus& c) {
         c.WriteParquet("a.parquet", {R"({"id":1,"language":"de","text":"x","label":"net"})"}, 10,
                        TestCorpus::With("id", arrow::int64()));
       },
       {"column \"id\" (run file: corpus.columns.id) is int64; a string is needed"}},
      {"null language",
       [](const TestCorpus& c) {
         c.WriteParquet("a.parquet", {RowJson("1", "de"), R"({"id":"two","text":"x","label":"net"})"}, 1);
       },
       {"a.parquet: record \"two\" (row 2): column \"language\" (run file: corpus.columns.language) is null or "
        "missing"}},
      {"unknown label",
       [](const TestCorpus& c) {
         c.WriteParquet("a.parquet", {RowJson("1", "de"), RowJson("2", "de"), RowJson("three", "de", "gmaes")}, 2);
       },
       {"a.parquet: record \"three\" (row 3): the label \"gmaes\" is none of corpus.labels: games, net"}},
      {"null label",
       [](const TestCorpus& c) { c.WriteParquet("a.parquet", {R"({"id":"1","language":"de","text":"x"})"}); },
       {"record \"1\" (row 1): column \"label\" (run file: corpus.columns.label) is null or missing"}},
      {"language without records",
       [](const TestCorpus& c) { c.WriteFile("a.jsonl", RowJson("1", "de")); },
       {"no record of language \"eo\"", "languages there are de"},
       [](v1::Selection* s) { s->add_languages("eo"); }},
      {"nothing kept",
       [](const TestCorpus& c) { c.WriteFile("a.jsonl", RowJson("1", "de")); },
       {"none of its 1 records passes where {pool: B}; column \"language\" (run file: corpus.columns.language) holds "
        "de; "
        "column \"pool\" (run file: corpus.columns.pool) is null or missing"},
       [](v1::Selection* s) { (*s->mutable_where())["pool"] = "B"; }},
      {"selection by label",
       [](const TestCorpus& c) { c.WriteFile("a.jsonl", RowJson("1", "de")); },
       {"where: label: records are selected by language, split, pool, group, id"},
       [](v1::Selection* s) { (*s->mutable_where())["label"] = "net"; }},
      {"no labels",
       [](const TestCorpus& c) { c.WriteFile("a.jsonl", RowJson("1", "de")); },
       {"corpus.labels is empty"},
       [](v1::Selection* s) { s->mutable_corpus()->clear_labels(); }},
      {"a label twice",
       [](const TestCorpus& c) { c.WriteFile("a.jsonl", RowJson("1", "de")); },
       {"corpus.labels: \"net\" is there twice"},
       [](v1::Selection* s) { s->mutable_corpus()->add_labels("net"); }},
      {"not JSON",
       [](const TestCorpus& c) {
         std::string lines;
         for (int i = 0; i < 10'500; ++i) lines += RowJson("x", "de") + "\n\n";
         c.WriteFile("a.jsonl", lines + "{\"id\": oops}\n" + RowJson("y", "de") + "\n");
       },
       {"a.jsonl: row 10501 is not what was expected"}},
      {"missing column in JSON",
       [](const TestCorpus& c) { c.WriteFile("a.jsonl", "\n{\"id\": \"1\", \"lang\": \"de\", \"n\": [1]}\n"); },
       {"a.jsonl: record \"1\" (row 1): column \"language\" (run file: corpus.columns.language) is null or missing",
        "its columns are id, lang, n"}},
      {"cut JSON line",
       [](const TestCorpus& c) { c.WriteFile("a.jsonl", RowJson("1", "de").substr(0, 40)); },
       {"a.jsonl: "}},
      {"wrong type in JSON",
       [](const TestCorpus& c) { c.WriteFile("a.jsonl", RowJson("1", "de") + "\n{\"language\": 3}\n"); },
       {"a.jsonl: row 2: column \"language\" (run file: corpus.columns.language) is a number; a string is needed"}},
      {"wrong type in JSON that only the reader needs",
       [](const TestCorpus& c) {
         c.WriteFile("a.jsonl", "{\"id\": 1, \"language\": \"de\", \"text\": \"x\", \"label\": \"net\"}\n");
       },
       {"a.jsonl: row 1: column \"id\" (run file: corpus.columns.id) is a number; a string is needed"}},
      {"a list for a label in JSON",
       [](const TestCorpus& c) { c.WriteFile("a.jsonl", "{\"label\": [\"net\"]}\n"); },
       {"a.jsonl: row 1: column \"label\" (run file: corpus.columns.label) is an array; a string is needed"}},
      {"missing value in JSON that only the reader needs",
       [](const TestCorpus& c) {
         c.WriteFile("a.jsonl", RowJson("1", "de") + "\n{\"id\": \"2\", \"language\": \"de\", \"label\": \"net\"}\n");
       },
       {"a.jsonl: record \"2\" (row 2): column \"text\" (run file: corpus.columns.text) is null or missing",
        "its columns are id, language, label"}},
      {"values beyond number",
       [](const TestCorpus& c) {
         std::string lines;
         for (int i = 0; i < 20; ++i) lines += RowJson(std::to_string(i), "l" + std::to_string(i)) + "\n";
         c.WriteFile("a.jsonl", lines);
       },
       {"holds l0, l1, l2, l3, l4, l5, l6, l7 ...; column \"split\" (run file: corpus.columns.split) holds train"},
       [](v1::Selection* s) { (*s->mutable_where())["split"] = "test"; }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    const TestCorpus corpus;
    c.write(corpus);
    v1::Selection selection = corpus.Selection();
    c.adjust(&selection);
    const std::string error = ErrorOf(selection);
    for (const std::string& part : c.says) EXPECT_THAT(error, HasSubstr(part));
  }
}

}  // namespace
}  // namespace polystill::corpus
