#include "soft_labels/reply_reader.h"

#include <google/protobuf/wire_format_lite.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace polystill::soft_labels {
namespace {

using google::protobuf::internal::WireFormatLite;

// Fields from the outermost message down to the bytes that are left where they are.
constexpr int kPath[] = {v1::LabelStreamReply::kReplyFieldNumber, v1::LabelReply::kLabelsFieldNumber,
                         v1::SoftLabels::kDenseFieldNumber, v1::Tensor::kDataFieldNumber};
constexpr size_t kOfLabels = 1, kOfNumbers = 3;  // places in it

// As protobuf has them.
constexpr int kTagBytes = 5, kLengthBytes = 5, kVarintBytes = 10, kMostGroups = 100;

constexpr uint32_t TagOf(int field) {
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}

void AppendVarint(uint64_t value, std::string* to) {
  for (; value >= 128; value >>= 7) to->push_back(static_cast<char>(value | 128));
  to->push_back(static_cast<char>(value));
}

// Copies a message, byte for byte, but for what kPath leads to; whether the copy is a message is for protobuf to say.
// `end`: where, in bytes from the first, what is read ends. All methods: false when a length leads beyond that.
class Splitter {
 public:
  Splitter(std::span<const std::string_view> buffers, std::vector<ByteChunks>* numbers)
      : buffers_(buffers), numbers_(numbers) {}

  // A message that the first `depth` fields of kPath lead to.
  bool ReadMessage(size_t depth, size_t end, std::string* rest) {
    while (position_ < end) {
      const size_t before = rest->size();
      uint64_t tag = 0;
      if (!CopyVarint(kTagBytes, end, &tag, rest)) return false;
      if (static_cast<uint32_t>(tag) != TagOf(kPath[depth])) {
        if (!CopyValue(tag, end, 0, rest)) return false;
        continue;
      }
      rest->resize(before);
      if (!ReadOnPath(depth, end, rest)) return false;
    }
    return true;
  }

 private:
  // The field kPath[depth], behind its tag.
  bool ReadOnPath(size_t depth, size_t end, std::string* rest) {
    std::string length;
    uint64_t bytes = 0;
    if (!CopyVarint(kLengthBytes, end, &bytes, &length) || bytes > end - position_) return false;
    if (depth == kOfNumbers) return ReadNumbers(bytes);
    if (depth == kOfLabels) {
      numbers_->emplace_back();
      said_ = false;
    }
    std::string inner;
    if (!ReadMessage(depth + 1, position_ + bytes, &inner)) return false;
    AppendVarint(TagOf(kPath[depth]), rest);
    AppendVarint(inner.size(), rest);
    rest->append(inner);
    return true;
  }

  // False also when they were said before.
  bool ReadNumbers(size_t bytes) {
    if (std::exchange(said_, true)) return false;
    while (bytes > 0) {
      const std::string_view some = Next(bytes);
      numbers_->back().push_back(some);
      bytes -= some.size();
    }
    return true;
  }

  // The value of any other field. `groups`: those that it lies in.
  bool CopyValue(uint64_t tag, size_t end, int groups, std::string* to) {
    uint64_t value = 0;
    switch (WireFormatLite::GetTagWireType(static_cast<uint32_t>(tag))) {
      case WireFormatLite::WIRETYPE_VARINT:
        return CopyVarint(kVarintBytes, end, &value, to);
      case WireFormatLite::WIRETYPE_FIXED64:
        return CopyBytes(8, end, to);
      case WireFormatLite::WIRETYPE_LENGTH_DELIMITED:
        return CopyVarint(kLengthBytes, end, &value, to) && CopyBytes(value, end, to);
      case WireFormatLite::WIRETYPE_START_GROUP:
        return groups < kMostGroups && CopyGroup(end, groups + 1, to);
      case WireFormatLite::WIRETYPE_FIXED32:
        return CopyBytes(4, end, to);
      default:
        return false;
    }
  }

  bool CopyGroup(size_t end, int groups, std::string* to) {
    while (true) {
      uint64_t tag = 0;
      if (!CopyVarint(kTagBytes, end, &tag, to)) return false;
      if (WireFormatLite::GetTagWireType(static_cast<uint32_t>(tag)) == WireFormatLite::WIRETYPE_END_GROUP) return true;
      if (!CopyValue(tag, end, groups, to)) return false;
    }
  }

  bool CopyVarint(int most_bytes, size_t end, uint64_t* value, std::string* to) {
    for (int i = 0; i < most_bytes && position_ < end; ++i) {
      const auto byte = static_cast<uint8_t>(Next(1)[0]);
      to->push_back(static_cast<char>(byte));
      *value |= uint64_t{byte & 127u} << (7 * i);
      if (byte < 128) return true;
    }
    return false;
  }

  bool CopyBytes(uint64_t bytes, size_t end, std::string* to) {
    if (bytes > end - position_) return false;
    while (bytes > 0) {
      const std::string_view some = Next(bytes);
      to->append(some);
      bytes -= some.size();
    }
    return true;
  }

  // Passes over the next bytes, as many as lie together, but at most `most`; there are more.
  std::string_view Next(size_t most) {
    while (in_buffer_ == buffers_.front().size()) {
      buffers_ = buffers_.subspan(1);
      in_buffer_ = 0;
    }
    const std::string_view some = buffers_.front().substr(in_buffer_, most);
    in_buffer_ += some.size();
    position_ += some.size();
    return some;
  }

  std::span<const std::string_view> buffers_;
  size_t in_buffer_ = 0;  // bytes passed of the first one
  size_t position_ = 0;   // bytes passed in all
  std::vector<ByteChunks>* const numbers_;
  bool said_ = false;  // numbers of the labels being read
};

}  // namespace

absl::StatusOr<StreamReply> ReadStreamReply(std::span<const std::string_view> buffers) {
  const size_t bytes = BytesOf(buffers);
  StreamReply reply;
  std::string rest;
  if (!Splitter(buffers, &reply.numbers).ReadMessage(0, bytes, &rest) || !reply.message.ParseFromString(rest)) {
    return absl::InvalidArgumentError(absl::StrCat("the ", bytes, " bytes received are not a LabelStreamReply"));
  }
  // What a later message of the oneof drops is dropped from the message alone.
  if (static_cast<size_t>(reply.message.reply().labels_size()) != reply.numbers.size()) {
    return absl::InvalidArgumentError("the bytes received hold more than one message of a LabelStreamReply");
  }
  return reply;
}

}  // namespace polystill::soft_labels
