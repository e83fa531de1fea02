#include "corpus/test_corpus.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "arrow/array.h"
#include "arrow/io/file.h"
#include "arrow/json/from_string.h"
#include "arrow/record_batch.h"
#include "arrow/table.h"
#include "arrow/type.h"
#include "parquet/arrow/writer.h"

namespace polystill::corpus {

TestCorpus::TestCorpus() {
  const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
  std::string name = absl::StrCat(test.test_suite_name(), "-", test.name(), "-", ::getpid());
  for (char& c : name) c = c == '/' ? '-' : c;
  folder_ = testing::TempDir() + name;
  std::filesystem::remove_all(folder_);
  std::filesystem::create_directories(folder_);
}

TestCorpus::~TestCorpus() { std::filesystem::remove_all(folder_); }

void TestCorpus::WriteParquet(const std::string& name, const std::vector<std::string>& rows, int64_t rows_per_group,
                              const std::shared_ptr<arrow::Schema>& schema) const {
  const std::string json = absl::StrCat("[", absl::StrJoin(rows, ","), "]");
  const auto array = arrow::json::ArrayFromJSONString(arrow::struct_(schema->fields()), json).ValueOrDie();
  const auto batch = arrow::RecordBatch::FromStructArray(array).ValueOrDie();
  const auto table = arrow::Table::FromRecordBatches({batch}).ValueOrDie();
  const auto file = arrow::io::FileOutputStream::Open(PathOf(name)).ValueOrDie();
  // The Arrow schema is stored, so that types that Parquet lacks come back.
  const auto arrow_properties = parquet::ArrowWriterProperties::Builder().store_schema()->build();
  ASSERT_TRUE(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), file, rows_per_group,
                                         parquet::default_writer_properties(), arrow_properties)
                  .ok());
  ASSERT_TRUE(file->Close().ok());
}

void TestCorpus::WriteFile(const std::string& name, std::string_view content) const {
  std::ofstream(PathOf(name), std::ios::binary) << content;
}

std::string TestCorpus::ReadFile(const std::string& name) const {
  std::ifstream stream(PathOf(name), std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::shared_ptr<arrow::Schema> TestCorpus::Strings() {
  arrow::FieldVector fields;
  for (const char* name : {"id", "language", "text", "source_text", "label", "split", "group", "pool"}) {
    fields.push_back(arrow::field(name, arrow::utf8()));
  }
  return arrow::schema(fields);
}

std::shared_ptr<arrow::Schema> TestCorpus::With(const std::string& column,
                                                const std::shared_ptr<arrow::DataType>& type) {
  const std::shared_ptr<arrow::Schema> strings = Strings();
  arrow::FieldVector fields;
  bool there = false;
  for (const std::shared_ptr<arrow::Field>& field : strings->fields()) {
    const bool same = field->name() == column;
    there |= same;
    if (!same) fields.push_back(field);
    if (same && type != nullptr) fields.push_back(arrow::field(column, type));
  }
  if (!there) fields.push_back(arrow::field(column, type));
  return arrow::schema(fields);
}

v1::Selection TestCorpus::Selection() const {
  v1::Selection selection;
  selection.mutable_corpus()->set_path(folder_);
  for (const char* label : {"games", "net"}) selection.mutable_corpus()->add_labels(label);
  selection.mutable_tokenizer()->set_kind(v1::Tokenizer::KIND_SENTENCEPIECE);
  selection.set_reads_labels(true);
  selection.set_reads_text(true);
  return selection;
}

std::string RowJson(const std::string& id, const std::string& language, const std::string& label,
                    const std::string& split) {
  return absl::StrCat(R"({"id":")", id, R"(","language":")", language, R"(","text":"text of )", id,
                      R"(","source_text":"source of )", id, R"(","label":")", label, R"(","split":")", split,
                      R"(","group":"group of )", id, R"("})");
}

}  // namespace polystill::corpus
