#include "soft_labels/compression.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <string>

namespace polystill::soft_labels {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::HasSubstr;

constexpr int64_t kMost = 1 << 20;

v1::SoftLabels Dense(std::string data) {
  v1::SoftLabels labels;
  labels.set_codec(v1::CODEC_DENSE_FP32);
  labels.mutable_dense()->add_shape(static_cast<int64_t>(data.size() / 4));
  labels.mutable_dense()->set_data(std::move(data));
  return labels;
}

v1::SoftLabels Packed(std::string data) {
  v1::SoftLabels labels;
  labels.set_codec(v1::CODEC_TOP_K);
  labels.set_packed(std::move(data));
  return labels;
}

TEST(Compression, GivesBackWhatItWas) {
  const v1::SoftLabels all[] = {Dense(std::string(4'000, 'x')), Packed(std::string(4'000, 'x')), Dense(""), Packed("")};
  for (const v1::SoftLabels& before : all) {
    v1::SoftLabels labels = before;
    Compress(&labels);
    const bool empty = before.dense().data().empty() && before.packed().empty();
    EXPECT_EQ(labels.uncompressed_bytes(), empty ? 0 : 4'000);
    EXPECT_LT(labels.ByteSizeLong(), 200u);
    ASSERT_TRUE(Decompress(kMost, &labels).ok());
    EXPECT_TRUE(MessageDifferencer::Equals(labels, before));
  }
}

TEST(Compression, LeavesWhatDoesNotGetSmaller) {
  const v1::SoftLabels before = Packed("abcdefgh");
  v1::SoftLabels labels = before;
  Compress(&labels);
  EXPECT_TRUE(MessageDifferencer::Equals(labels, before));
  EXPECT_TRUE(Decompress(kMost, &labels).ok());
  EXPECT_TRUE(MessageDifferencer::Equals(labels, before));
}

TEST(Compression, RefusesFramesThatLie) {
  v1::SoftLabels good = Dense(std::string(4'000, 'x'));
  Compress(&good);
  const auto refusal = [&](auto change) {
    v1::SoftLabels labels = good;
    change(&labels);
    return std::string(Decompress(5'000, &labels).message());
  };
  EXPECT_THAT(refusal([](v1::SoftLabels* l) { l->set_uncompressed_bytes(int64_t{1} << 60); }), HasSubstr("at most"));
  EXPECT_THAT(refusal([](v1::SoftLabels* l) { l->set_uncompressed_bytes(-1); }), HasSubstr("at most"));
  EXPECT_THAT(refusal([](v1::SoftLabels* l) { l->set_uncompressed_bytes(3'999); }), HasSubstr("torn"));
  EXPECT_THAT(refusal([](v1::SoftLabels* l) { l->set_uncompressed_bytes(4'001); }), HasSubstr("holds 4000"));
  EXPECT_THAT(refusal([](v1::SoftLabels* l) { l->mutable_dense()->mutable_data()->pop_back(); }), HasSubstr("torn"));
  EXPECT_THAT(refusal([](v1::SoftLabels* l) { l->mutable_dense()->set_data("no frame"); }), HasSubstr("torn"));
  EXPECT_THAT(refusal([](v1::SoftLabels* l) { l->clear_dense(); }), HasSubstr("holds 0"));
}

}  // namespace
}  // namespace polystill::soft_labels
