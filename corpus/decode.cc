#include "corpus/decode.h"

#include <unordered_set>

#include "absl/strings/str_cat.h"
#include "arrow/array.h"
#include "corpus/row_filter.h"
#include "runtime/status.h"
#include "runtime/utf8.h"

namespace polystill::corpus {
namespace {

// Fills one record at a time out of a unit's rows. Errors are without the place.
class RecordBuilder {
 public:
  RecordBuilder(const v1::Selection& selection, const Rows& rows)
      : selection_(selection),
        rows_(rows),
        reads_ids_(selection.tokenizer().kind() == v1::Tokenizer::KIND_IDS),
        of_tokens_(selection.task() == v1::TASK_TOKEN_CLASSIFICATION),
        labels_(selection) {}

  absl::StatusOr<Record> Build(int64_t row, std::string_view language) {
    Record record;
    record.language = language;
    RETURN_IF_ERROR(ReadString("id", row, &record.id));
    if (record.id.empty()) return absl::InvalidArgumentError("the id is empty");
    if (!seen_.insert(record.id).second) return absl::InvalidArgumentError("an earlier row of the block has this id");
    RETURN_IF_ERROR(labels_.Read(rows_, row, &record));
    if (selection_.reads_text()) RETURN_IF_ERROR(ReadText(row, &record));
    if (selection_.reads_source_text()) RETURN_IF_ERROR(ReadSourceText(row, &record));
    const arrow::LargeStringArray* groups = rows_.Strings("group");
    if (groups != nullptr && groups->IsValid(row)) RETURN_IF_ERROR(ReadString("group", row, &record.group));
    return record;
  }

 private:
  absl::Status ReadText(int64_t row, Record* record) const {
    if (reads_ids_) return ReadIds("ids", row, record->labels, &record->ids);
    if (of_tokens_) return ReadWords("text", row, record->labels, &record->words);
    return ReadString("text", row, &record->text);
  }

  absl::Status ReadSourceText(int64_t row, Record* record) const {
    if (reads_ids_) return ReadIds("source_ids", row, record->labels, &record->source_ids);
    if (of_tokens_) return ReadWords("source_text", row, record->labels, &record->source_words);
    return ReadString("source_text", row, &record->source_text);
  }

  std::string Named(const char* role) const { return Describe(ColumnOf(selection_, role)); }

  absl::Status ReadString(const char* role, int64_t row, std::string* value) const {
    const arrow::LargeStringArray& column = *rows_.Strings(role);
    if (column.IsNull(row)) return MissingValue(ColumnOf(selection_, role));
    const std::string_view view = column.GetView(row);
    if (!IsUtf8(view)) {
      return absl::InvalidArgumentError(absl::StrCat(Named(role), " is not valid UTF-8"));
    }
    value->assign(view);
    return absl::OkStatus();
  }

  // Where labels are read, one for each of the words or ids of the side that is judged.
  absl::Status CheckCount(const char* role, const char* what, int64_t length, const std::vector<int>& labels) const {
    if (length == 0) return absl::InvalidArgumentError(absl::StrCat(Named(role), " is an empty list"));
    if (!selection_.reads_labels() || length == static_cast<int64_t>(labels.size())) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(Named(role), " has ", length, " ", what, ", ", Named("label"), " ",
                                                   labels.size(),
                                                   " labels; write one for each, null where there is "
                                                   "none"));
  }

  absl::Status ReadWords(const char* role, int64_t row, const std::vector<int>& labels,
                         std::vector<std::string>* words) const {
    const arrow::LargeListArray& column = *rows_.Lists(role);
    if (column.IsNull(row)) return MissingValue(ColumnOf(selection_, role));
    RETURN_IF_ERROR(CheckCount(role, "words", column.value_length(row), labels));
    const auto& values = static_cast<const arrow::LargeStringArray&>(*column.values());
    for (int64_t i = 0; i < column.value_length(row); ++i) {
      const int64_t at = column.value_offset(row) + i;
      if (values.IsNull(at) || !IsUtf8(values.GetView(at))) {
        return absl::InvalidArgumentError(
            absl::StrCat(Named(role), ": word ", i, values.IsNull(at) ? " is null" : " is not valid UTF-8"));
      }
      words->emplace_back(values.GetView(at));
    }
    return absl::OkStatus();
  }

  absl::Status ReadIds(const char* role, int64_t row, const std::vector<int>& labels, std::vector<int32_t>* ids) const {
    const arrow::LargeListArray& column = *rows_.Lists(role);
    if (column.IsNull(row)) return MissingValue(ColumnOf(selection_, role));
    if (of_tokens_) {
      RETURN_IF_ERROR(CheckCount(role, "token ids", column.value_length(row), labels));
    } else if (column.value_length(row) == 0) {
      return absl::InvalidArgumentError(absl::StrCat(Named(role), " is an empty list"));
    }
    const auto& values = static_cast<const arrow::Int64Array&>(*column.values());
    const int64_t max_length = selection_.tokenizer().max_length();
    const int64_t vocab_size = selection_.tokenizer().vocab_size();
    for (int64_t i = 0; i < column.value_length(row); ++i) {
      const int64_t at = column.value_offset(row) + i;
      if (values.IsNull(at) || values.Value(at) < 0 || values.Value(at) >= vocab_size) {
        return absl::InvalidArgumentError(absl::StrCat(
            Named(role), ": token ", i, " is ", values.IsNull(at) ? "null" : absl::StrCat(values.Value(at)),
            "; ids are at least 0 and below ", vocab_size, " (run file: tokenizer.vocab_size)"));
      }
      if (i < max_length) ids->push_back(static_cast<int32_t>(values.Value(at)));
    }
    return absl::OkStatus();
  }

  const v1::Selection& selection_;
  const Rows& rows_;
  const bool reads_ids_;
  const bool of_tokens_;
  const LabelReader labels_;
  std::unordered_set<std::string> seen_;
};

}  // namespace

absl::StatusOr<std::vector<Record>> DecodeRecords(const v1::Selection& selection, Source& source, const Unit& unit) {
  ASSIGN_OR_RETURN(const Rows rows, source.Read(unit, RecordColumns(selection)));
  const RowFilter filter(selection, rows);
  RecordBuilder builder(selection, rows);
  std::vector<Record> records;
  for (int64_t row = 0; row < rows.size(); ++row) {
    if (!filter.Matches(row)) continue;
    const auto language = filter.Language(row);
    if (!language.ok()) return RowError(selection, source, unit, row, language.status());
    if (!filter.Wants(row, *language)) continue;
    auto record = builder.Build(row, *language);
    if (!record.ok()) return RowError(selection, source, unit, row, record.status());
    records.push_back(*std::move(record));
  }
  return records;
}

}  // namespace polystill::corpus
