// The label column in the form of each task, and lists of words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "arrow/type.h"
#include "corpus/index.h"
#include "corpus/reader.h"
#include "corpus/test_corpus.h"

namespace polystill::corpus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::shared_ptr<arrow::DataType> Strings() { return arrow::list(arrow::utf8()); }

// Records of language de whose ids, texts and labels are JSON.
struct Row {
  std::string id, text, labels;
};

class LabelsTest : public testing::TestWithParam<std::string> {
 protected:
  void Write(const std::vector<Row>& rows, const std::string& text_column, const std::shared_ptr<arrow::DataType>& text,
             const std::shared_ptr<arrow::DataType>& label = Strings()) {
    std::vector<std::string> lines;
    for (const Row& row : rows) {
      lines.push_back(absl::StrCat(R"({"id":")", row.id, R"(","language":"de",")", text_column, "\":", row.text,
                                   R"(,"label":)", row.labels, "}"));
    }
    if (GetParam() == "parquet") {
      const auto schema = arrow::schema({arrow::field("id", arrow::utf8()), arrow::field("language", arrow::utf8()),
                                         arrow::field(text_column, text), arrow::field("label", label)});
      return corpus_.WriteParquet("a.parquet", lines, 10, schema);
    }
    std::string all;
    for (const std::string& line : lines) absl::StrAppend(&all, line, "\n");
    corpus_.WriteFile("a.jsonl", all);
  }

  v1::Selection SelectionOf(v1::Task task) const {
    v1::Selection selection = corpus_.Selection();
    selection.set_task(task);
    return selection;
  }

  static absl::StatusOr<std::vector<Record>> ReadAll(const v1::Selection& selection) {
    auto index = BuildIndex(selection);
    if (!index.ok()) return index.status();
    auto reader = Reader::Open(std::make_shared<v1::CorpusIndex>(*index));
    return reader.ok() ? (*reader)->ReadBlock(0, 0) : reader.status();
  }

  static std::string ErrorOf(const v1::Selection& selection) {
    const auto records = ReadAll(selection);
    return records.ok() ? "no error" : std::string(records.status().message());
  }

  const TestCorpus corpus_;
};

TEST_P(LabelsTest, ManyLabelsOfARecord) {
  Write({{"1", R"("x")", R"(["net"])"}, {"2", R"("y")", "[]"}, {"3", R"("z")", R"(["net","games"])"}}, "text",
        arrow::utf8());
  const auto records = ReadAll(SelectionOf(v1::TASK_MULTI_LABEL));
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_THAT((*records)[0].labels, ElementsAre(0, 1));
  EXPECT_THAT((*records)[1].labels, ElementsAre(0, 0));
  EXPECT_THAT((*records)[2].labels, ElementsAre(1, 1));
  EXPECT_EQ((*records)[2].label, -1);
  EXPECT_EQ((*records)[2].text, "z");
}

TEST_P(LabelsTest, ALabelOfEachWord) {
  Write({{"1", R"(["a","b c","d"])", R"(["net",null,"games"])"}}, "text", Strings());
  const auto records = ReadAll(SelectionOf(v1::TASK_TOKEN_CLASSIFICATION));
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_THAT((*records)[0].words, ElementsAre("a", "b c", "d"));
  EXPECT_THAT((*records)[0].labels, ElementsAre(1, -1, 0));
  EXPECT_EQ((*records)[0].text, "");

  v1::Selection unlabelled = SelectionOf(v1::TASK_TOKEN_CLASSIFICATION);
  unlabelled.set_reads_labels(false);
  EXPECT_THAT(ReadAll(unlabelled).value()[0].labels, IsEmpty());
}

TEST_P(LabelsTest, ALabelOfEachTokenIdAlsoOfThoseThatAreCut) {
  Write({{"1", "[4,5,6]", R"(["net",null,"games"])"}}, "ids", arrow::list(arrow::int32()));
  v1::Selection selection = SelectionOf(v1::TASK_TOKEN_CLASSIFICATION);
  selection.mutable_tokenizer()->set_kind(v1::Tokenizer::KIND_IDS);
  selection.mutable_tokenizer()->set_vocab_size(10);
  selection.mutable_tokenizer()->set_max_length(2);
  const auto records = ReadAll(selection);
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_THAT((*records)[0].ids, ElementsAre(4, 5));
  EXPECT_THAT((*records)[0].labels, ElementsAre(1, -1, 0));
}

TEST_P(LabelsTest, ErrorsNameFileRecordAndRemedy) {
  struct Case {
    v1::Task task;
    std::string text, labels, says;
  };
  const Case cases[] = {
      {v1::TASK_MULTI_LABEL, R"("x")", R"(["net","gmes"])", R"(the label "gmes" is none of corpus.labels: games, net)"},
      {v1::TASK_MULTI_LABEL, R"("x")", R"([null])", "label 0 is null; list the labels that hold"},
      {v1::TASK_MULTI_LABEL, R"("x")", "null", R"(column "label" (run file: corpus.columns.label) is null)"},
      {v1::TASK_TOKEN_CLASSIFICATION, R"(["a","b","c"])", R"(["net","games"])",
       R"(has 3 words, column "label" (run file: corpus.columns.label) 2 labels; write one for each, null)"},
      {v1::TASK_TOKEN_CLASSIFICATION, R"(["a"])", R"(["verb"])", R"(the label "verb" is none of corpus.labels)"},
      {v1::TASK_TOKEN_CLASSIFICATION, R"(["a",null])", R"(["net","net"])", "word 1 is null"},
      {v1::TASK_TOKEN_CLASSIFICATION, "[]", "[]", "is an empty list"},
      {v1::TASK_TOKEN_CLASSIFICATION, "null", "[]", R"(column "text" (run file: corpus.columns.text) is null)"},
  };
  for (const Case& c : cases) {
    const bool words = c.task == v1::TASK_TOKEN_CLASSIFICATION;
    Write({{"good", words ? R"(["a"])" : R"("x")", R"(["net"])"}, {"bad", c.text, c.labels}}, "text",
          words ? Strings() : arrow::utf8());
    const std::string error = ErrorOf(SelectionOf(c.task));
    EXPECT_THAT(error, HasSubstr(absl::StrCat("a.", GetParam(), ": record \"bad\" (row 2): "))) << c.labels;
    EXPECT_THAT(error, HasSubstr(c.says));
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, LabelsTest, testing::Values("parquet", "jsonl"),
                         [](const auto& info) { return info.param; });

class LabelTypesTest : public LabelsTest {};

TEST_P(LabelTypesTest, AColumnOfAnotherTypeIsTold) {
  Write({{"1", R"("x")", R"("net")"}}, "text", arrow::utf8(), arrow::utf8());
  EXPECT_THAT(ErrorOf(SelectionOf(v1::TASK_MULTI_LABEL)),
              HasSubstr("column \"label\" (run file: corpus.columns.label) is string; a list of strings is needed with "
                        "this task (run file: task)"));
  EXPECT_EQ(ErrorOf(SelectionOf(v1::TASK_BINARY)), "no error");
  v1::Selection words = SelectionOf(v1::TASK_TOKEN_CLASSIFICATION);
  words.set_reads_labels(false);
  EXPECT_THAT(ErrorOf(words), HasSubstr("is string; a list of strings, the words, is needed"));

  Write({{"1", R"("x")", R"(["net"])"}}, "text", arrow::utf8());
  EXPECT_THAT(ErrorOf(SelectionOf(v1::TASK_CLASSIFICATION)),
              HasSubstr("a string is needed with this task (run file: task)"));
}

INSTANTIATE_TEST_SUITE_P(Formats, LabelTypesTest, testing::Values("parquet"),
                         [](const auto& info) { return info.param; });

TEST_P(LabelsTest, ListsThatAreAllEmptyMayHaveNoType) {
  Write({{"1", R"("x")", "[]"}}, "text", arrow::utf8(), arrow::list(arrow::null()));
  const auto records = ReadAll(SelectionOf(v1::TASK_MULTI_LABEL));
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_THAT((*records)[0].labels, ElementsAre(0, 0));
}

}  // namespace
}  // namespace polystill::corpus
