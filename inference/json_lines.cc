#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "inference/predict_files.h"
#include "inference/predict_formats.h"
#include "runtime/files.h"
#include "runtime/status.h"
#include "runtime/utf8.h"

namespace polystill::inference {
namespace {

using Json = nlohmann::ordered_json;

// Levels of arrays and objects in a row: writing it out takes stack for each.
constexpr int kMaxDepth = 100;

// Row and what is asked about it, of one line. INVALID_ARGUMENT says what is wrong with it.
using ReadRow = std::function<absl::StatusOr<std::pair<Json, Question>>(const std::string& line)>;

absl::StatusOr<std::pair<Json, Question>> RowOfText(const std::string& line) {
  if (!IsUtf8(line)) return absl::InvalidArgumentError("is not UTF-8");
  return std::make_pair(Json{{"text", line}}, Question{line, SplitWords(line)});
}

// What a key holds: a text, or a list of words.
absl::StatusOr<Question> QuestionOf(const Json& value, const std::string& column, bool words) {
  if (!words && !value.is_string()) return absl::InvalidArgumentError(absl::StrCat("key '", column, "' is no text"));
  if (!words) return Question{value.get<std::string>(), {}};
  Question question;
  for (const Json& word : value) {
    if (value.is_array() && word.is_string()) question.words.push_back(word.get<std::string>());
  }
  if (value.is_array() && question.words.size() == value.size()) return question;
  return absl::InvalidArgumentError(
      absl::StrCat("key '", column, "' is no list of words, which the model (task token_classification) judges"));
}

absl::StatusOr<std::pair<Json, Question>> RowOfJson(const std::string& line, const std::string& column, bool words) {
  bool too_deep = false;
  const auto keep = [&too_deep](int depth, Json::parse_event_t, Json&) {
    too_deep |= depth > kMaxDepth;
    return depth <= kMaxDepth;
  };
  Json row = Json::parse(line, keep, /*allow_exceptions=*/false);
  if (too_deep) return absl::InvalidArgumentError(absl::StrCat("is nested deeper than ", kMaxDepth, " levels"));
  if (!row.is_object()) return absl::InvalidArgumentError("is not a JSON object");
  const auto text = row.find(column);
  if (text == row.end()) {
    return absl::InvalidArgumentError(absl::StrCat("has no key '", column, "'; name the text's with --text-column"));
  }
  ASSIGN_OR_RETURN(Question question, QuestionOf(*text, column, words));
  for (const char* added : kAddedColumns) {
    if (row.contains(added)) {
      return absl::InvalidArgumentError(absl::StrCat("has a key '", added, "' already; rename it first"));
    }
  }
  return std::make_pair(std::move(row), std::move(question));
}

class LinePredictor {
 public:
  // `out_name`: what errors call `out`.
  LinePredictor(const Predictor& predictor, ReadRow read_row, std::istream& in, std::ostream& out, std::string out_name)
      : predictor_(predictor), read_row_(std::move(read_row)), in_(in), out_(out), out_name_(std::move(out_name)) {}

  absl::StatusOr<int64_t> Run(const std::function<bool(int64_t)>& progress) {
    std::string line;
    while (std::getline(in_, line)) {
      ++line_number_;
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (line.empty()) continue;
      absl::StatusOr<std::pair<Json, Question>> row = read_row_(line);
      if (!row.ok()) return Annotate(row.status(), absl::StrCat("line ", line_number_));
      rows_.push_back(std::move(row->first));
      questions_.push_back(std::move(row->second));
      if (questions_.size() < kRowsAtOnce) continue;
      RETURN_IF_ERROR(Flush());
      if (!progress(done_)) return absl::CancelledError("interrupted");
    }
    if (in_.bad()) return FileError(errno, "input", "read");
    RETURN_IF_ERROR(Flush());
    if (!progress(done_)) return absl::CancelledError("interrupted");
    return done_;
  }

 private:
  absl::Status Flush() {
    ASSIGN_OR_RETURN(const std::vector<Prediction> predictions, predictor_.Predict(questions_));
    for (size_t i = 0; i < rows_.size(); ++i) {
      auto values = AddedValues(predictor_, questions_[i], predictions[i]);
      for (size_t c = 0; c < kAddedColumns.size(); ++c) rows_[i][kAddedColumns[c]] = std::move(values[c]);
      out_ << rows_[i].dump() << '\n';
    }
    out_.flush();
    if (!out_) return FileError(errno, out_name_, "write");
    done_ += static_cast<int64_t>(rows_.size());
    rows_.clear();
    questions_.clear();
    return absl::OkStatus();
  }

  const Predictor& predictor_;
  const ReadRow read_row_;
  std::istream& in_;
  std::ostream& out_;
  const std::string out_name_;
  int64_t line_number_ = 0;
  int64_t done_ = 0;
  std::vector<Json> rows_;
  std::vector<Question> questions_;
};

}  // namespace

absl::StatusOr<int64_t> PredictLines(const Predictor& predictor, std::istream& in, std::ostream& out,
                                     const std::function<bool(int64_t)>& progress) {
  return LinePredictor(predictor, RowOfText, in, out, "output").Run(progress);
}

absl::StatusOr<int64_t> PredictTextFile(const Predictor& predictor, const PredictFileOptions& options,
                                        const std::string& temporary) {
  std::ifstream in(options.input, std::ios::binary);
  if (!in) return FileError(errno, options.input, "open");
  std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
  if (!out) return FileError(errno, options.output, "write");
  const bool json = std::filesystem::path(options.input).extension() == ".jsonl";
  const ReadRow read_row = [&](const std::string& line) {
    return json ? RowOfJson(line, options.text_column, predictor.judges_words()) : RowOfText(line);
  };
  const auto rows = LinePredictor(predictor, read_row, in, out, options.output).Run(options.progress);
  // A write that failed has named the output itself.
  if (!rows.ok()) return out ? Annotate(rows.status(), options.input) : rows.status();
  out.close();
  if (!out) return FileError(errno, options.output, "write");
  return rows;
}

}  // namespace polystill::inference
