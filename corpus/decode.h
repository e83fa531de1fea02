#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "corpus/record.h"
#include "corpus/source.h"
#include "polystill/v1/corpus.pb.h"

namespace polystill::corpus {

// The records of a unit that `selection` keeps, in the file's order, all languages. Checks that ids are unique within
// the unit, that texts are UTF-8, token ids below tokenizer.vocab_size and labels out of corpus.labels; an error names
// the file, the row and the record.
absl::StatusOr<std::vector<Record>> DecodeRecords(const v1::Selection& selection, Source& source, const Unit& unit);

}  // namespace polystill::corpus
