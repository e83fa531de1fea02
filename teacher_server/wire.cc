#include "teacher_server/wire.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace polystill::teacher_server {
namespace {

using google::protobuf::io::CodedOutputStream;
using google::protobuf::io::StringOutputStream;

constexpr uint32_t kLengthDelimited = 2;  // protobuf's wire type

// Below it, a copy costs less than a slice of its own.
constexpr size_t kOwnSliceBytes = 4'096;

// What comes before `bytes` bytes of a field that has a length.
std::string Prefix(int field, size_t bytes) {
  std::string prefix;
  StringOutputStream stream(&prefix);
  CodedOutputStream coded(&stream);
  coded.WriteTag(static_cast<uint32_t>(field) << 3 | kLengthDelimited);
  coded.WriteVarint64(bytes);
  coded.Trim();
  return prefix;
}

// Takes over `bytes`.
grpc::Slice SliceOf(std::string bytes) {
  auto* const owned = new std::string(std::move(bytes));
  return grpc::Slice(
      owned->data(), owned->size(), [](void* data) { delete static_cast<std::string*>(data); }, owned);
}

size_t BytesOf(const std::vector<grpc::Slice>& slices) {
  size_t bytes = 0;
  for (const grpc::Slice& slice : slices) bytes += slice.size();
  return bytes;
}

// One of LabelReply.labels. What is said of `dense` twice is merged by whoever reads it.
std::vector<grpc::Slice> SlicesOf(v1::SoftLabels labels) {
  const bool dense = labels.has_dense();
  std::string payload = std::move(dense ? *labels.mutable_dense()->mutable_data() : *labels.mutable_packed());
  (dense ? *labels.mutable_dense()->mutable_data() : *labels.mutable_packed()).clear();
  std::string head = labels.SerializeAsString();
  if (dense) {
    const std::string inner = Prefix(v1::Tensor::kDataFieldNumber, payload.size());
    head += Prefix(v1::SoftLabels::kDenseFieldNumber, inner.size() + payload.size()) + inner;
  } else {
    head += Prefix(v1::SoftLabels::kPackedFieldNumber, payload.size());
  }
  if (payload.size() < kOwnSliceBytes) return {SliceOf(head + payload)};
  return {SliceOf(std::move(head)), SliceOf(std::move(payload))};
}

}  // namespace

grpc::ByteBuffer PackReply(v1::LabelReply reply) {
  std::vector<grpc::Slice> labels;
  for (v1::SoftLabels& of_output : *reply.mutable_labels()) {
    std::vector<grpc::Slice> slices = SlicesOf(std::move(of_output));
    labels.push_back(SliceOf(Prefix(v1::LabelReply::kLabelsFieldNumber, BytesOf(slices))));
    for (grpc::Slice& slice : slices) labels.push_back(std::move(slice));
  }
  reply.clear_labels();
  const std::string rest = reply.SerializeAsString();
  const std::string prefix = Prefix(v1::LabelStreamReply::kReplyFieldNumber, rest.size() + BytesOf(labels));
  std::vector<grpc::Slice> slices = {SliceOf(prefix + rest)};
  for (grpc::Slice& slice : labels) slices.push_back(std::move(slice));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

}  // namespace polystill::teacher_server
