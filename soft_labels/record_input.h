#pragma once

#include "corpus/record.h"
#include "polystill/v1/run.pb.h"
#include "polystill/v1/teacher.pb.h"

namespace polystill::soft_labels {

// What a teacher is asked about a record: one side of it, as text (cut to what servers take) or token ids.
v1::LabelInput LabelInputOf(const corpus::Record& record, v1::Side side, v1::Signature::Input input);

}  // namespace polystill::soft_labels
