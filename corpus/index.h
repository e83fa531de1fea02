#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "polystill/v1/corpus.pb.h"

namespace polystill::corpus {

// Scans the corpus of `selection` and returns where its records are, by language and block. Reads only the columns that
// `selection.where` and the languages need (plus the label column, when labels are read, to check every kept label). Of
// JSON lines, which are parsed whole, also all that the records will be read for: what one lacks shows now, in Parquet
// when it is read. Errors name the file, the column and the remedy: NOT_FOUND (path), INVALID_ARGUMENT (a missing
// column, a column of the wrong type, a label that is not in the list, a language asked for that has no record).
absl::StatusOr<v1::CorpusIndex> BuildIndex(const v1::Selection& selection);

// Lower-case hex SHA-256 of the index: covers every file's name, size and checksum, the selection and the blocks, but
// not the folder, so that a corpus that was moved is still the same.
std::string IndexDigest(const v1::CorpusIndex& index);

}  // namespace polystill::corpus
