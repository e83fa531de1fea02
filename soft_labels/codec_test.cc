#include "soft_labels/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>

namespace polystill::soft_labels {
namespace {

using testing::HasSubstr;

// Persisted.
TEST(CodecTest, NumbersAreFrozen) {
  EXPECT_EQ(v1::CODEC_DENSE_FP32, 1);
  EXPECT_EQ(v1::CODEC_DENSE_FP16, 2);
  EXPECT_EQ(v1::CODEC_DENSE_BF16, 3);
  EXPECT_EQ(v1::CODEC_DENSE_INT8, 4);
  EXPECT_EQ(v1::CODEC_TOP_K, 5);
  EXPECT_EQ(v1::CODEC_SAMPLED, 6);
  EXPECT_EQ(v1::CODEC_HIDDEN_HEAD, 7);
  EXPECT_EQ(v1::CODEC_SCORES, 8);
  EXPECT_EQ(v1::CODEC_CLASSES, 9);
}

TEST(CodecTest, WhichCodecServesWhichLoss) {
  const std::set<std::pair<v1::LossKind, v1::Codec>> besides_dense = {
      {v1::LOSS_KIND_SOFT_LABEL, v1::CODEC_TOP_K},       {v1::LOSS_KIND_SOFT_LABEL, v1::CODEC_SAMPLED},
      {v1::LOSS_KIND_SOFT_LABEL, v1::CODEC_HIDDEN_HEAD}, {v1::LOSS_KIND_HARD_LABEL, v1::CODEC_HIDDEN_HEAD},
      {v1::LOSS_KIND_HARD_LABEL, v1::CODEC_CLASSES},     {v1::LOSS_KIND_LOGIT_MSE, v1::CODEC_HIDDEN_HEAD},
  };
  for (int kind = v1::LOSS_KIND_SOFT_LABEL; kind <= v1::LOSS_KIND_HIDDEN; ++kind) {
    for (int codec = v1::CODEC_DENSE_FP32; codec <= v1::CODEC_CLASSES; ++codec) {
      v1::Loss loss;
      loss.set_kind(static_cast<v1::LossKind>(kind));
      loss.set_codec(static_cast<v1::Codec>(codec));
      const bool serves = IsDense(loss.codec()) || besides_dense.contains({loss.kind(), loss.codec()});
      EXPECT_EQ(CheckServes(loss).ok(), serves) << loss.ShortDebugString();
    }
  }
  v1::Loss loss;
  loss.set_kind(v1::LOSS_KIND_LOGIT_MSE);
  loss.set_codec(v1::CODEC_TOP_K);
  EXPECT_EQ(CheckServes(loss).message(),
            "top_k does not carry what logit_mse needs; write one of dense_fp32, dense_fp16, dense_bf16, dense_int8, "
            "hidden_head");
  loss.set_kind(v1::LOSS_KIND_TASK);
  EXPECT_TRUE(CheckServes(loss).ok());
}

TEST(CodecTest, SettingsAreThoseThatLabelsDependOn) {
  v1::Loss loss;
  loss.set_temperature(2);
  loss.set_k(5);
  loss.set_draws_per_token(6);
  loss.set_draws(v1::Loss::DRAWS_PER_EPOCH);
  loss.set_codec(v1::CODEC_DENSE_FP16);
  EXPECT_EQ(SettingsOf(loss), CodecSettings(v1::CODEC_DENSE_FP16));
  loss.set_codec(v1::CODEC_TOP_K);
  EXPECT_EQ(SpecOf(SettingsOf(loss), 9).ShortDebugString(), "codec: CODEC_TOP_K temperature: 2 k: 5");
  loss.set_codec(v1::CODEC_SAMPLED);
  EXPECT_EQ(SpecOf(SettingsOf(loss), 9).ShortDebugString(), "codec: CODEC_SAMPLED temperature: 2 draws: 6 seed: 9");
  EXPECT_TRUE(SettingsOf(loss).draws_anew);
}

TEST(CodecTest, ChecksSettings) {
  struct Case {
    v1::Codec codec;
    double temperature;
    int k;
    int draws;
    uint64_t seed;
    std::string message;  // none: fine
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Case cases[] = {
      {v1::CODEC_UNSPECIFIED, 0, 0, 0, 0, ""},
      {v1::CODEC_TOP_K, 0, 10, 0, 0, ""},
      {v1::CODEC_SAMPLED, 2, 0, 64, 7, ""},
      {v1::CODEC_SCORES, 2, 0, 0, 0, ""},
      {static_cast<v1::Codec>(77), 0, 0, 0, 0, "spec.codec 77 is not known"},
      {v1::CODEC_DENSE_FP32, 2, 0, 0, 0, "spec.temperature is set, but dense_fp32 does not depend on it"},
      {v1::CODEC_CLASSES, 0, 3, 0, 0, "spec.k is set, but classes"},
      {v1::CODEC_TOP_K, 0, 3, 4, 0, "spec.draws is set, but top_k"},
      {v1::CODEC_TOP_K, 0, 3, 0, 5, "spec.seed is set, but top_k"},
      {v1::CODEC_TOP_K, 0, 0, 0, 0, "spec.k is 0; write 1 to 10"},
      {v1::CODEC_TOP_K, 0, 11, 0, 0, "spec.k is 11; write 1 to 10"},
      {v1::CODEC_TOP_K, -1, 3, 0, 0, "spec.temperature is -1"},
      {v1::CODEC_SAMPLED, nan, 0, 3, 0, "spec.temperature is nan"},
      {v1::CODEC_SAMPLED, 1, 0, 0, 0, "spec.draws is 0; write 1 to 65536"},
      {v1::CODEC_SAMPLED, 1, 0, kMaxDraws + 1, 0, "spec.draws is 65537"},
  };
  for (const Case& c : cases) {
    v1::LabelSpec spec;
    spec.set_codec(c.codec);
    spec.set_temperature(c.temperature);
    spec.set_k(c.k);
    spec.set_draws(c.draws);
    spec.set_seed(c.seed);
    const absl::Status status = CheckCodec(spec, 10);
    EXPECT_EQ(status.ok(), c.message.empty()) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
  v1::LabelSpec spec;
  spec.set_codec(v1::CODEC_CLASSES);
  EXPECT_THAT(CheckCodec(spec, kMaxVocabulary + 1).ToString(), HasSubstr("holds rows of at most 16777216 logits"));
  EXPECT_TRUE(CheckCodec(spec, kMaxVocabulary).ok());
}

}  // namespace
}  // namespace polystill::soft_labels
