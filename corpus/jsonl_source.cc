#include <algorithm>
#include <limits>
#include <optional>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "arrow/buffer.h"
#include "arrow/json/reader.h"
#include "arrow/table.h"
#include "arrow/type.h"
#include "corpus/line_ranges.h"
#include "corpus/source.h"
#include "runtime/arrow_status.h"
#include "runtime/status.h"

namespace polystill::corpus {
namespace {

constexpr absl::StatusCode kTorn = absl::StatusCode::kDataLoss;

std::shared_ptr<arrow::DataType> TypeOf(const Column& column) {
  if (column.type == Column::Type::kString) return arrow::utf8();
  return arrow::list(column.type == Column::Type::kIds ? arrow::int64() : arrow::utf8());
}

std::shared_ptr<arrow::Schema> SchemaOf(const std::vector<Column>& columns) {
  arrow::FieldVector fields;
  std::set<std::string> names;
  for (const Column& column : columns) {
    if (!names.insert(column.name).second) continue;
    fields.push_back(arrow::field(column.name, TypeOf(column)));
  }
  return arrow::schema(std::move(fields));
}

// Arrow ends a message about a row with "in row N", N counting from 0 within what it was given.
std::optional<int64_t> RowInMessage(const std::string& message) {
  constexpr std::string_view kMark = " in row ";
  const size_t at = message.rfind(kMark);
  int64_t row = 0;
  if (at == std::string::npos || !absl::SimpleAtoi(message.substr(at + kMark.size()), &row)) return std::nullopt;
  return row;
}

// Of Arrow's "Column(/NAME) changed from string to number in row N", the type, with an article; empty when the message
// is about something else.
std::string TypeInMessage(std::string_view message, const Column& column) {
  const std::string mark = absl::StrCat("Column(/", column.name, ") changed from ",
                                        column.type == Column::Type::kString ? "string" : "array", " to ");
  const size_t at = message.find(mark);
  if (at == std::string_view::npos) return "";
  const std::string_view rest = message.substr(at + mark.size());
  const std::string type(rest.substr(0, rest.find(' ')));
  return absl::StrCat(type == "array" || type == "object" ? "an " : "a ", type);
}

// The row-th line that is not blank.
std::string RowOf(std::string_view lines, int64_t row) {
  while (true) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    if (line.find_first_not_of(" \t\r") != std::string_view::npos && row-- == 0) return std::string(line);
    if (line.size() == lines.size()) return "";
    lines.remove_prefix(line.size() + 1);
  }
}

class JsonLinesSource : public Source {
 public:
  JsonLinesSource(std::string name, std::shared_ptr<arrow::io::RandomAccessFile> input)
      : name_(std::move(name)), input_(std::move(input)) {}

  const std::string& name() const override { return name_; }

  absl::Status Check(const std::vector<Column>&) const override { return absl::OkStatus(); }
  bool ReadsWholeRows() const override { return true; }

  absl::StatusOr<std::vector<Unit>> Units() override {
    std::vector<Unit> units;
    ASSIGN_OR_RETURN(const std::vector<LineRange> ranges, SplitLines(*input_, name_));
    for (const LineRange& range : ranges) {
      Unit& unit = units.emplace_back();
      unit.set_offset(range.offset);
      unit.set_length(range.length);
    }
    return units;
  }

  absl::StatusOr<Rows> Read(const Unit& unit, const std::vector<Column>& columns) override {
    ASSIGN_OR_RETURN(const std::shared_ptr<arrow::Buffer> lines,
                     FromArrow(input_->ReadAt(unit.offset(), unit.length()), kTorn, name_));
    if (lines->size() != unit.length()) return absl::DataLossError(absl::StrCat(name_, ": shorter than it was"));
    auto table = Parse(lines, columns);
    if (!table.ok()) return ParseError(unit, columns, table.status().message());
    auto rows = Rows::Make(**table, columns);
    if (!rows.ok()) return Annotate(rows.status(), name_);
    return rows;
  }

  absl::StatusOr<int64_t> RowsBefore(const Unit& unit) override {
    ASSIGN_OR_RETURN(const std::vector<LineRange> ranges, SplitLines(*input_, name_));
    int64_t rows = 0;
    for (const LineRange& range : ranges) rows += range.offset < unit.offset() ? range.lines : 0;
    return rows;
  }

  std::string ColumnsOf(const Unit& unit, int64_t row) override {
    const auto lines = input_->ReadAt(unit.offset(), unit.length());
    if (!lines.ok()) return "";
    const std::string line = RowOf(std::string_view(**lines), row);
    // Without a schema: every field of the line is inferred.
    const auto parsed = arrow::json::ParseOne(arrow::json::ParseOptions::Defaults(), arrow::Buffer::FromString(line));
    return parsed.ok() ? absl::StrJoin((*parsed)->schema()->field_names(), ", ") : "";
  }

 private:
  // In one piece and in this thread, so that rows in messages count from the unit's first.
  static arrow::Result<std::shared_ptr<arrow::Table>> Parse(const std::shared_ptr<arrow::Buffer>& lines,
                                                            const std::vector<Column>& columns) {
    arrow::json::ParseOptions options = arrow::json::ParseOptions::Defaults();
    options.explicit_schema = SchemaOf(columns);
    options.unexpected_field_behavior = arrow::json::UnexpectedFieldBehavior::Ignore;
    ARROW_ASSIGN_OR_RAISE(const auto batch, arrow::json::ParseOne(options, lines));
    return arrow::Table::FromRecordBatches({batch});
  }

  absl::Status ParseError(const Unit& unit, const std::vector<Column>& columns, const std::string& message) {
    std::string where = absl::StrCat("in bytes ", unit.offset(), " to ", unit.offset() + unit.length());
    const std::optional<int64_t> row = RowInMessage(message);
    if (const auto before = RowsBefore(unit); row && before.ok()) where = absl::StrCat("row ", *before + *row + 1);
    for (const Column& column : columns) {
      const std::string type = TypeInMessage(message, column);
      if (type.empty()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(name_, ": ", where, ": ", Describe(column), " is ", type, "; ", Needed(column)));
    }
    return absl::InvalidArgumentError(
        absl::StrCat(name_, ": ", where, " is not what was expected, one JSON object a line: ", message));
  }

  const std::string name_;
  const std::shared_ptr<arrow::io::RandomAccessFile> input_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Source>> OpenJsonLines(const SourceFile& file) {
  ASSIGN_OR_RETURN(std::shared_ptr<arrow::io::RandomAccessFile> input,
                   FromArrow(file.file_system->OpenInputFile(file.path), kTorn, file.name));
  return std::make_unique<JsonLinesSource>(file.name, std::move(input));
}

}  // namespace polystill::corpus
