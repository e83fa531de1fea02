#include "soft_labels/dense.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "absl/strings/escaping.h"

namespace polystill::soft_labels {
namespace {

using testing::ElementsAreArray;
using testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

const std::vector<float> kLogits = {1.0f, -2.5f, 0.0f, 65504.0f, -0x1p-24f, 0.1f};

// The bytes on the wire, frozen: labels are stored, so a change here is a new codec and never a new version of this
// one.
TEST(DenseTest, GoldenBytes) {
  struct Case {
    v1::Codec codec;
    std::string data;
  };
  for (const Case& c :
       {Case{v1::CODEC_DENSE_FP32, "0000803f000020c00000000000e07f47000080b3cdcccc3d"},
        Case{v1::CODEC_DENSE_FP16, "003c00c10000ff7b0180662e"}, Case{v1::CODEC_HIDDEN_HEAD, "003c00c10000ff7b0180662e"},
        Case{v1::CODEC_DENSE_BF16, "803f20c00000804780b3cd3d"}}) {
    const v1::SoftLabels labels = EncodeDense(c.codec, kLogits, 2, 3).value();
    EXPECT_EQ(absl::BytesToHexString(labels.dense().data()), c.data);
    EXPECT_THAT(labels.dense().shape(), testing::ElementsAre(2, 3));
  }
  EXPECT_EQ(absl::BytesToHexString(EncodeDense(v1::CODEC_DENSE_FP16, kLogits, 2, 3)->SerializeAsString()),
            "08021214080212020203"  // codec 2, a tensor of dtype 2 and shape [2, 3],
            "1a0c003c00c10000ff7b0180662e");
}

TEST(DenseTest, Int8HasACentreAndAScaleARow) {
  const std::vector<float> numbers = {1, -2.5f, 0, 3, 7, 7, 7, 7};
  const v1::SoftLabels labels = EncodeDense(v1::CODEC_DENSE_INT8, numbers, 2, 4).value();
  EXPECT_EQ(absl::BytesToHexString(labels.packed()),
            "0000803ec662b13c2381f47f"
            "0000e0400000000000000000");
  const std::vector<float> back = DecodeDense(labels, 2, 4).value();
  for (size_t i = 0; i < numbers.size(); ++i) EXPECT_LE(std::abs(back[i] - numbers[i]), 5.5 / 254 / 2 + 1e-6);
  EXPECT_EQ(back[4], 7);
  v1::SoftLabels spoilt = labels;
  (*spoilt.mutable_packed())[12 + 3] = 0x7f;
  EXPECT_THAT(DecodeDense(spoilt, 2, 4).status().ToString(), HasSubstr("row 1: centre"));
  spoilt = labels;
  (*spoilt.mutable_packed())[7] = '\xbc';
  EXPECT_THAT(DecodeDense(spoilt, 2, 4).status().ToString(), HasSubstr("row 0: centre 0.25 and scale -"));
  spoilt = labels;
  spoilt.mutable_packed()->pop_back();
  EXPECT_THAT(DecodeDense(spoilt, 2, 4).status().ToString(), HasSubstr("expected 24 bytes of labels, got 23"));
  const std::vector<float> narrow = {0, 1e-42f};  // the inverse of their scale is no number
  EXPECT_NEAR(DecodeDense(EncodeDense(v1::CODEC_DENSE_INT8, narrow, 1, 2).value(), 1, 2)->at(1), 1e-42, 1e-44);
  const std::vector<float> wide = {-8e37f, 8e37f};
  EXPECT_NEAR(DecodeDense(EncodeDense(v1::CODEC_DENSE_INT8, wide, 1, 2).value(), 1, 2)->at(1), 8e37, 1e32);
}

TEST(DenseTest, Fp32ComesBackBitForBit) {
  const std::vector<float> logits = {-0.0f, 1e-42f, std::numeric_limits<float>::max(), 3.14159274f};
  const auto labels = EncodeDense(v1::CODEC_DENSE_FP32, logits, 4, 1).value();
  const std::vector<float> back = DecodeDense(labels, 4, 1).value();
  EXPECT_EQ(std::memcmp(back.data(), logits.data(), 16), 0);
}

TEST(DenseTest, Fp16ErrsByLessThanItsBound) {
  std::vector<float> logits;
  for (float x = 0x1p-14f; x < 65504.0f; x *= 1.0037f) logits.insert(logits.end(), {x, -x});
  const int64_t rows = logits.size() / 2;
  const auto back = DecodeDense(EncodeDense(v1::CODEC_DENSE_FP16, logits, rows, 2).value(), rows, 2).value();
  for (size_t i = 0; i < logits.size(); ++i) {
    EXPECT_LE(std::abs(back[i] - logits[i]), std::abs(logits[i]) * 0x1p-11f) << logits[i];
  }
}

TEST(DenseTest, EncodeRefuses) {
  struct Case {
    v1::Codec codec;
    std::vector<float> logits;
    std::string message;
  };
  const Case cases[] = {
      {v1::CODEC_DENSE_FP32, {1, 2, 3, kNan}, "row 1: number 1 is nan, not a finite number"},
      {v1::CODEC_DENSE_FP16, {kInfinity, 2, 3, 4}, "row 0: number 0 is inf, not a finite number"},
      {v1::CODEC_DENSE_FP16, {1, 2, -65505.0f, 4}, "row 1: number 0 is -65505, beyond what dense_fp16 holds"},
      {v1::CODEC_DENSE_FP32, {1, 2, 3}, "3 numbers are not [2, 2]"},
      {v1::CODEC_UNSPECIFIED, {1, 2, 3, 4}, "unspecified does not hold every number"},
      {static_cast<v1::Codec>(99), {1, 2, 3, 4}, "codec 99 does not hold every number"},
  };
  for (const Case& c : cases) {
    const absl::Status status = EncodeDense(c.codec, c.logits, 2, 2).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
  const RowName name = [](int64_t row) { return "record 'r" + std::to_string(row) + "'"; };
  EXPECT_THAT(EncodeDense(v1::CODEC_DENSE_FP32, std::vector<float>{1, kNan}, 2, 1, name).status().ToString(),
              HasSubstr("record 'r1': number 0"));
}

TEST(DenseTest, DecodeRefuses) {
  const auto labels = EncodeDense(v1::CODEC_DENSE_FP16, kLogits, 2, 3).value();
  struct Case {
    std::function<void(v1::SoftLabels&)> spoil;
    std::string message;
  };
  const Case cases[] = {
      {[](v1::SoftLabels& l) { l.set_codec(v1::CODEC_UNSPECIFIED); }, "unspecified does not hold every number"},
      {[](v1::SoftLabels& l) { l.set_codec(v1::CODEC_DENSE_FP32); }, "came with values of dtype 2"},
      {[](v1::SoftLabels& l) { l.clear_dense(); }, "dtype 0"},
      {[](v1::SoftLabels& l) { l.mutable_dense()->set_shape(0, 3); }, "expected labels of shape [2, 3], got [3, 3]"},
      {[](v1::SoftLabels& l) { l.mutable_dense()->add_shape(1); }, "got [2, 3, 1]"},
      {[](v1::SoftLabels& l) { l.mutable_dense()->mutable_data()->push_back('x'); },
       "expected 12 bytes of labels, got 13"},
      {[](v1::SoftLabels& l) { (*l.mutable_dense()->mutable_data())[9] = 0x7c; }, "row 1: number 1 is"},
  };
  for (const Case& c : cases) {
    v1::SoftLabels spoilt = labels;
    c.spoil(spoilt);
    const absl::Status status = DecodeDense(spoilt, 2, 3).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
  EXPECT_TRUE(DecodeDense(labels, 2, 3).ok());
}

}  // namespace
}  // namespace polystill::soft_labels
