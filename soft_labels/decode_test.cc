#include "soft_labels/decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "absl/strings/escaping.h"
#include "soft_labels/dense.h"
#include "soft_labels/plain.h"
#include "soft_labels/sampled.h"
#include "soft_labels/top_k.h"

namespace polystill::soft_labels {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::string Hex(const v1::SoftLabels& labels) { return absl::BytesToHexString(labels.packed()); }

// Golden bytes are those of a second encoder, written in Python from FORMAT.md. They are frozen: labels are stored, so
// a change here is a new codec and never a new version of this one.

TEST(TopKTest, GoldenBytes) {
  const Array top = {{-0.5f, -1.25f, -7.3f, -2.5f, -0.0f, -70000.0f, -1.0f, -0.001f}, 4, {3, 7, 11, 0, 1, 2}};
  const v1::SoftLabels labels = EncodeTopK(top, 2, 3, 12).value();
  EXPECT_EQ(Hex(labels), "730b00b800bd4dc7000020c010020080fffb00bc6f1283ba");
  EXPECT_EQ(static_cast<int64_t>(labels.packed().size()), 2 * TopKRowBytes(3, 12));
  const Array back = DecodeTopK(labels, 2, 3, 12).value();
  EXPECT_EQ(back.ids, top.ids);
  EXPECT_THAT(back.numbers, ElementsAre(-0.5f, -1.25f, -7.30078125f, -2.5f, 0.0f, -65504.0f, -1.0f, -0.001f));
}

TEST(TopKTest, TheWholeVocabularyLeavesNoTail) {
  const float half = std::log(0.5f);
  const v1::SoftLabels labels = EncodeTopK({{half, half, -kInfinity}, 3, {0, 1}}, 1, 2, 2).value();
  EXPECT_EQ(Hex(labels), "028cb98cb9000080ff");
  EXPECT_EQ(DecodeTopK(labels, 1, 2, 2)->numbers[2], -kInfinity);
}

TEST(TopKTest, SizesUpToTheLargestVocabulary) {
  EXPECT_EQ(TopKRowBytes(1, 1), 1 + 2 + 4);
  EXPECT_EQ(TopKRowBytes(8, 2), 1 + 16 + 4);
  EXPECT_EQ(TopKRowBytes(8, 3), 2 + 16 + 4);
  EXPECT_EQ(TopKRowBytes(32, 250'000), 72 + 64 + 4);
  EXPECT_EQ(TopKRowBytes(4, kMaxVocabulary), 12 + 8 + 4);
  const int32_t last = kMaxVocabulary - 1;
  const auto labels = EncodeTopK({{-1, -2, -0.5f}, 3, {last - 1, last}}, 1, 2, kMaxVocabulary).value();
  EXPECT_THAT(DecodeTopK(labels, 1, 2, kMaxVocabulary)->ids, ElementsAre(last - 1, last));
}

TEST(TopKTest, Refuses) {
  struct Case {
    std::vector<int32_t> ids;
    std::vector<float> numbers;
    std::string message;
  };
  for (const Case& c : {Case{{1, 1}, {-1, -1, -1}, "row 0: id 1 comes after 1"},
                        Case{{1, 5}, {-1, -1, -1}, "row 0: id 5 comes after 1; ids ascend, each once, below 5"},
                        Case{{0, 1}, {-1, 0.5f, -1}, "row 0: id 1 has the log-probability 0.5"},
                        Case{{0, 1}, {-1, kNan, -1}, "row 0: id 1 has the log-probability nan"},
                        Case{{0, 1}, {-1, -1, kNan}, "row 0: the log of the rest is nan"},
                        Case{{0, 1}, {-1, -1, -kInfinity}, "row 0: the log of the rest is -inf"},
                        Case{{0}, {-1, -1, -1}, "1 ids and 3 numbers are not 1 rows of 2"}}) {
    EXPECT_THAT(EncodeTopK({c.numbers, 3, c.ids}, 1, 2, 5).status().ToString(), HasSubstr(c.message));
  }
  // 3 + 3 bits of ids, two of which fill the byte; fp16; fp32.
  const v1::SoftLabels good = EncodeTopK({{-1, -2, -3}, 3, {1, 4}}, 1, 2, 5).value();
  const std::pair<std::pair<int, char>, std::string> spoilt[] = {
      {{0, 0x61}, "row 0: its last bits are not 0"}, {{0, 0x0c}, "row 0: id 1 comes after 4"},
      {{0, 0x2f}, "row 0: id 7 comes after -1"},     {{2, 0x7e}, "row 0: id 1 has the log-probability nan"},
      {{8, 0x40}, "row 0: the log of the rest is"},
  };
  for (const auto& [change, message] : spoilt) {
    v1::SoftLabels labels = good;
    (*labels.mutable_packed())[change.first] = change.second;
    EXPECT_THAT(DecodeTopK(labels, 1, 2, 5).status().ToString(), HasSubstr(message));
  }
  v1::SoftLabels longer = good;
  longer.mutable_packed()->push_back('\0');
  EXPECT_THAT(DecodeTopK(longer, 1, 2, 5).status().ToString(), HasSubstr("expected 9 bytes of top_k, got 10"));
  EXPECT_FALSE(DecodeTopK(good, 2, 2, 5).ok());
}

TEST(SampledTest, GoldenBytes) {
  const Array drawn = {{1.5f, 0.0f}, 1, {5, 6, 300, 70'000, 9}, {1, 3, 40, 20, 64}, {0, 4, 5}};
  const v1::SoftLabels labels = EncodeSampled(drawn, 2, 64, 100'000).value();
  EXPECT_EQ(Hex(labels),
            "0000c03f4d0a0000002a09b7fe0dc11d"
            "00000000c2cb0f");
  EXPECT_THAT(labels.row_bytes(), ElementsAre(16, 7));
  EXPECT_EQ(SampledRowBytes(std::vector<int32_t>{9}, std::vector<int32_t>{64}), 7);
  const Array back = DecodeSampled(labels, 2, 64, 100'000).value();
  EXPECT_EQ(back.ids, drawn.ids);
  EXPECT_EQ(back.counts, drawn.counts);
  EXPECT_EQ(back.offsets, drawn.offsets);
  EXPECT_EQ(back.numbers, drawn.numbers);
}

// Rows of any shape: what is encoded comes back, and fits the bound.
TEST(SampledTest, ComesBackWhateverWasDrawn) {
  std::mt19937 random(5);
  for (const int64_t vocabulary : {int64_t{1}, int64_t{2}, int64_t{40}, int64_t{30'000}, kMaxVocabulary}) {
    for (const int32_t draws : {1, 2, 64, 1'000, kMaxDraws}) {
      Array drawn;
      drawn.offsets = {0};
      for (const double power : {1.0, 3.0, 12.0}) {
        std::map<int32_t, int32_t> counts;
        std::uniform_real_distribution<double> uniform;
        for (int32_t i = 0; i < draws; ++i)
          ++counts[static_cast<int32_t>(vocabulary * std::pow(uniform(random), power))];
        for (const auto& [id, count] : counts) drawn.ids.push_back(id), drawn.counts.push_back(count);
        drawn.offsets.push_back(static_cast<int64_t>(drawn.ids.size()));
        drawn.numbers.push_back(static_cast<float>(power));
      }
      const v1::SoftLabels labels = EncodeSampled(drawn, 3, draws, vocabulary).value();
      for (const uint32_t bytes : labels.row_bytes()) EXPECT_LE(bytes, MostSampledRowBytes(draws, vocabulary));
      const Array back = DecodeSampled(labels, 3, draws, vocabulary).value();
      EXPECT_EQ(back.ids, drawn.ids);
      EXPECT_EQ(back.counts, drawn.counts);
    }
  }
}

TEST(SampledTest, AFewDozenBytesHoldADrawOf64) {
  Array drawn{{3.0f}, 1, {}, {}, {0, 48}};
  for (int32_t i = 0; i < 48; ++i) drawn.ids.push_back(i * i * 13), drawn.counts.push_back(i < 16 ? 2 : 1);
  EXPECT_LE(EncodeSampled(drawn, 1, 64, 30'000)->packed().size(), 80);
}

TEST(SampledTest, Refuses) {
  struct Case {
    Array drawn;
    std::string message;
  };
  for (const Case& c : {Case{{{1}, 1, {1, 1}, {1, 1}, {0, 2}}, "row 0: id 1 comes 1 times after 1"},
                        Case{{{1}, 1, {1, 9}, {1, 1}, {0, 2}}, "row 0: id 9 comes 1 times after 1"},
                        Case{{{1}, 1, {1, 2}, {2, 0}, {0, 2}}, "row 0: id 2 comes 0 times"},
                        Case{{{1}, 1, {1, 2}, {2, 1}, {0, 2}}, "row 0: its counts add up to 3, not to 2 draws"},
                        Case{{{1}, 1, {}, {}, {0, 0}}, "row 0: its counts add up to 0"},
                        Case{{{-1}, 1, {1}, {2}, {0, 1}}, "row 0: the entropy -1 is none"},
                        Case{{{kNan}, 1, {1}, {2}, {0, 1}}, "row 0: the entropy nan is none"},
                        Case{{{1}, 1, {1}, {2}, {0}}, "are not 1 rows"}}) {
    EXPECT_THAT(EncodeSampled(c.drawn, 1, 2, 9).status().ToString(), HasSubstr(c.message));
  }
  const v1::SoftLabels good =
      EncodeSampled({{1.5f, 0.0f}, 1, {5, 6, 300, 70'000, 9}, {1, 3, 40, 20, 64}, {0, 4, 5}}, 2, 64, 100'000).value();
  const std::pair<std::function<void(v1::SoftLabels&)>, std::string> spoilt[] = {
      {[](v1::SoftLabels& l) { l.set_row_bytes(0, 15), l.set_row_bytes(1, 8); }, "row 0: ends with 20 draws to come"},
      {[](v1::SoftLabels& l) { l.set_row_bytes(0, 17), l.set_row_bytes(1, 6); },
       "row 0: has more bytes than its draws"},
      {[](v1::SoftLabels& l) { l.set_row_bytes(0, 4); }, "row 0: has 4 bytes, less than a row"},
      {[](v1::SoftLabels& l) { l.set_row_bytes(1, 8); }, "row 1: has 8 bytes, but 7 are left"},
      {[](v1::SoftLabels& l) { l.mutable_packed()->push_back('\0'); }, "1 bytes come after the last row"},
      {[](v1::SoftLabels& l) { l.add_row_bytes(0); }, "expected 2 rows of sampled, got 3"},
      {[](v1::SoftLabels& l) { (*l.mutable_packed())[3] = '\x7f', (*l.mutable_packed())[2] = '\xc0'; },
       "row 0: the entropy nan"},
      {[](v1::SoftLabels& l) { (*l.mutable_packed())[4] = 0x1f; }, "row 0: the Rice parameter 31 is none"},
      {[](v1::SoftLabels& l) { (*l.mutable_packed())[5 + 16] = '\xff'; }, "row 1: "},
      {[](v1::SoftLabels& l) { l.set_codec(v1::CODEC_TOP_K); }, "CODEC_TOP_K"},
  };
  for (const auto& [spoil, message] : spoilt) {
    v1::SoftLabels labels = good;
    spoil(labels);
    EXPECT_THAT(DecodeSampled(labels, 2, 64, 100'000).status().ToString(), HasSubstr(message));
  }
  EXPECT_THAT(DecodeSampled(good, 2, 64, 70'000).status().ToString(), HasSubstr("row 0: id 70000 comes 20 times"));
  EXPECT_THAT(DecodeSampled(good, 2, 63, 100'000).status().ToString(), HasSubstr("row 0: id 70000 comes 20 times"));
}

TEST(PlainTest, GoldenBytesAndRefusals) {
  const v1::SoftLabels scores = EncodeScores({{-1, -0.5f, -2}, 0, {}, {}, {0, 1, 3}}).value();
  EXPECT_EQ(Hex(scores), "000080bf000000bf000000c0");
  EXPECT_THAT(DecodeScores(scores, {1, 2})->offsets, ElementsAre(0, 1, 3));
  EXPECT_THAT(DecodeScores(scores, {2, 2}).status().ToString(), HasSubstr("expected 16 bytes of CODEC_SCORES, got 12"));
  EXPECT_THAT(EncodeScores({{-1, 0.5f}, 0, {}, {}, {0, 1, 2}}).status().ToString(), HasSubstr("row 1: score 0 is 0.5"));
  const v1::SoftLabels classes = EncodeClasses({{}, 0, {3, 70'000}}, 70'001).value();
  EXPECT_EQ(Hex(classes), "0300000070110100");
  EXPECT_THAT(DecodeClasses(classes, 2, 70'001)->ids, ElementsAre(3, 70'000));
  EXPECT_THAT(DecodeClasses(classes, 2, 70'000).status().ToString(), HasSubstr("row 1: class 70000 is not below"));
  EXPECT_FALSE(DecodeClasses(classes, 3, 70'001).ok());
}

// An answer about two records of one and two rows, by every codec: what it holds comes back, its parts are what Append
// makes it of, and its bytes are those that were foretold.
TEST(DecodeTest, EveryCodecIsCutAndPutTogether) {
  const Output output{"logits", 6, true, 2};
  std::vector<v1::LabelInput> inputs(2);
  inputs[0].mutable_ids()->add_ids(1);
  for (int id : {1, 2}) inputs[1].mutable_ids()->add_ids(id);
  for (int id : {0, 5}) inputs[0].add_score_ids(id);
  for (int id : {0, 5}) inputs[1].add_score_ids(id);
  std::vector<float> logits(18);
  for (int i = 0; i < 18; ++i) logits[i] = 0.25f * static_cast<float>(i % 7);
  const std::map<v1::Codec, Array> arrays = {
      {v1::CODEC_DENSE_FP32, {logits, 6}},
      {v1::CODEC_DENSE_FP16, {logits, 6}},
      {v1::CODEC_DENSE_BF16, {logits, 6}},
      {v1::CODEC_DENSE_INT8, {logits, 6}},
      {v1::CODEC_HIDDEN_HEAD, {{1, 2, 3, 4, 5, 6}, 2}},
      {v1::CODEC_TOP_K, {{-1, -2, -1, -2, -1, -2}, 2, {0, 4, 5}}},
      {v1::CODEC_SAMPLED, {{1, 0, 2}, 1, {1, 3, 4, 0, 5}, {2, 2, 4, 1, 3}, {0, 2, 3, 5}}},
      {v1::CODEC_SCORES, {{-1, -2, -3, -4}, 0, {}, {}, {0, 2, 3, 4}}},
      {v1::CODEC_CLASSES, {{}, 0, {5, 0, 3}}},
  };
  for (const auto& [codec, array] : arrays) {
    SCOPED_TRACE(CodecName(codec));
    v1::LabelSpec spec;
    spec.set_codec(codec);
    spec.set_k(1);
    spec.set_draws(4);
    std::vector<RecordSize> sizes;
    int64_t bytes = 0;
    for (const auto& input : inputs) {
      sizes.push_back(SizeOf(spec, output, input));
      bytes += BytesOf(spec, {output}, input);
    }
    const v1::SoftLabels labels = Encode(array, spec, output, 3).value();
    const auto size = static_cast<int64_t>(labels.dense().data().size() + labels.packed().size());
    EXPECT_LE(size, bytes);
    if (codec != v1::CODEC_SAMPLED) {
      EXPECT_EQ(size, bytes);
    }
    const auto parts = Cut(labels, sizes).value();
    v1::SoftLabels joined;
    Array rows;
    for (size_t i = 0; i < 2; ++i) {
      ASSERT_TRUE(Append(parts[i], &joined).ok());
      Append(Decode(parts[i], spec, output, {sizes[i]}).value(), &rows);
    }
    EXPECT_EQ(joined.SerializeAsString(), labels.SerializeAsString());
    const Array back = Decode(labels, spec, output, sizes).value();
    EXPECT_EQ(rows.numbers, back.numbers);
    EXPECT_EQ(rows.offsets, back.offsets);
    EXPECT_EQ(back.ids, array.ids);
    EXPECT_EQ(rows.ids, array.ids);
    EXPECT_EQ(rows.counts, array.counts);
    EXPECT_EQ(back.offsets, array.offsets);
    EXPECT_EQ(back.width, array.width);
    for (size_t i = 0; i < array.numbers.size(); ++i) EXPECT_NEAR(back.numbers[i], array.numbers[i], 0.01);
    sizes[1].rows = 3, sizes[1].bytes += 1;
    EXPECT_FALSE(Cut(labels, sizes).ok());
    EXPECT_FALSE(Decode(labels, spec, output, sizes).ok());
    spec.set_codec(codec == v1::CODEC_CLASSES ? v1::CODEC_SCORES : v1::CODEC_CLASSES);
    EXPECT_THAT(Decode(labels, spec, output, sizes).status().ToString(), HasSubstr("asked for"));
  }
}

TEST(DecodeTest, LabelsOfOtherDimensionsAreNotCut) {
  v1::SoftLabels labels;
  labels.set_codec(v1::CODEC_DENSE_FP32);
  labels.mutable_dense()->set_data("01234567");
  EXPECT_THAT(Cut(labels, {{1, 4}, {1, 4}}).status().ToString(), HasSubstr("labels of 0 dimensions"));
  labels.mutable_dense()->add_shape(2);
  v1::SoftLabels all = labels;
  EXPECT_FALSE(Append(labels, &all).ok());
}

TEST(DecodeTest, NoRowsAreAnAnswerToo) {
  const Output output{"logits", 6, true, 2};
  for (int codec = v1::CODEC_DENSE_FP32; codec <= v1::CODEC_CLASSES; ++codec) {
    v1::LabelSpec spec;
    spec.set_codec(static_cast<v1::Codec>(codec));
    spec.set_k(2);
    spec.set_draws(4);
    Array nothing;
    nothing.offsets = {0};
    const v1::SoftLabels labels = Encode(nothing, spec, output, 0).value();
    const auto back = Decode(labels, spec, output, {});
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_TRUE(back->numbers.empty() && back->ids.empty());
  }
}

}  // namespace
}  // namespace polystill::soft_labels
