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
      column_(ColumnOf(selection, "label")),
      known_(absl::StrJoin(selection.corpus().labels(), ", ")) {
  for (const std::string& label : selection.corpus().labels()) indices_.emplace(label, indices_.size());
}

absl::StatusOr<int> LabelReader::Label(const Rows& rows, int64_t row) const {
  if (!reads_) return -1;
  const arrow::LargeStringArray& labels = *rows.Strings("label");
  if (labels.IsNull(row)) return MissingValue(column_);
  const std::string_view label = labels.GetView(row);
  const auto found = indices_.find(label);
  if (found == indices_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the label \"", std::string(label), "\" is none of corpus.labels: ", known_));
  }
  return found->second;
}

}  // namespace polystill::corpus
