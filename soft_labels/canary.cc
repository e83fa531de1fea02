#include "soft_labels/canary.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/counter_rng.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "soft_labels/decode.h"
#include "soft_labels/outputs.h"
#include "soft_labels/pieces.h"

namespace polystill::soft_labels {
namespace {

// Tokens of the records; each is cut to the teacher's max_length.
constexpr int kLengths[] = {1, 5, 17};
// Logits of each record that are compared where they are too wide for a message.
constexpr int64_t kScores = 64;

v1::LabelInput CanaryInput(const v1::Signature& signature, int length) {
  v1::LabelInput input;
  input.set_id(absl::StrCat("canary-", length));
  const auto vocabulary = static_cast<uint64_t>(std::max(signature.vocab_size(), 1));
  for (int i = 0; i < std::clamp(signature.max_length(), 1, length); ++i) {
    input.mutable_ids()->add_ids(static_cast<int32_t>(CombineKey(length, i) % vocabulary));
  }
  if (models::GivesLogits(signature) && models::JudgesTokens(signature.task())) input.add_positions(0);
  return input;
}

// The outputs of which `input` alone fills no more than a piece.
Outputs OutputsThatFit(const v1::DescribeReply& teacher, const v1::LabelSpec& dense, const v1::LabelInput& input) {
  v1::LabelSpec all;
  if (models::GivesLogits(teacher.signature())) all.add_outputs(kLogits);
  for (const v1::Feature& feature : teacher.features()) all.add_outputs(feature.name());
  Outputs fit;
  int64_t bytes = 0;
  for (const Output& output : OutputsOf(all, teacher).value_or(Outputs())) {
    const int64_t more = BytesOf(dense, {output}, input);
    if (bytes + more > kMaxPieceBytes) continue;
    bytes += more;
    fit.push_back(output);
  }
  return fit;
}

double LargestDifference(const Array& a, const Array& b) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (a.numbers.size() != b.numbers.size() || a.width != b.width) return kInfinity;
  double most = 0;
  for (size_t i = 0; i < a.numbers.size(); ++i) {
    most = std::max(most, std::abs(double{a.numbers[i]} - double{b.numbers[i]}));
  }
  return most;
}

}  // namespace

v1::LabelRequest CanaryRequest(const v1::DescribeReply& teacher) {
  v1::LabelRequest request;
  request.set_protocol_version(kProtocolVersion);
  request.set_afresh(true);
  v1::LabelSpec& spec = *request.mutable_spec();
  spec.set_teacher_digest(teacher.digest());
  spec.set_codec(v1::CODEC_DENSE_FP32);
  int64_t bytes = 0;
  for (const int length : kLengths) {
    v1::LabelInput input = CanaryInput(teacher.signature(), length);
    const Outputs fit = OutputsThatFit(teacher, spec, input);
    if (request.inputs().empty()) {
      for (const Output& output : fit) spec.add_outputs(output.name);
    }
    const bool of_logits = spec.outputs().empty() || spec.outputs(0) == kLogits;
    if (!of_logits) input.clear_positions();
    bytes += BytesOf(spec, fit, input);
    const bool full = request.inputs_size() == teacher.max_records_per_request() || bytes > kMaxPieceBytes ||
                      static_cast<int>(fit.size()) < spec.outputs_size();
    if (!request.inputs().empty() && full) break;
    *request.add_inputs() = std::move(input);
  }
  if (!spec.outputs().empty()) return request;
  spec.add_outputs(kLogits);
  spec.set_codec(v1::CODEC_SCORES);
  const int64_t logits = models::LogitCount(teacher.signature().task(), teacher.signature().labels_size(),
                                            teacher.signature().vocab_size());
  request.mutable_inputs()->DeleteSubrange(1, request.inputs_size() - 1);
  for (int64_t i = 0; i < kScores; ++i) {
    request.mutable_inputs(0)->add_score_ids(static_cast<int32_t>(i * logits / kScores));
  }
  return request;
}

CanaryAnswer ReadCanary(const StreamReply& message, const v1::DescribeReply& teacher, const v1::LabelRequest& canary) {
  auto call = std::make_shared<Call>();
  call->spec = canary.spec();
  absl::StatusOr<Outputs> outputs = OutputsOf(canary.spec(), teacher);
  if (!outputs.ok()) return outputs.status();
  call->outputs = *std::move(outputs);
  const Piece piece{call, 0, {canary.inputs().begin(), canary.inputs().end()}};
  ASSIGN_OR_RETURN(PieceAnswer answer, ReadAnswer(message, piece));
  return std::move(answer.outputs);
}

double LargestDifference(const CanaryAnswer& a, const CanaryAnswer& b) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (!a.ok() || !b.ok()) return a.status().code() == b.status().code() ? 0 : kInfinity;
  if (a->size() != b->size()) return kInfinity;
  double most = 0;
  for (size_t i = 0; i < a->size(); ++i) most = std::max(most, LargestDifference((*a)[i], (*b)[i]));
  return most;
}

void ParityJury::Answered(int replica, CanaryAnswer answer, int64_t now_ms) {
  replicas_[replica] = {.heard = true, .answer = std::move(answer), .judged = false};
  if (!first_answer_ms_.has_value()) first_answer_ms_ = now_ms;
}

void ParityJury::Failed(int replica) { replicas_[replica] = {.heard = true, .answer = std::nullopt, .judged = false}; }

int ParityJury::Choose() const {
  const auto has_numbers = [](const Replica& r) { return r.answer.has_value() && r.answer->ok(); };
  const bool any_numbers = std::any_of(replicas_.begin(), replicas_.end(), has_numbers);
  int best = -1;
  int most = 0;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    if (!replicas_[i].answer.has_value() || (any_numbers && !has_numbers(replicas_[i]))) continue;
    int agree = 0;
    for (const Replica& other : replicas_) {
      if (!other.answer.has_value()) continue;
      agree += LargestDifference(*replicas_[i].answer, *other.answer) <= tolerance_ ? 1 : 0;
    }
    if (agree <= most) continue;
    most = agree;
    best = static_cast<int>(i);
  }
  return best;
}

std::vector<ParityJury::Verdict> ParityJury::Step(int64_t now_ms) {
  if (!truth_.has_value()) {
    const bool all = std::all_of(replicas_.begin(), replicas_.end(), [](const Replica& r) { return r.heard; });
    const bool late = first_answer_ms_.has_value() && *first_answer_ms_ + patience_ms_ <= now_ms;
    reference_ = all || late ? Choose() : -1;
    if (reference_ < 0) return {};
    truth_ = replicas_[reference_].answer;
  }
  std::vector<Verdict> verdicts;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    Replica& replica = replicas_[i];
    if (!replica.answer.has_value() || replica.judged) continue;
    replica.judged = true;
    const double difference = LargestDifference(*replica.answer, *truth_);
    verdicts.push_back({static_cast<int>(i), difference, difference <= tolerance_, reference_});
  }
  return verdicts;
}

int64_t ParityJury::next_ms() const {
  const auto has_answer = [](const Replica& replica) { return replica.answer.has_value(); };
  const bool any = std::any_of(replicas_.begin(), replicas_.end(), has_answer);
  if (truth_.has_value() || !first_answer_ms_.has_value() || !any) return Router::kNever;
  return *first_answer_ms_ + patience_ms_;
}

}  // namespace polystill::soft_labels
