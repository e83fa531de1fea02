#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "arrow/type_fwd.h"
#include "polystill/v1/corpus.pb.h"

namespace polystill::corpus {

// A column that a selection needs.
struct Column {
  // Key below corpus.columns in the run file: "id", "language", "text", ...
  std::string role;
  // How the corpus calls it.
  std::string name;
  enum class Type { kString, kIds, kStrings };  // kIds: a list of integers; kStrings: a list of strings
  Type type = Type::kString;
  // Fine when the corpus has no such column.
  bool optional = false;
};

// INVALID_ARGUMENT when `where` names something other than id, language, split, group or pool, or when labels are to be
// read and corpus.labels is empty or holds a name twice.
absl::Status CheckSelection(const v1::Selection& selection);

// What finding the records takes: language, the columns of `where`, and label only when the selection reads labels.
std::vector<Column> IndexColumns(const v1::Selection& selection);

// What reading the records takes: IndexColumns, the id, the sides that are read, and the group where there is one.
std::vector<Column> RecordColumns(const v1::Selection& selection);

// The column of `role`.
Column ColumnOf(const v1::Selection& selection, const std::string& role);

// For a message: column "lang" (run file: corpus.columns.language).
std::string Describe(const Column& column);

// What the column must be, and why where the task says so, for a message.
std::string Needed(const Column& column);

// NOT_FOUND: a row has no value in the column.
absl::Status MissingValue(const Column& column);

// INVALID_ARGUMENT, naming `file`, the column and the columns that exist, unless `schema` has all of `columns` that are
// not optional, once, and of a fitting type.
absl::Status CheckSchema(const arrow::Schema& schema, const std::vector<Column>& columns, const std::string& file);

}  // namespace polystill::corpus
