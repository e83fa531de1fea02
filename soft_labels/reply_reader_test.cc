#include "soft_labels/reply_reader.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

namespace polystill::soft_labels {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::HasSubstr;

std::string Bytes(size_t count) {
  std::string bytes(count, '\0');
  std::iota(bytes.begin(), bytes.end(), 'a');
  return bytes;
}

v1::SoftLabels Dense(int64_t rows, int64_t width) {
  v1::SoftLabels labels;
  labels.set_codec(v1::CODEC_DENSE_FP32);
  labels.mutable_dense()->set_dtype(v1::Tensor::DTYPE_FLOAT32);
  labels.mutable_dense()->add_shape(rows);
  labels.mutable_dense()->add_shape(width);
  labels.mutable_dense()->set_data(Bytes(rows * width * sizeof(float)));
  return labels;
}

v1::SoftLabels Packed(size_t bytes) {
  v1::SoftLabels labels;
  labels.set_codec(v1::CODEC_SAMPLED);
  labels.set_packed(Bytes(bytes));
  labels.add_row_bytes(static_cast<uint32_t>(bytes));
  return labels;
}

v1::LabelStreamReply With(const std::vector<v1::SoftLabels>& labels) {
  v1::LabelStreamReply message;
  message.mutable_reply()->set_request_id(1 << 20);
  message.mutable_reply()->set_teacher_digest("digest");
  for (const v1::SoftLabels& of_output : labels) *message.mutable_reply()->add_labels() = of_output;
  return message;
}

v1::LabelStreamReply Refusal() {
  v1::LabelStreamReply message;
  message.mutable_reply()->set_code(8);
  message.mutable_reply()->set_message("full");
  return message;
}

v1::LabelStreamReply Opened() {
  v1::LabelStreamReply message;
  message.mutable_opened()->set_name("teacher");
  message.mutable_opened()->mutable_signature()->add_labels("net");
  return message;
}

// What gRPC might have read `bytes` into: buffers of `size`, of which some are empty.
std::vector<std::string_view> BuffersOf(std::string_view bytes, size_t size) {
  std::vector<std::string_view> buffers;
  for (; !bytes.empty(); bytes.remove_prefix(std::min(size, bytes.size()))) {
    buffers.push_back(bytes.substr(0, size));
    if (buffers.size() % 3 == 0) buffers.emplace_back();
  }
  return buffers;
}

std::string Join(const ByteChunks& chunks) {
  std::string joined;
  for (const std::string_view chunk : chunks) joined += chunk;
  return joined;
}

absl::Status StatusOf(const std::string& bytes) { return ReadStreamReply(BuffersOf(bytes, 5)).status(); }

TEST(ReadStreamReply, ReadsWhatWasWrittenHoweverItIsSplit) {
  const v1::LabelStreamReply messages[] = {
      {},
      Opened(),
      Refusal(),
      With({}),
      With({Dense(0, 3)}),
      With({Packed(300)}),
      With({Dense(30, 10)}),
      With({Dense(2, 3), Packed(5), Dense(1, 1), Packed(0), Dense(7, 100)}),
  };
  for (const v1::LabelStreamReply& message : messages) {
    const std::string bytes = message.SerializeAsString();
    for (const size_t size : {1, 2, 3, 7, 64, 1 << 20}) {
      SCOPED_TRACE(testing::Message() << message.ShortDebugString() << " in buffers of " << size);
      absl::StatusOr<StreamReply> read = ReadStreamReply(BuffersOf(bytes, size));
      ASSERT_TRUE(read.ok()) << read.status();
      ASSERT_EQ(read->numbers.size(), static_cast<size_t>(message.reply().labels_size()));
      for (size_t i = 0; i < read->numbers.size(); ++i) {
        v1::SoftLabels& labels = *read->message.mutable_reply()->mutable_labels(static_cast<int>(i));
        EXPECT_EQ(labels.dense().data(), "");
        if (labels.has_dense()) labels.mutable_dense()->set_data(Join(read->numbers[i]));
      }
      EXPECT_TRUE(MessageDifferencer::Equals(read->message, message));
    }
  }
}

TEST(ReadStreamReply, LeavesNumbersWhereTheyAre) {
  const std::string bytes = With({Packed(10), Dense(64, 64)}).SerializeAsString();
  const StreamReply read = ReadStreamReply(BuffersOf(bytes, 1'000)).value();
  EXPECT_TRUE(read.numbers[0].empty());
  for (const std::string_view chunk : read.numbers[1]) {
    EXPECT_GE(chunk.data(), bytes.data());
    EXPECT_LE(chunk.data() + chunk.size(), bytes.data() + bytes.size());
  }
}

TEST(ReadStreamReply, PassesOverFieldsThatItDoesNotKnow) {
  v1::LabelStreamReply message = With({Dense(2, 2)});
  const auto add = [](google::protobuf::Message* to) {
    to->GetReflection()->MutableUnknownFields(to)->AddVarint(1'000, 7);
    to->GetReflection()->MutableUnknownFields(to)->AddLengthDelimited(1'001, "new");
    to->GetReflection()->MutableUnknownFields(to)->AddGroup(1'002)->AddFixed32(1, 2);
  };
  add(&message);
  add(message.mutable_reply());
  add(message.mutable_reply()->mutable_labels(0));
  add(message.mutable_reply()->mutable_labels(0)->mutable_dense());
  const std::string bytes = message.SerializeAsString();
  const absl::StatusOr<StreamReply> read = ReadStreamReply(BuffersOf(bytes, 9));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(Join(read->numbers[0]), Bytes(16));
  EXPECT_EQ(read->message.reply().request_id(), 1 << 20);
}

TEST(ReadStreamReply, RefusesBytesThatEndEarly) {
  const std::string bytes = With({Packed(3), Dense(2, 3)}).SerializeAsString();
  for (size_t size = 1; size < bytes.size(); ++size) EXPECT_FALSE(StatusOf(bytes.substr(0, size)).ok()) << size;
}

TEST(ReadStreamReply, RefusesWhatIsNoMessage) {
  // A field of a message that has a length below 128.
  const auto field = [](int number, const std::string& content) {
    return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(content.size())} + content;
  };
  const auto dense = [&](const std::string& tensor) { return field(2, field(6, field(2, tensor))); };
  const std::string twice = field(3, "1234");
  const struct {
    std::string what, bytes, message;
  } cases[] = {
      {"numbers longer than what holds them",
       dense("\x1a\x05"
             "1234"),
       "are not a LabelStreamReply"},
      {"labels longer than what holds them",
       field(2,
             "\x32\x7f"
             "1234"),
       "are not a LabelStreamReply"},
      {"a reply of 2^32 bytes",
       "\x12\x80\x80\x80\x80\x10"
       "1234",
       "are not a LabelStreamReply"},
      {"a length of eleven bytes", "\x12" + std::string(10, '\xff') + "\x01", "are not a LabelStreamReply"},
      {"field 0", field(2, std::string(2, '\0')), "are not a LabelStreamReply"},
      {"a wire type that is none", field(2, "\x0f"), "are not a LabelStreamReply"},
      {"a group that does not end", field(2, "\x0b\x08\x01"), "are not a LabelStreamReply"},
      {"the end of no group", field(2, "\x0c"), "are not a LabelStreamReply"},
      {"groups without end", std::string(10'000, '\x0b'), "are not a LabelStreamReply"},
      {"text that is none", field(2, field(3, "\xff")), "are not a LabelStreamReply"},
      {"numbers twice", dense(twice + twice), "are not a LabelStreamReply"},
      {"numbers twice, in two tensors", field(2, field(6, field(2, twice) + field(2, twice))),
       "are not a LabelStreamReply"},
      {"a description behind labels", dense(twice) + field(1, ""), "more than one message"},
      {"labels, a description, labels", dense(twice) + field(1, "") + dense(twice), "more than one message"},
  };
  for (const auto& [what, bytes, message] : cases) {
    EXPECT_THAT(StatusOf(bytes).ToString(), HasSubstr(message)) << what;
  }
  EXPECT_TRUE(StatusOf(dense(twice)).ok());
}

}  // namespace
}  // namespace polystill::soft_labels
