#include <google/protobuf/message.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "soft_labels/reply_reader.h"

// Bytes that anybody may have sent as a message of a LabelStream: a byte for the size of the buffers that they came in,
// then the message. What is read is what protobuf reads, with the numbers put back.

namespace polystill::soft_labels {
namespace {

void Check(bool holds) {
  if (!holds) std::abort();
}

void ReadAnything(std::string_view bytes) {
  if (bytes.empty()) return;
  const size_t size = 1 + static_cast<uint8_t>(bytes[0]);
  bytes.remove_prefix(1);
  std::vector<std::string_view> buffers;
  for (size_t first = 0; first < bytes.size(); first += size) buffers.push_back(bytes.substr(first, size));
  absl::StatusOr<StreamReply> read = ReadStreamReply(buffers);
  if (!read.ok()) return;
  v1::LabelStreamReply expected;
  Check(expected.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())));
  Check(read->numbers.size() == static_cast<size_t>(expected.reply().labels_size()));
  for (size_t i = 0; i < read->numbers.size(); ++i) {
    v1::SoftLabels& labels = *read->message.mutable_reply()->mutable_labels(static_cast<int>(i));
    for (const std::string_view chunk : read->numbers[i]) labels.mutable_dense()->mutable_data()->append(chunk);
  }
  Check(read->message.SerializeAsString() == expected.SerializeAsString());
}

}  // namespace
}  // namespace polystill::soft_labels

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  google::protobuf::LogSilencer silence;
  polystill::soft_labels::ReadAnything({reinterpret_cast<const char*>(data), size});
  return 0;
}
