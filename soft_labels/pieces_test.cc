#include "soft_labels/pieces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "soft_labels/decode.h"

namespace polystill::soft_labels {
namespace {

using testing::ElementsAre;

v1::LabelInput Ids(int count) {
  v1::LabelInput input;
  input.mutable_ids()->mutable_ids()->Resize(count, 1);
  return input;
}

v1::LabelInput Text(int bytes) {
  v1::LabelInput input;
  input.set_text(std::string(bytes, 'x'));
  return input;
}

TEST(PiecesTest, TokensOfAnInput) {
  struct Case {
    v1::LabelInput input;
    int64_t max_length;
    int64_t tokens;
  };
  const Case cases[] = {
      {Ids(1), 10, 1},  {Ids(7), 10, 7},    {Ids(0), 10, 1},    {Text(0), 10, 1},      {Text(4), 10, 1},
      {Text(5), 10, 2}, {Text(40), 10, 10}, {Text(41), 10, 10}, {Text(1 << 20), 0, 1},
  };
  for (const Case& c : cases) EXPECT_EQ(TokensOf(c.input, c.max_length), c.tokens) << c.input.ShortDebugString();
}

std::shared_ptr<Call> CallFor(v1::Codec codec, Output output) {
  auto call = std::make_shared<Call>();
  call->spec.set_codec(codec);
  call->spec.add_outputs(output.name);
  if (codec == v1::CODEC_TOP_K) call->spec.set_k(2);
  if (codec == v1::CODEC_SAMPLED) call->spec.set_draws(4);
  call->outputs = {std::move(output)};
  return call;
}

TEST(PiecesTest, InputsAreDividedByHome) {
  const auto call = CallFor(v1::CODEC_DENSE_FP32, {.name = "logits", .width = 2});
  std::vector<v1::LabelInput> inputs(8);
  for (int i = 0; i < 8; ++i) inputs[i].set_id(std::to_string(i));
  const std::vector<Piece> pieces = SplitCall(call, inputs, 2, {0, 1, 0, 0, 1, 0, 0, 1});
  std::vector<std::string> ids;
  std::vector<int> homes;
  for (const Piece& piece : pieces) {
    EXPECT_EQ(piece.place, ids.size());
    ids.emplace_back();
    for (const v1::LabelInput& input : piece.inputs) ids.back() += input.id();
    homes.push_back(piece.home);
  }
  EXPECT_THAT(ids, ElementsAre("02", "14", "35", "6", "7"));
  EXPECT_THAT(homes, ElementsAre(0, 1, 0, 0, 1));
  EXPECT_EQ(call->pieces_left, 5);
}

// What an answer about input `i` holds, which has `rows` rows.
Array AnswerTo(int i, int64_t rows, v1::Codec codec) {
  Array array;
  const auto number = [&](int64_t row) { return static_cast<float>(100 * i + row); };
  if (codec == v1::CODEC_SAMPLED || codec == v1::CODEC_SCORES) array.offsets = {0};
  for (int64_t row = 0; row < rows; ++row) {
    switch (codec) {
      case v1::CODEC_DENSE_FP32:
        array.width = 2;
        array.numbers.insert(array.numbers.end(), {number(row), -number(row)});
        break;
      case v1::CODEC_TOP_K:
        array.width = 3;
        array.numbers.insert(array.numbers.end(), {number(row), 1, 2});
        array.ids.insert(array.ids.end(), {i, static_cast<int32_t>(row)});
        break;
      case v1::CODEC_SAMPLED:
        array.width = 1;
        array.numbers.push_back(number(row));
        for (int64_t k = 0; k <= (i + row) % 3; ++k) {
          array.ids.push_back(static_cast<int32_t>(number(row)));
          array.counts.push_back(static_cast<int32_t>(k));
        }
        array.offsets.push_back(static_cast<int64_t>(array.ids.size()));
        break;
      case v1::CODEC_SCORES:
        for (int k = 0; k <= i % 3; ++k) array.numbers.push_back(number(row) + 0.1f * k);
        array.offsets.push_back(static_cast<int64_t>(array.numbers.size()));
        break;
      default:
        array.ids.push_back(static_cast<int32_t>(number(row)));
    }
  }
  return array;
}

void ExpectEqual(const Array& a, const Array& b) {
  EXPECT_EQ(a.numbers, b.numbers);
  EXPECT_EQ(a.width, b.width);
  EXPECT_EQ(a.ids, b.ids);
  EXPECT_EQ(a.counts, b.counts);
  EXPECT_EQ(a.offsets, b.offsets);
}

// However inputs are divided, the answer is that of the undivided call.
TEST(PiecesTest, DividedAnswersComeInTheOrderOfTheInputs) {
  std::mt19937 random(3);
  for (const v1::Codec codec :
       {v1::CODEC_DENSE_FP32, v1::CODEC_TOP_K, v1::CODEC_SAMPLED, v1::CODEC_SCORES, v1::CODEC_CLASSES}) {
    for (int round = 0; round < 50; ++round) {
      SCOPED_TRACE(testing::Message() << codec << ' ' << round);
      const auto call = CallFor(codec, {.name = "logits", .width = 50, .of_tokens = true});
      std::vector<v1::LabelInput> inputs;
      std::vector<int> homes;
      Array expected;
      for (int i = 0; i < 1 + static_cast<int>(random() % 20); ++i) {
        inputs.push_back(Ids(1 + random() % 4));
        inputs.back().set_id(std::to_string(i));
        homes.push_back(random() % 3);
        Append(AnswerTo(i, inputs.back().ids().ids_size(), codec), &expected);
      }
      for (const Piece& piece : SplitCall(call, inputs, 1 + random() % 5, homes)) {
        Array answer;
        for (const v1::LabelInput& input : piece.inputs) {
          Append(AnswerTo(std::stoi(input.id()), input.ids().ids_size(), codec), &answer);
        }
        call->answers[piece.place] = {answer};
      }
      const LabelClient::Labels labels = call->TakeLabels();
      ASSERT_EQ(labels.outputs.size(), 1u);
      ExpectEqual(labels.outputs[0], expected);
    }
  }
}

}  // namespace
}  // namespace polystill::soft_labels
