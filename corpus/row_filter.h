#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "corpus/record.h"
#include "corpus/source.h"
#include "polystill/v1/corpus.pb.h"

namespace polystill::corpus {

// An error about one row, INVALID_ARGUMENT: FILE: record "ID" (row N): MESSAGE. Rows count from 1 within the file.
// Looks the id up, since finding records does not read it, and lists the row's columns when a value is missing
// (NOT_FOUND).
absl::Status RowError(const v1::Selection& selection, Source& source, const Unit& unit, int64_t row,
                      const absl::Status& error);

// Which rows of a unit a selection keeps, and their languages and labels. Holds on to the rows.
class RowFilter {
 public:
  // `rows` must outlive it and hold IndexColumns(selection).
  RowFilter(const v1::Selection& selection, const Rows& rows);

  // Whether `where` holds, and that of an alternative when there are any, whatever the language.
  bool Matches(int64_t row) const;
  // Whether the selection keeps a row that matches and is of this language.
  bool Wants(int64_t row, std::string_view language) const;

  // NOT_FOUND (null), INVALID_ARGUMENT (empty, not UTF-8), without the place: see RowError.
  absl::StatusOr<std::string_view> Language(int64_t row) const;

 private:
  // Column values that must hold and languages to keep, of the selection or of one of its alternatives.
  struct Conditions {
    template <typename Part>
    Conditions(const Part& part, const Rows& rows);
    bool Matches(int64_t row) const;
    bool WantsLanguage(std::string_view language) const;

    std::set<std::string, std::less<>> languages;
    std::vector<std::pair<const arrow::LargeStringArray*, std::string>> values;
  };

  const Column column_;
  const arrow::LargeStringArray* const languages_;
  const Conditions all_;
  std::vector<Conditions> alternatives_;
};

// The labels of a unit's rows.
class LabelReader {
 public:
  explicit LabelReader(const v1::Selection& selection);

  // Fills `record`'s label or labels, as the task has it; nothing when the selection reads no labels. NOT_FOUND (null),
  // INVALID_ARGUMENT (not listed), without the place.
  absl::Status Read(const Rows& rows, int64_t row, Record* record) const;

 private:
  // Index into corpus.labels.
  absl::StatusOr<int> IndexOf(std::string_view label) const;
  absl::Status ReadHolding(const arrow::LargeStringArray& names, int64_t first, int64_t last, Record* record) const;
  absl::Status ReadEach(const arrow::LargeStringArray& names, int64_t first, int64_t last, Record* record) const;

  const bool reads_;
  const v1::Task task_;
  const Column column_;
  const std::string known_;
  std::map<std::string, int, std::less<>> indices_;
};

}  // namespace polystill::corpus
