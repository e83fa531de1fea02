#include "corpus/row_filter.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/status.h"
#include "runtime/utf8.h"

namespace polystill::corpus {
namespace {

// The id of a row, read for a message alone; empty when it cannot be told.
std::string IdOf(const v1::Selection& selection, Source& source, const Unit& unit, int64_t row) {
  const auto rows = source.Read(unit, {ColumnOf(selection, "id")});
  if (!rows.ok() || rows->Strings("id") == nullptr || row >= rows->size()) return "";
  const arrow::LargeStringArray& ids = *rows->Strings("id");
  const std::string id = ids.GetString(row);
  return ids.IsNull(row) || !IsUtf8(id) ? "" : id;
}

}  // namespace

absl::Status RowError(const v1::Selection& selection, Source& source, const Unit& unit, int64_t row,
                      const absl::Status& error) {
  const auto before = source.RowsBefore(unit);
  const std::string number = before.ok() ? absl::StrCat("row ", *before + row + 1) : "a row";
  const std::string id = IdOf(selection, source, unit, row);
  const std::string record = id.empty() ? number : absl::StrCat("record \"", id, "\" (", number, ")");
  std::string message = absl::StrCat(source.name(), ": ", record, ": ", error.message());
  if (absl::IsNotFound(error)) {
    const std::string columns = source.ColumnsOf(unit, row);
    if (!columns.empty()) absl::StrAppend(&message, "; its columns are ", columns);
  }
  return absl::InvalidArgumentError(message);
}

template <typename Part>
RowFilter::Conditions::Conditions(const Part& part, const Rows& rows)
    : languages(part.languages().begin(), part.languages().end()) {
  for (const auto& [role, value] : part.where()) values.emplace_back(rows.Strings(role), value);
}

bool RowFilter::Conditions::Matches(int64_t row) const {
  for (const auto& [column, value] : values) {
    if (column->IsNull(row) || column->GetView(row) != value) return false;
  }
  return true;
}

bool RowFilter::Conditions::WantsLanguage(std::string_view language) const {
  return languages.empty() || languages.contains(language);
}

RowFilter::RowFilter(const v1::Selection& selection, const Rows& rows)
    : column_(ColumnOf(selection, "language")), languages_(rows.Strings("language")), all_(selection, rows) {
  for (const auto& alternative : selection.alternatives()) alternatives_.emplace_back(alternative, rows);
}

bool RowFilter::Matches(int64_t row) const {
  const auto holds = [row](const Conditions& alternative) { return alternative.Matches(row); };
  return all_.Matches(row) && (alternatives_.empty() || std::any_of(alternatives_.begin(), alternatives_.end(), holds));
}

bool RowFilter::Wants(int64_t row, std::string_view language) const {
  const auto wants = [row, language](const Conditions& alternative) {
    return alternative.Matches(row) && alternative.WantsLanguage(language);
  };
  return all_.WantsLanguage(language) &&
         (alternatives_.empty() || std::any_of(alternatives_.begin(), alternatives_.end(), wants));
}

absl::StatusOr<std::string_view> RowFilter::Language(int64_t row) const {
  if (languages_->IsNull(row)) return MissingValue(column_);
  const std::string_view language = languages_->GetView(row);
  if (language.empty()) return absl::InvalidArgumentError("the language is empty");
  if (!IsUtf8(language)) return absl::InvalidArgumentError("the language is not valid UTF-8");
  return language;
}

LabelReader::LabelReader(const v1::Selection& selection)
    : reads_(selection.reads_labels()),
      task_(selection.task()),
      column_(ColumnOf(selection, "label")),
      known_(absl::StrJoin(selection.corpus().labels(), ", ")) {
  for (const std::string& label : selection.corpus().labels()) indices_.emplace(label, indices_.size());
}

absl::StatusOr<int> LabelReader::IndexOf(std::string_view label) const {
  const auto found = indices_.find(label);
  if (found == indices_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the label \"", std::string(label), "\" is none of corpus.labels: ", known_));
  }
  return found->second;
}

absl::Status LabelReader::ReadHolding(const arrow::LargeStringArray& names, int64_t first, int64_t last,
                                      Record* record) const {
  record->labels.assign(indices_.size(), 0);
  for (int64_t at = first; at < last; ++at) {
    if (names.IsNull(at)) {
      return absl::InvalidArgumentError(
          absl::StrCat(Describe(column_), ": label ", at - first, " is null; list the labels that hold, and no other"));
    }
    ASSIGN_OR_RETURN(const int index, IndexOf(names.GetView(at)));
    record->labels[index] = 1;
  }
  return absl::OkStatus();
}

absl::Status LabelReader::ReadEach(const arrow::LargeStringArray& names, int64_t first, int64_t last,
                                   Record* record) const {
  record->labels.assign(last - first, -1);
  for (int64_t at = first; at < last; ++at) {
    if (names.IsNull(at)) continue;
    ASSIGN_OR_RETURN(record->labels[at - first], IndexOf(names.GetView(at)));
  }
  return absl::OkStatus();
}

absl::Status LabelReader::Read(const Rows& rows, int64_t row, Record* record) const {
  if (!reads_) return absl::OkStatus();
  if (column_.type == Column::Type::kString) {
    const arrow::LargeStringArray& labels = *rows.Strings("label");
    if (labels.IsNull(row)) return MissingValue(column_);
    ASSIGN_OR_RETURN(record->label, IndexOf(labels.GetView(row)));
    return absl::OkStatus();
  }
  const arrow::LargeListArray& lists = *rows.Lists("label");
  if (lists.IsNull(row)) return MissingValue(column_);
  const auto& names = static_cast<const arrow::LargeStringArray&>(*lists.values());
  const int64_t first = lists.value_offset(row), last = first + lists.value_length(row);
  return task_ == v1::TASK_MULTI_LABEL ? ReadHolding(names, first, last, record) : ReadEach(names, first, last, record);
}

}  // namespace polystill::corpus
