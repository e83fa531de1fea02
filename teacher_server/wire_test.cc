#include "teacher_server/wire.h"

#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "soft_labels/reply_reader.h"

namespace polystill::teacher_server {
namespace {

v1::SoftLabels Dense(int64_t rows, int64_t width) {
  v1::SoftLabels labels;
  labels.set_codec(v1::CODEC_DENSE_FP32);
  labels.mutable_dense()->set_dtype(v1::Tensor::DTYPE_FLOAT32);
  labels.mutable_dense()->add_shape(rows);
  labels.mutable_dense()->add_shape(width);
  labels.mutable_dense()->set_data(std::string(rows * width * 4, 'd'));
  return labels;
}

v1::SoftLabels Sampled(size_t bytes) {
  v1::SoftLabels labels;
  labels.set_codec(v1::CODEC_SAMPLED);
  labels.set_packed(std::string(bytes, 'p'));
  labels.add_row_bytes(static_cast<uint32_t>(bytes));
  labels.set_uncompressed_bytes(7);
  return labels;
}

v1::LabelReply ReplyWith(const std::vector<v1::SoftLabels>& labels) {
  v1::LabelReply reply;
  reply.set_request_id(1 << 20);
  reply.set_teacher_digest("digest");
  for (const v1::SoftLabels& of_output : labels) *reply.add_labels() = of_output;
  return reply;
}

v1::LabelReply AsReadByTheClient(const grpc::ByteBuffer& bytes) {
  std::vector<grpc::Slice> slices;
  if (!bytes.Dump(&slices).ok()) return {};
  std::vector<std::string_view> buffers;
  for (const grpc::Slice& slice : slices) {
    buffers.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  soft_labels::StreamReply read = soft_labels::ReadStreamReply(buffers).value();
  for (size_t i = 0; i < read.numbers.size(); ++i) {
    v1::SoftLabels& labels = *read.message.mutable_reply()->mutable_labels(static_cast<int>(i));
    for (const std::string_view chunk : read.numbers[i]) labels.mutable_dense()->mutable_data()->append(chunk);
  }
  return read.message.reply();
}

TEST(PackReply, IsReadAsTheMessageThatItWas) {
  v1::LabelReply refused;
  refused.set_code(8);
  refused.set_message("full");
  refused.set_retry_after_ms(50);
  const v1::LabelReply replies[] = {
      refused,
      ReplyWith({}),
      ReplyWith({Dense(1, 1)}),
      ReplyWith({Dense(0, 3)}),
      ReplyWith({Dense(64, 4'096)}),
      ReplyWith({Sampled(0)}),
      ReplyWith({Sampled(100'000)}),
      ReplyWith({Dense(300, 10), Sampled(5), Dense(1, 2), Sampled(9'000)}),
  };
  for (const v1::LabelReply& reply : replies) {
    SCOPED_TRACE(reply.ShortDebugString().substr(0, 99));
    grpc::ByteBuffer bytes = PackReply(reply), again = bytes;
    v1::LabelStreamReply read;
    ASSERT_TRUE(Parse(&bytes, &read).ok());
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(read.reply(), reply));
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(AsReadByTheClient(again), reply));
  }
}

TEST(PackReply, GivesLargePayloadsASliceOfTheirOwn) {
  const v1::LabelReply reply = ReplyWith({Dense(64, 4'096), Sampled(10)});
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(PackReply(reply).Dump(&slices).ok());
  const auto payload = [](const grpc::Slice& slice) { return slice.size() == 64 * 4'096 * 4; };
  EXPECT_EQ(std::count_if(slices.begin(), slices.end(), payload), 1);
}

}  // namespace
}  // namespace polystill::teacher_server
