#include "teacher_server/cached_answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace polystill::teacher_server {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// Labels of this test: "OUTPUT(TEXT)", an answer's parts joined by commas.
std::string LabelOf(const std::string& output, const v1::LabelInput& input) {
  return absl::StrCat(output, "(", input.text(), ")");
}

AnswerParts Parts() {
  AnswerParts parts;
  parts.keys = [](const v1::LabelRequest& request) {
    std::vector<std::vector<std::string>> keys;
    for (const v1::LabelInput& input : request.inputs()) {
      keys.emplace_back();
      for (const std::string& output : request.spec().outputs()) {
        keys.back().push_back(LabelOf(output, input));
        keys.back().back().resize(LabelSegments::kKeyBytes, '.');
      }
    }
    return keys;
  };
  parts.cut = [](const v1::LabelRequest& request, const Answer& answer) -> absl::StatusOr<LabelParts> {
    LabelParts cut(static_cast<size_t>(request.inputs_size()));
    for (const v1::SoftLabels& of_output : answer) {
      const std::vector<std::string> labels = absl::StrSplit(of_output.dense().data(), ',');
      if (labels.size() != cut.size()) return absl::DataLossError("not a label for each record");
      for (size_t i = 0; i < cut.size(); ++i) cut[i].push_back(std::make_shared<const std::string>(labels[i]));
    }
    return cut;
  };
  parts.join = [](const v1::LabelRequest& request, const LabelParts& labels) -> absl::StatusOr<Answer> {
    Answer answer(static_cast<size_t>(request.spec().outputs_size()));
    for (size_t k = 0; k < answer.size(); ++k) {
      std::vector<std::string> of_output;
      for (const auto& of_record : labels) of_output.push_back(*of_record[k]);
      answer[k].mutable_dense()->set_data(absl::StrJoin(of_output, ","));
    }
    return answer;
  };
  return parts;
}

v1::LabelRequest Request(const std::string& texts, const std::string& outputs = "logits") {
  v1::LabelRequest request;
  for (const auto& output : absl::StrSplit(outputs, ' ')) request.mutable_spec()->add_outputs(std::string(output));
  for (const auto& text : absl::StrSplit(texts, ' ')) request.add_inputs()->set_text(std::string(text));
  return request;
}

Answer AnswerTo(const v1::LabelRequest& request) {
  Answer answer;
  for (const std::string& output : request.spec().outputs()) {
    std::vector<std::string> labels;
    for (const v1::LabelInput& input : request.inputs()) labels.push_back(LabelOf(output, input));
    answer.emplace_back().mutable_dense()->set_data(absl::StrJoin(labels, ","));
  }
  return answer;
}

// What an answer says: outputs separated by spaces, or the code.
std::string Text(const absl::StatusOr<Answer>& answer) {
  if (!answer.ok()) return absl::StatusCodeToString(answer.status().code());
  return absl::StrJoin(*answer, " ", [](std::string* out, const v1::SoftLabels& labels) {
    absl::StrAppend(out, labels.dense().data());
  });
}

class CachedAnswersTest : public testing::Test {
 protected:
  struct Computation {
    v1::LabelRequest request;
    CachedAnswers::Done done;

    std::string Texts() const {
      return absl::StrJoin(request.inputs(), " ",
                           [](std::string* out, const v1::LabelInput& input) { absl::StrAppend(out, input.text()); });
    }
  };

  void SetUp() override {
    folder_ = testing::TempDir() + "cached_answers-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    auto segments = LabelSegments::Open({.folder = folder_, .max_bytes = 16 << 20});
    ASSERT_TRUE(segments.ok()) << segments.status();
    cache_ = std::make_unique<LabelCache>(*std::move(segments), nullptr);
    answers_ = std::make_unique<CachedAnswers>(cache_.get(), Parts(),
                                               [this](v1::LabelRequest request, Requester, CachedAnswers::Done done) {
                                                 if (!refuses_.ok()) return refuses_;
                                                 computations_.push_back({std::move(request), std::move(done)});
                                                 return absl::OkStatus();
                                               });
  }
  void TearDown() override {
    for (const Computation& left : std::exchange(computations_, {})) left.done(absl::CancelledError("the test ends"));
    cache_.reset();
    fs::remove_all(folder_);
  }

  // Its answer goes to said_, as "WHO: ...".
  void Ask(const std::string& who, v1::LabelRequest request,
           std::shared_ptr<const std::atomic<bool>> cancelled = nullptr) {
    answers_->Ask(std::move(request), {.cancelled = std::move(cancelled)}, [this, who](absl::StatusOr<Answer> answer) {
      said_.push_back(absl::StrCat(who, ": ", Text(answer)));
    });
  }
  // What has been given to compute since, in words.
  std::vector<std::string> Computing() const {
    std::vector<std::string> texts;
    for (const Computation& one : computations_) texts.push_back(one.Texts());
    return texts;
  }
  // The oldest computation ends: well, or with this.
  void Compute(const absl::Status& status = absl::OkStatus()) {
    Computation one = std::move(computations_.front());
    computations_.erase(computations_.begin());
    one.done(status.ok() ? absl::StatusOr<Answer>(AnswerTo(one.request)) : status);
  }
  std::vector<std::string> Said() { return std::exchange(said_, {}); }

  std::string folder_;
  std::unique_ptr<LabelCache> cache_;
  std::unique_ptr<CachedAnswers> answers_;
  absl::Status refuses_;
  std::vector<Computation> computations_;
  std::vector<std::string> said_;
};

TEST_F(CachedAnswersTest, ComputesWhatIsMissingAlone) {
  Ask("a", Request("x y"));
  EXPECT_THAT(Computing(), ElementsAre("x y"));
  Compute();
  EXPECT_THAT(Said(), ElementsAre("a: logits(x),logits(y)"));
  Ask("b", Request("y z x"));
  EXPECT_THAT(Computing(), ElementsAre("z"));
  Compute();
  EXPECT_THAT(Said(), ElementsAre("b: logits(y),logits(z),logits(x)"));
  Ask("c", Request("x y z"));
  EXPECT_THAT(Computing(), IsEmpty());
  EXPECT_THAT(Said(), ElementsAre("c: logits(x),logits(y),logits(z)"));
}

TEST_F(CachedAnswersTest, OutputsAreCachedEachAlone) {
  Ask("a", Request("x", "logits"));
  Compute();
  Ask("b", Request("x y", "embedding logits"));
  EXPECT_THAT(Computing(), ElementsAre("x y"));  // x for its embedding
  Compute();
  Ask("c", Request("x", "embedding"));
  EXPECT_THAT(Computing(), IsEmpty());
  EXPECT_THAT(Said(),
              ElementsAre("a: logits(x)", "b: embedding(x),embedding(y) logits(x),logits(y)", "c: embedding(x)"));
}

TEST_F(CachedAnswersTest, RequestsThatOverlapShareTheWork) {
  Ask("a", Request("x y"));
  Ask("b", Request("y z"));
  Ask("c", Request("x y z"));
  EXPECT_THAT(Computing(), ElementsAre("x y", "z"));
  Compute();
  EXPECT_THAT(Said(), ElementsAre("a: logits(x),logits(y)"));
  Compute();
  EXPECT_THAT(Said(), testing::UnorderedElementsAre("b: logits(y),logits(z)", "c: logits(x),logits(y),logits(z)"));
}

TEST_F(CachedAnswersTest, ARecordThatIsAskedForTwiceInARequestIsComputedOnce) {
  Ask("a", Request("x x y x"));
  EXPECT_THAT(Computing(), ElementsAre("x y"));
  Compute();
  EXPECT_THAT(Said(), ElementsAre("a: logits(x),logits(x),logits(y),logits(x)"));
}

TEST_F(CachedAnswersTest, AnErrorIsOfThoseWhoAskedForItsRecord) {
  Ask("a", Request("x y"));
  Ask("b", Request("y z"));
  Compute(absl::InternalError("record 'x': a logit is not finite"));
  EXPECT_THAT(Said(), ElementsAre("a: INTERNAL"));
  EXPECT_THAT(Computing(), ElementsAre("z", "y"));  // b computes y by itself
  Compute();
  Compute();
  EXPECT_THAT(Said(), ElementsAre("b: logits(y),logits(z)"));
}

TEST_F(CachedAnswersTest, AnErrorGoesToAllAndIsNotKept) {
  Ask("a", Request("x"));
  Ask("b", Request("x z"));
  Compute(absl::InternalError("record 'x': a logit is not finite"));
  EXPECT_THAT(Said(), ElementsAre("a: INTERNAL", "b: INTERNAL"));
  Compute();  // b's z, which is kept although b has failed
  EXPECT_THAT(Said(), IsEmpty());
  Ask("c", Request("x z"));
  EXPECT_THAT(Computing(), ElementsAre("x"));
}

TEST_F(CachedAnswersTest, AnOverloadIsTold) {
  refuses_ = absl::ResourceExhaustedError("the queue is full");
  Ask("a", Request("x"));
  EXPECT_THAT(Said(), ElementsAre("a: RESOURCE_EXHAUSTED"));
  refuses_ = absl::OkStatus();
  Ask("a", Request("x"));
  Compute();
  EXPECT_THAT(Said(), ElementsAre("a: logits(x)"));
}

TEST_F(CachedAnswersTest, WhatOneGivesUpAnotherComputes) {
  Ask("a", Request("x y"));
  Ask("b", Request("y x w"));
  EXPECT_THAT(Computing(), ElementsAre("x y", "w"));
  Compute(absl::CancelledError("the caller is gone"));
  EXPECT_THAT(Said(), ElementsAre("a: CANCELLED"));
  EXPECT_THAT(Computing(), ElementsAre("w", "x", "y"));
  for (int i = 0; i < 3; ++i) Compute();
  EXPECT_THAT(Said(), ElementsAre("b: logits(y),logits(x),logits(w)"));
}

TEST_F(CachedAnswersTest, WhoHasFailedOrCancelledTakesNoLease) {
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  Ask("a", Request("x y"));
  Ask("b", Request("x bad"));
  Ask("c", Request("x"), cancelled);
  Ask("d", Request("x"));
  *cancelled = true;
  Computation first = std::move(computations_.front());
  computations_.erase(computations_.begin());
  Compute(absl::InternalError(""));  // b's
  first.done(absl::DeadlineExceededError(""));
  EXPECT_THAT(Said(), ElementsAre("b: INTERNAL", "a: DEADLINE_EXCEEDED", "c: CANCELLED"));
  EXPECT_THAT(Computing(), ElementsAre("x"));  // d's
  Compute();
  EXPECT_THAT(Said(), ElementsAre("d: logits(x)"));
}

TEST_F(CachedAnswersTest, AnAnswerThatCannotBeCutIsAnError) {
  Ask("a", Request("x y"));
  Computation one = std::move(computations_.front());
  computations_.clear();
  one.done(AnswerTo(Request("x")));
  EXPECT_THAT(Said(), ElementsAre("a: DATA_LOSS"));
  Ask("b", Request("x y"));
  EXPECT_THAT(Computing(), SizeIs(1));
}

}  // namespace
}  // namespace polystill::teacher_server
