#include "soft_labels/record_input.h"

#include "runtime/utf8.h"
#include "soft_labels/client.h"

namespace polystill::soft_labels {

v1::LabelInput LabelInputOf(const corpus::Record& record, v1::Side side, v1::Signature::Input input) {
  const bool source = side == v1::SIDE_SOURCE_TEXT;
  v1::LabelInput asked;
  asked.set_id(record.id);
  if (input == v1::Signature::INPUT_IDS) {
    const std::vector<int32_t>& ids = source ? record.source_ids : record.ids;
    asked.mutable_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  } else {
    asked.set_text(std::string(Utf8Prefix(source ? record.source_text : record.text, kMaxTextBytes)));
  }
  return asked;
}

}  // namespace polystill::soft_labels
