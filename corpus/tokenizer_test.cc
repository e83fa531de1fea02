#include "corpus/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "corpus/test_corpus.h"
#include "runtime/counter_rng.h"

namespace polystill::corpus {
namespace {

using testing::Each;
using testing::HasSubstr;

// Sentences out of made-up words in three scripts.
std::string Sentence(uint64_t number) {
  constexpr const char* kSyllables[] = {"ba",           "ke",           "lo",     "mi",     "tu",
                                        "\u0434\u0430", "\u043d\u0435", "\u306b", "\u3092", "\u8a9e"};
  std::string text;
  for (uint64_t word = 0; word < 12; ++word) {
    const uint64_t bits = CombineKey(number, word) % 300;
    for (uint64_t i = 0; i < 2 + bits % 3; ++i) text += kSyllables[Mix64(bits * 5 + i) % 10];
    text += " ";
  }
  return text;
}

class TokenizerTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string lines;
    for (int i = 0; i < 600; ++i) {
      absl::StrAppend(&lines, R"({"id":")", i, R"(","language":"de","split":")", i < 500 ? "train" : "test",
                      R"(","text":")", Sentence(i), R"(","source_text":")", Sentence(i + 10'000), "\"}\n");
    }
    corpus_.WriteFile("a.jsonl", lines);
    selection_ = corpus_.Selection();
    (*selection_.mutable_where())["split"] = "train";
    spec_.set_kind(v1::Tokenizer::KIND_SENTENCEPIECE);
    spec_.set_vocab_size(350);
    spec_.set_training_sentences(1000);
  }

  absl::Status Train(const std::string& folder, uint64_t seed = 1, bool with_mask = false) {
    return TrainTokenizer(spec_, {selection_}, seed, with_mask, corpus_.PathOf(folder),
                          [&](int64_t done, int64_t total) {
                            EXPECT_GE(done, done_);
                            EXPECT_LE(done, total);
                            done_ = done;
                            total_ = total;
                          });
  }

  const TestCorpus corpus_;
  v1::Selection selection_;
  v1::Tokenizer spec_;
  int64_t done_ = 0;
  int64_t total_ = 0;
};

TEST_F(TokenizerTest, TrainsTheSameModelTwice) {
  ASSERT_EQ(Train("one"), absl::OkStatus());
  EXPECT_GT(total_, 0);
  EXPECT_EQ(done_, total_);
  done_ = 0;
  ASSERT_EQ(Train("two"), absl::OkStatus());
  EXPECT_EQ(corpus_.ReadFile("one/tokenizer.model"), corpus_.ReadFile("two/tokenizer.model"));
  EXPECT_GT(corpus_.ReadFile("one/tokenizer.model").size(), 1000u);
}

TEST_F(TokenizerTest, TheSampleFollowsTheSeed) {
  spec_.set_training_sentences(200);
  ASSERT_EQ(Train("one", 1), absl::OkStatus());
  done_ = 0;
  ASSERT_EQ(Train("two", 2), absl::OkStatus());
  EXPECT_NE(corpus_.ReadFile("one/tokenizer.model"), corpus_.ReadFile("two/tokenizer.model"));
}

// A model over the other side, or over the other records, is another model: so the selection is obeyed.
TEST_F(TokenizerTest, TrainsOnWhatTheSelectionReads) {
  ASSERT_EQ(Train("text"), absl::OkStatus());
  selection_.set_reads_source_text(true);
  done_ = 0;
  ASSERT_EQ(Train("both"), absl::OkStatus());
  selection_.set_reads_text(false);
  done_ = 0;
  ASSERT_EQ(Train("source"), absl::OkStatus());
  EXPECT_NE(corpus_.ReadFile("text/tokenizer.model"), corpus_.ReadFile("both/tokenizer.model"));
  EXPECT_NE(corpus_.ReadFile("source/tokenizer.model"), corpus_.ReadFile("both/tokenizer.model"));
}

TEST_F(TokenizerTest, EncodesEveryText) {
  ASSERT_EQ(Train("model"), absl::OkStatus());
  const auto tokenizer = Tokenizer::Load(corpus_.PathOf("model/tokenizer.model"), 20).value();
  EXPECT_EQ(tokenizer->vocab_size(), 350);
  EXPECT_EQ(tokenizer->max_length(), 20);
  for (const char* text : {"bake lomi", "\u0434\u0430\u043d\u0435", "never seen: \u0e44\u0e17\u0e22 \U0001f600", "x"}) {
    const std::vector<int32_t> ids = tokenizer->Encode(text);
    EXPECT_FALSE(ids.empty());
    EXPECT_THAT(ids, Each(testing::AllOf(testing::Gt(0), testing::Lt(350)))) << text;
    EXPECT_EQ(ids, tokenizer->Encode(text));
  }
  EXPECT_THAT(tokenizer->Encode(""), testing::ElementsAre(0));
  EXPECT_THAT(tokenizer->Encode("  \n"), testing::ElementsAre(0));
  const std::vector<int32_t> cut = tokenizer->Encode(Sentence(1) + Sentence(2) + Sentence(3));
  EXPECT_EQ(cut.size(), 20u);
  const auto longer = Tokenizer::Load(corpus_.PathOf("model/tokenizer.model"), 1000).value();
  std::vector<int32_t> whole = longer->Encode(Sentence(1) + Sentence(2) + Sentence(3));
  ASSERT_GT(whole.size(), 20u);
  whole.resize(20);
  EXPECT_EQ(cut, whole);
}

TEST_F(TokenizerTest, EncodesEachWordByItself) {
  ASSERT_EQ(Train("model"), absl::OkStatus());
  const auto tokenizer = Tokenizer::Load(corpus_.PathOf("model/tokenizer.model"), 20).value();
  const std::vector<std::string> words = {"bake", "lomi bake", "", "never seen", "\u0434\u0430\u043d\u0435"};
  const Tokenizer::Words encoded = tokenizer->EncodeWords(words);
  std::vector<int32_t> ids, firsts;
  for (const std::string& word : words) {
    if (ids.size() < 20) firsts.push_back(static_cast<int32_t>(ids.size()));
    for (const int32_t id : tokenizer->Encode(word)) ids.push_back(id);
  }
  ids.resize(std::min<size_t>(ids.size(), 20));
  EXPECT_EQ(encoded.ids, ids);
  EXPECT_EQ(encoded.firsts, firsts);

  const auto shorter = Tokenizer::Load(corpus_.PathOf("model/tokenizer.model"), 2).value();
  const Tokenizer::Words cut = shorter->EncodeWords({words[4], words[0], words[1]});
  ids = shorter->Encode(words[4]);
  EXPECT_EQ(cut.ids.size(), 2u);
  EXPECT_EQ(cut.firsts.size(), ids.size() < 2 ? 2u : 1u);
}

TEST_F(TokenizerTest, AnIdStandsForTheMaskAndNoTextGivesIt) {
  ASSERT_EQ(Train("plain"), absl::OkStatus());
  done_ = 0;
  ASSERT_EQ(Train("mask", 1, /*with_mask=*/true), absl::OkStatus());
  const auto plain = Tokenizer::Load(corpus_.PathOf("plain/tokenizer.model"), 20).value();
  EXPECT_EQ(plain->MaskId().status().code(), absl::StatusCode::kFailedPrecondition);
  const auto tokenizer = Tokenizer::Load(corpus_.PathOf("mask/tokenizer.model"), 20).value();
  EXPECT_EQ(tokenizer->vocab_size(), 350);
  ASSERT_EQ(tokenizer->MaskId().value(), 1);
  EXPECT_EQ(tokenizer->PieceOf(1), "<mask>");
  EXPECT_THAT(tokenizer->Encode("bake <mask> lomi"), Each(testing::Ne(1)));
}

TEST_F(TokenizerTest, SaysWhichSizeWouldDo) {
  spec_.set_vocab_size(20'000);
  const absl::Status large = Train("model");
  EXPECT_EQ(large.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(large.message()), HasSubstr("of 20000 token ids; set tokenizer.vocab_size to "));
  int most = 0;
  ASSERT_EQ(std::sscanf(std::string(large.message()).c_str(), "training the tokeniser: the texts yield only %d", &most),
            1);
  done_ = 0;
  spec_.set_vocab_size(most);
  EXPECT_EQ(Train("model"), absl::OkStatus());
  done_ = 0;
  spec_.set_vocab_size(100);
  const absl::Status small = Train("model");
  EXPECT_EQ(small.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(small.message()), HasSubstr("; set tokenizer.vocab_size to that or more, not 100"));
}

TEST_F(TokenizerTest, NeedsText) {
  corpus_.WriteFile("a.jsonl", R"({"id":"1","language":"de","split":"train","text":" \u3000"})");
  EXPECT_EQ(Train("model").code(), absl::StatusCode::kInvalidArgument);
  (*selection_.mutable_where())["split"] = "dev";
  EXPECT_THAT(std::string(Train("model").message()), HasSubstr("there is no text"));
  spec_.set_kind(v1::Tokenizer::KIND_IDS);
  EXPECT_THAT(std::string(Train("model").message()), HasSubstr("tokenizer.kind is ids"));
}

TEST_F(TokenizerTest, LoadRefusesOtherFiles) {
  EXPECT_EQ(Tokenizer::Load(corpus_.PathOf("none"), 10).status().code(), absl::StatusCode::kNotFound);
  const absl::Status status = Tokenizer::Load(corpus_.PathOf("a.jsonl"), 10).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("a.jsonl: is not a whole JSON object"));
  corpus_.WriteFile("b", "some text");
  EXPECT_THAT(std::string(Tokenizer::Load(corpus_.PathOf("b"), 10).status().message()),
              HasSubstr("b: not a SentencePiece model"));
}

}  // namespace
}  // namespace polystill::corpus
