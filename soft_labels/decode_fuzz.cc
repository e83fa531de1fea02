#include <google/protobuf/message.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "soft_labels/decode.h"

// Bytes that anybody may have sent, for the decoder of POLYSTILL_FUZZ_CODEC. Four bytes of settings (records, k or
// draws or scores a row, logits a row, twice), then a SoftLabels message. Whatever is accepted can be written, and says
// the same when it is read again.

namespace polystill::soft_labels {
namespace {

void Check(bool holds) {
  if (!holds) std::abort();
}

bool Same(const Array& a, const Array& b) {
  return a.numbers.size() == b.numbers.size() && a.width == b.width && a.ids == b.ids && a.counts == b.counts &&
         a.offsets == b.offsets &&
         (a.numbers.empty() || std::memcmp(a.numbers.data(), b.numbers.data(), a.numbers.size() * sizeof(float)) == 0);
}

void DecodeAnything(const uint8_t* data, size_t size) {
  if (size < 4) return;
  const int records = data[0] % 16;
  Output output{"logits", 1 + data[2] + 256 * int64_t{data[3]}, false, 1 + data[3] % 8};
  v1::LabelSpec spec;
  spec.set_codec(static_cast<v1::Codec>(POLYSTILL_FUZZ_CODEC));
  spec.set_k(1 + data[1] % static_cast<int>(std::min<int64_t>(output.width, 256)));
  spec.set_draws(1 + data[1]);
  v1::LabelInput input;
  for (int i = 0; i < data[1] % 8; ++i) input.add_score_ids(0);
  v1::SoftLabels labels;
  if (!labels.ParseFromArray(data + 4, static_cast<int>(size) - 4)) return;
  labels.set_codec(spec.codec());
  const std::vector<RecordSize> sizes(records, SizeOf(spec, output, input));
  if (const auto parts = Cut(labels, sizes); parts.ok()) {
    v1::SoftLabels joined;
    for (const v1::SoftLabels& part : *parts) Check(Append(part, &joined).ok());
  }
  const auto array = Decode(labels, spec, output, sizes);
  if (!array.ok()) return;
  const auto again = Encode(*array, spec, output, records);
  Check(again.ok());
  const auto back = Decode(*again, spec, output, sizes);
  Check(back.ok());
  // A centre and a scale can be written in more ways than one.
  Check(spec.codec() == v1::CODEC_DENSE_INT8 || Same(*array, *back));
}

}  // namespace
}  // namespace polystill::soft_labels

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  google::protobuf::LogSilencer silence;
  polystill::soft_labels::DecodeAnything(data, size);
  return 0;
}
