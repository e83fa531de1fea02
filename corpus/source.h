#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "arrow/array.h"
#include "corpus/columns.h"
#include "corpus/files.h"
#include "polystill/v1/corpus.pb.h"

namespace polystill::corpus {

// The unit of reading: a Parquet row group, or a range of whole lines. A block of the index without language and count.
using Unit = v1::CorpusIndex::Block;

// The rows of one unit, a column each as one array: strings as LargeStringArray, lists as LargeListArray of int64 or of
// large strings.
class Rows {
 public:
  // Takes the table's columns that `columns` names; optional ones may be missing.
  static absl::StatusOr<Rows> Make(const arrow::Table& table, const std::vector<Column>& columns);

  int64_t size() const { return size_; }
  // The column of a role; null when it is not there.
  const arrow::LargeStringArray* Strings(const std::string& role) const;
  const arrow::LargeListArray* Lists(const std::string& role) const;
  // Whether the column of a role was read and has nothing in this row.
  bool IsNull(const std::string& role, int64_t row) const;

 private:
  const arrow::Array* Find(const std::string& role) const;

  int64_t size_ = 0;
  std::vector<std::pair<std::string, std::shared_ptr<arrow::Array>>> columns_;
};

// Reads one file of a corpus. Not thread-safe.
class Source {
 public:
  virtual ~Source() = default;

  // INVALID_ARGUMENT unless the file has `columns`, of fitting types. JSON lines have no schema: what they lack shows
  // when a record is read.
  virtual absl::Status Check(const std::vector<Column>& columns) const = 0;

  // Whether reading further columns costs little, since every byte is looked at anyway.
  virtual bool ReadsWholeRows() const = 0;

  // The units of the file, in its order; each has a row at least.
  virtual absl::StatusOr<std::vector<Unit>> Units() = 0;

  // Opens `columns` and no other. DATA_LOSS (torn file), INVALID_ARGUMENT (a line that is not JSON, a value of a wrong
  // type).
  virtual absl::StatusOr<Rows> Read(const Unit& unit, const std::vector<Column>& columns) = 0;

  // Rows of the file before `unit`: for messages.
  virtual absl::StatusOr<int64_t> RowsBefore(const Unit& unit) = 0;

  // The names of the columns that the row has, for messages; empty when they cannot be told.
  virtual std::string ColumnsOf(const Unit& unit, int64_t row) = 0;

  // How messages call the file.
  virtual const std::string& name() const = 0;
};

// DATA_LOSS when the file is torn.
absl::StatusOr<std::unique_ptr<Source>> OpenSource(const SourceFile& file);

absl::StatusOr<std::unique_ptr<Source>> OpenParquet(const SourceFile& file);
absl::StatusOr<std::unique_ptr<Source>> OpenJsonLines(const SourceFile& file);

}  // namespace polystill::corpus
