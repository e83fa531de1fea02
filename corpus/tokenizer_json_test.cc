#include "corpus/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "corpus/test_corpus.h"
#include "corpus/tokenizer.h"

namespace polystill::corpus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Json = nlohmann::json;

// What is equal to HuggingFace's for every character is for tests/test_wordpiece.py to say; here is what a reader of
// the code wants to see.
Json SmallTokenizer() {
  Json vocabulary;
  int id = 0;
  for (const char* piece :
       {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "cafe", "!", "\u8a9e"}) {
    vocabulary[piece] = id++;
  }
  return {{"model",
           {{"type", "WordPiece"},
            {"unk_token", "[UNK]"},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 10},
            {"vocab", vocabulary}}},
          {"normalizer", {{"type", "BertNormalizer"}, {"strip_accents", nullptr}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"post_processor", {{"type", "BertProcessing"}, {"cls", {"[CLS]", 2}}, {"sep", {"[SEP]", 3}}}},
          {"added_tokens", {{{"id", 4}, {"content", "[MASK]"}, {"special", true}, {"normalized", false}}}}};
}

class TokenizerJsonTest : public testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<const Tokenizer>> Load(const Json& json, int max_length = 20) {
    corpus_.WriteFile("t", json.dump());
    return Tokenizer::Load(corpus_.PathOf("t"), max_length);
  }
  std::vector<int32_t> Encode(const Json& json, std::string_view text, int max_length = 20) {
    return Load(json, max_length).value()->Encode(text);
  }

  const TestCorpus corpus_;
};

TEST_F(TokenizerJsonTest, CutsWordsIntoTheLongestPieces) {
  const Json json = SmallTokenizer();
  EXPECT_THAT(Encode(json, "Unaffable CAF\u00c9!"), ElementsAre(2, 5, 6, 7, 8, 9, 3));
  EXPECT_THAT(Encode(json, "unaffabl un"), ElementsAre(2, 1, 5, 3));     // unknown as a whole
  EXPECT_THAT(Encode(json, "unaffaffaff un"), ElementsAre(2, 1, 5, 3));  // 11 characters
  EXPECT_THAT(Encode(json, "un\u8a9eun"), ElementsAre(2, 5, 10, 5, 3));  // an ideograph is a word
  EXPECT_THAT(Encode(json, "un[MASK]un [mask]"), ElementsAre(2, 5, 4, 5, 1, 1, 1, 3));
  EXPECT_THAT(Encode(json, ""), ElementsAre(2, 3));
  EXPECT_THAT(Encode(json, "un\xff\xc3 \xed\xa0\x80"), ElementsAre(2, 5, 3));  // no UTF-8
}

TEST_F(TokenizerJsonTest, WhatStandsAroundATextCountsAndStays) {
  const Json json = SmallTokenizer();
  EXPECT_THAT(Encode(json, "un un un", 4), ElementsAre(2, 5, 5, 3));
  const absl::Status status = Load(json, 2).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("puts 2 tokens around each text; a max_length of 2"));
  Json bare = json;
  bare["post_processor"] = nullptr;
  EXPECT_THAT(Encode(bare, "un un un", 2), ElementsAre(5, 5));
  EXPECT_THAT(Encode(bare, ""), ElementsAre(1));
}

TEST_F(TokenizerJsonTest, WordsAreFramedOnce) {
  const auto tokenizer = Load(SmallTokenizer(), 8).value();
  const Tokenizer::Words words = tokenizer->EncodeWords({"unaffable", "", "cafe!", "un"});
  EXPECT_THAT(words.ids, ElementsAre(2, 5, 6, 7, 1, 8, 9, 3));
  EXPECT_THAT(words.firsts, ElementsAre(1, 4, 5));  // the last does not fit
  EXPECT_EQ(tokenizer->MaskId().value(), 4);
  EXPECT_EQ(tokenizer->vocab_size(), 11);
  EXPECT_EQ(tokenizer->PieceOf(6), "##aff");
  EXPECT_THAT(tokenizer->Pieces("un!"), ElementsAre(5, 9));
}

TEST_F(TokenizerJsonTest, AddedTokensTakeWhiteSpaceAndKeepOutOfWords) {
  Json json = SmallTokenizer();
  json["added_tokens"] = {{{"id", 11}, {"content", "Net"}, {"single_word", true}, {"lstrip", true}, {"rstrip", true}},
                          {{"id", 12}, {"content", "<x>"}, {"normalized", false}}};
  EXPECT_THAT(Encode(json, "un NET un"), ElementsAre(2, 5, 11, 5, 3));
  EXPECT_THAT(Encode(json, "netun"), ElementsAre(2, 1, 3));
  EXPECT_THAT(Encode(json, "un<x>net"), ElementsAre(2, 5, 12, 11, 3));
  EXPECT_EQ(Load(json).value()->vocab_size(), 13);
}

TEST_F(TokenizerJsonTest, RefusesWhatItDoesNotHave) {
  const struct {
    const char* pointer;
    Json value;
    absl::StatusCode code;
    const char* message;
  } cases[] = {
      {"/model/type", "BPE", absl::StatusCode::kUnimplemented, "model: type 'BPE' is not built in"},
      {"/model/type", "Unigram", absl::StatusCode::kUnimplemented, "write an ids column with polystill-tokenize"},
      {"/normalizer/type", "NFC", absl::StatusCode::kUnimplemented, "normalizer: type 'NFC'"},
      {"/pre_tokenizer/type", "ByteLevel", absl::StatusCode::kUnimplemented, "pre_tokenizer: type 'ByteLevel'"},
      {"/pre_tokenizer", nullptr, absl::StatusCode::kUnimplemented, "pre_tokenizer: type ''"},
      {"/post_processor/type", "RobertaProcessing", absl::StatusCode::kUnimplemented, "post_processor"},
      {"/truncation", {{"direction", "Left"}}, absl::StatusCode::kUnimplemented, "truncation.direction"},
      {"/model", nullptr, absl::StatusCode::kDataLoss, "model: is missing"},
      {"/model/vocab/un", -1, absl::StatusCode::kDataLoss, "model.vocab: 'un': must be an integer in [0, 16777216)"},
      {"/model/vocab/un", 1e9, absl::StatusCode::kDataLoss, "model.vocab: 'un'"},
      {"/model/unk_token", "?", absl::StatusCode::kDataLoss, "model.unk_token: '?' is not in model.vocab"},
      {"/model/max_input_chars_per_word", "x", absl::StatusCode::kDataLoss, "model.max_input_chars_per_word"},
      {"/normalizer/lowercase", 1, absl::StatusCode::kDataLoss, "normalizer.lowercase: must be true or false"},
      {"/added_tokens/0/id", 7, absl::StatusCode::kDataLoss, "added_tokens.0.id: is 7, but '[MASK]' has the id 4"},
      {"/added_tokens/0/content", "", absl::StatusCode::kDataLoss, "added_tokens.0.content"},
      {"/added_tokens", 3, absl::StatusCode::kDataLoss, "added_tokens: must be a list"},
      {"/post_processor/cls", {"[CLS]", 99}, absl::StatusCode::kDataLoss, "id 99 stands for nothing"},
      {"/post_processor/sep", 3, absl::StatusCode::kDataLoss, "post_processor.sep"},
  };
  for (const auto& [pointer, value, code, message] : cases) {
    Json json = SmallTokenizer();
    json[Json::json_pointer(pointer)] = value;
    const absl::Status status = Load(json).status();
    EXPECT_EQ(status.code(), code) << pointer << " " << status;
    EXPECT_THAT(std::string(status.message()), testing::AllOf(HasSubstr("/t: "), HasSubstr(message)));
  }
}

// A damaged file gives an error or a tokeniser, never a crash.
TEST_F(TokenizerJsonTest, TornFilesDoNoHarm) {
  const std::string whole = SmallTokenizer().dump();
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_FALSE(ReadTokenizerJson(whole.substr(0, i)).ok()) << i;
    std::string changed = whole;
    changed[i] = changed[i] == '"' ? '1' : '"';
    if (const auto read = ReadTokenizerJson(changed); read.ok()) read->model->Encode("un\u8a9e cafe [MASK]");
  }
}

}  // namespace
}  // namespace polystill::corpus
