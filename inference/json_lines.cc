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

// Row and its text, of one line. INVALID_ARGUMENT says what is wrong with it.
using ReadRow = std::function<absl::StatusOr<std::pair<Json, std::string>>(const std::string& line)>;

absl::StatusOr<std::pair<Json, std::string>> RowOfText(const std::string& line) {
  if (!IsUtf8(line)) return absl::InvalidArgumentError("is not UTF-8");
  return std::make_pair(Json{{"text", line}}, line);
}

absl::StatusOr<std::pair<Json, std::string>> RowOfJson(const std::string& line, const std::string& column) {
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
  if (!text->is_string()) return absl::InvalidArgumentError(absl::StrCat("key '", column, "' is no text"));
  for (const char* added : kAddedColumns) {
    if (row.contains(added)) {
      return absl::InvalidArgumentError(absl::StrCat("has a key '", added, "' already; rename it first"));
    }
  }
  std::string value = text->get<std::string>();
  return std::make_pair(std::move(row), std::move(value));
}

class LinePredictor {
 public:
  LinePredictor(const Predictor& predictor, ReadRow read_row, std::istream& in, std::ostream& out)
      : predictor_(predictor), read_row_(std::move(read_row)), in_(in), out_(out) {}

  absl::StatusOr<int64_t> Run(const std::function<bool(int64_t)>& progress) {
    std::string line;
    while (std::getline(in_, line)) {
      ++line_number_;
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (line.empty()) continue;
      absl::StatusOr<std::pair<Json, std::string>> row = read_row_(line);
      if (!row.ok()) return Annotate(row.status(), absl::StrCat("line ", line_number_));
      rows_.push_back(std::move(row->first));
      texts_.push_back(std::move(row->second));
      if (texts_.size() < kRowsAtOnce) continue;
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
    ASSIGN_OR_RETURN(const std::vector<Prediction> predictions, predictor_.Predict(texts_));
    for (size_t i = 0; i < rows_.size(); ++i) {
      const Prediction& prediction = predictions[i];
      rows_[i][kAddedColumns[0]] = predictor_.labels()[prediction.label];
      rows_[i][kAddedColumns[1]] = prediction.probabilities[prediction.label];
      rows_[i][kAddedColumns[2]] = prediction.probabilities;
      out_ << rows_[i].dump() << '\n';
    }
    out_.flush();
    if (!out_) return FileError(errno, "output", "write");
    done_ += static_cast<int64_t>(rows_.size());
    rows_.clear();
    texts_.clear();
    return absl::OkStatus();
  }

  const Predictor& predictor_;
  const ReadRow read_row_;
  std::istream& in_;
  std::ostream& out_;
  int64_t line_number_ = 0;
  int64_t done_ = 0;
  std::vector<Json> rows_;
  std::vector<std::string> texts_;
};

}  // namespace

absl::StatusOr<int64_t> PredictLines(const Predictor& predictor, std::istream& in, std::ostream& out,
                                     const std::function<bool(int64_t)>& progress) {
  return LinePredictor(predictor, RowOfText, in, out).Run(progress);
}

absl::StatusOr<int64_t> PredictTextFile(const Predictor& predictor, const PredictFileOptions& options,
                                        const std::string& temporary) {
  std::ifstream in(options.input, std::ios::binary);
  if (!in) return FileError(errno, options.input, "open");
  std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
  if (!out) return FileError(errno, options.output, "write");
  const bool json = std::filesystem::path(options.input).extension() == ".jsonl";
  const ReadRow read_row = [&](const std::string& line) {
    return json ? RowOfJson(line, options.text_column) : RowOfText(line);
  };
  ASSIGN_OR_RETURN(const int64_t rows, LinePredictor(predictor, read_row, in, out).Run(options.progress));
  out.close();
  if (!out) return FileError(errno, options.output, "write");
  return rows;
}

}  // namespace polystill::inference
