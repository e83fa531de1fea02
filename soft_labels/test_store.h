#pragma once

#include <string>
#include <vector>

#include "corpus/plan.h"
#include "corpus/test_corpus.h"
#include "polystill/v1/corpus.pb.h"
#include "polystill/v1/label_store.pb.h"
#include "soft_labels/outputs.h"
#include "soft_labels/store_columns.h"

namespace polystill::soft_labels {

// What the tests' teacher says about itself: classes net and games, an embedding of 3 numbers.
v1::DescribeReply TestTeacher();

// Its outputs, by a spec of this codec with settings that it takes: logits, and with a dense codec the embedding.
v1::LabelSpec TestSpec(v1::Codec codec);
Outputs TestOutputs(const v1::LabelSpec& spec);

// The labels of a record, which follow from its id.
LabelledRecord TestLabels(const std::string& id, const std::string& language, const v1::LabelSpec& spec);

// The manifest that a job over these records begins with.
v1::LabelStoreManifest TestJob(const v1::Selection& selection, const v1::LabelSpec& spec);

// A whole store of the records that a selection of the corpus keeps, in parts of at most `part_records`.
void WriteTestStore(const std::string& folder, const v1::Selection& selection, const v1::LabelSpec& spec,
                    int64_t part_records = 1000);

// The records of an index, in its order, and what a teacher of texts is asked about them.
struct TestRecords {
  explicit TestRecords(const v1::CorpusIndex& index);
  std::vector<corpus::RecordRef> refs;
  std::vector<v1::LabelInput> inputs;
  std::vector<std::string> languages;
};

}  // namespace polystill::soft_labels
