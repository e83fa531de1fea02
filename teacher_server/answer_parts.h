#pragma once

#include "polystill/v1/teacher.pb.h"
#include "teacher_server/cached_answers.h"

namespace polystill::teacher_server {

// How the answers of a teacher are kept: under the label key of each record and output (soft_labels/label_key.h) its
// SoftLabels message alone (soft_labels/decode.h). Requests are valid (validation.h).
AnswerParts AnswerPartsOf(const v1::DescribeReply& teacher);

}  // namespace polystill::teacher_server
