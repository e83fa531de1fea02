#include "soft_labels/client_loop.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "runtime/utf8.h"
#include "soft_labels/decode.h"
#include "soft_labels/outputs.h"

namespace polystill::soft_labels {
namespace {

Router::Options RouterOptions(const LabelClient::Options& options) {
  constexpr int64_t kYear = int64_t{365} * 24 * 3600 * 1000;
  return {.give_up_after_ms = options.waits_for_replicas ? 100 * kYear : options.give_up_after_ms,
          .request_timeout_ms = options.request_timeout_ms,
          .backoff = options.backoff,
          .window = options.window,
          .hedging = options.hedging};
}

// Whether every input's answer fits a message.
absl::Status CheckAnswers(const Call& call, const std::vector<v1::LabelInput>& inputs) {
  for (const v1::LabelInput& input : inputs) {
    const int64_t bytes = BytesOf(call.spec, call.outputs, input);
    RETURN_IF_ERROR(Annotate(CheckAnswerBytes(bytes, kMaxMessageBytes), absl::StrCat("record '", input.id(), "'")));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t SteadyMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void Inbox::Put(Message message) {
  MutexLock lock(&mutex_);
  messages_.push_back(std::move(message));
  came_.NotifyOne();
}

std::deque<Inbox::Message> Inbox::Take(int64_t wait_ms) {
  MutexLock lock(&mutex_);
  if (wait_ms == Router::kNever) {
    while (messages_.empty()) came_.Wait(&mutex_);
  } else if (messages_.empty()) {
    came_.WaitFor(&mutex_, std::chrono::milliseconds(wait_ms));
  }
  return std::exchange(messages_, {});
}

ClientLoop::ClientLoop(std::vector<std::string> addresses, LabelClient::Options options)
    : options_(std::move(options)),
      roster_(absl::StrCat(options_.tenant, "/", options_.client), {}),
      router_({}, RouterOptions(options_)) {
  if (options_.parity_tolerance.has_value()) {
    jury_ = std::make_unique<ParityJury>(0, *options_.parity_tolerance, options_.parity_patience_ms);
  }
  roster_.Set({std::move(addresses), options_.server_ids});
  UseRoster();
  thread_ = std::thread([this] { Run(); });
}

ClientLoop::~ClientLoop() {
  inbox_->Put(StopLoop{});
  thread_.join();
}

void ClientLoop::Run() {
  while (!stopping_ || !AllStreamsGone()) {
    int64_t wait_ms = Router::kNever;
    if (!stopping_) {
      if (jury_ != nullptr) Judge();
      const int64_t now_ms = SteadyMs();
      const Router::Actions actions = router_.Step(now_ms);
      Act(actions);
      has_replica_ = !router_.Askable(now_ms).empty();
      const ReplicaRoster::Actions names = roster_.Step(now_ms, has_replica_);
      LookUpNames(names);
      int64_t next_ms = std::min(actions.next_ms, names.next_ms);
      if (jury_ != nullptr) next_ms = std::min(next_ms, jury_->next_ms());
      if (next_ms != Router::kNever) wait_ms = std::max<int64_t>(0, next_ms - now_ms);
      NoteCounts();
    }
    for (Inbox::Message& message : inbox_->Take(wait_ms)) {
      std::visit([this](auto& m) { Handle(m); }, message);
    }
  }
  // Those who ask again when they are told that the client is being closed.
  for (Inbox::Message& message : inbox_->Take(0)) std::visit([this](auto& m) { Handle(m); }, message);
}

void ClientLoop::NoteCounts() {
  const Router::Counts& counts = router_.counts();
  MutexLock lock(&mutex_);
  counts_.requests = counts.requests;
  counts_.hedges = counts.hedges;
  counts_.hedge_wins = counts.hedge_wins;
  counts_.retries = counts.retries;
}

LabelClient::Counts ClientLoop::counts() {
  MutexLock lock(&mutex_);
  return counts_;
}

void ClientLoop::Act(const Router::Actions& actions) {
  for (const int i : actions.connect) {
    Replica& replica = replicas_[i];
    replica.opened = false;
    replica.stream =
        std::make_unique<ReplicaStream>(replica.channel, options_.client, options_.tenant,
                                        [inbox = inbox_](StreamEvent event) { inbox->Put(std::move(event)); });
  }
  for (const int i : actions.disconnect) {
    replicas_[i].stream->Cancel(absl::DeadlineExceededError("did not describe itself, or answer the canary, in time"));
  }
  for (const Router::Cancel& cancel : actions.cancel) {
    v1::LabelStreamRequest message;
    message.mutable_cancel()->set_request_id(cancel.request_id);
    if (replicas_[cancel.replica].stream != nullptr) replicas_[cancel.replica].stream->Send(std::move(message));
  }
  for (const Router::Send& send : actions.send) {
    const std::shared_ptr<const Piece>& asked = pieces_.at(send.piece);
    const Piece& piece = *asked;
    v1::LabelStreamRequest message;
    v1::LabelRequest& request = *message.mutable_request();
    request.set_protocol_version(kProtocolVersion);
    request.set_request_id(send.request_id);
    request.set_priority(options_.priority);
    request.set_compression(options_.compression);
    request.set_timeout_ms(options_.request_timeout_ms);
    *request.mutable_spec() = piece.call->spec;
    request.mutable_inputs()->Add(piece.inputs.begin(), piece.inputs.end());
    replicas_[send.replica].stream->Ask(std::move(message), asked);
  }
  for (const Router::Failure& failure : actions.fail) EndPiece(failure.piece, failure.status);
}

void ClientLoop::Handle(Question& question) {
  if (stopping_) return question.callback(absl::CancelledError("the label client is being closed"));
  if (question.inputs.empty()) return question.callback(absl::InvalidArgumentError("no records to label"));
  if (router_.waiting_records() + static_cast<int64_t>(question.inputs.size()) > options_.max_waiting_records) {
    return question.callback(absl::ResourceExhaustedError(
        absl::StrCat("more than ", options_.max_waiting_records, " records wait for the teacher; ask for less ahead")));
  }
  auto call = std::make_shared<Call>();
  call->spec = std::move(question.spec);
  if (call->spec.outputs().empty()) call->spec.add_outputs(kLogits);
  if (call->spec.codec() == v1::CODEC_UNSPECIFIED) call->spec.set_codec(v1::CODEC_DENSE_FP32);
  if (call->spec.teacher_digest().empty()) call->spec.set_teacher_digest(description_.digest());
  call->callback = std::move(question.callback);
  call->keeps_encoded = options_.keeps_encoded;
  absl::StatusOr<Outputs> outputs = OutputsOf(call->spec, description_);
  if (!outputs.ok()) return call->callback(outputs.status());
  call->outputs = *std::move(outputs);
  const absl::Status spec = CheckSpec(call->spec, call->outputs, description_.signature().task());
  if (!spec.ok()) return call->callback(spec);
  if (const absl::Status fits = CheckAnswers(*call, question.inputs); !fits.ok()) return call->callback(fits);
  const int64_t records = std::min(description_.max_records_per_request(), description_.stream_credits());
  const int64_t now_ms = SteadyMs();
  const std::vector<int> homes = HomesOf(question.inputs, now_ms);
  for (Piece& piece : SplitCall(call, std::move(question.inputs), records, homes)) {
    Router::Work work{.records = static_cast<int64_t>(piece.inputs.size()), .home = piece.home};
    for (const v1::LabelInput& input : piece.inputs) {
      work.tokens += TokensOf(input, description_.signature().max_length());
    }
    router_.Add(next_piece_, work, now_ms);
    pieces_[next_piece_++] = std::make_shared<const Piece>(std::move(piece));
  }
}

void ClientLoop::Handle(StreamEvent& event) {
  event.stream->Handle(event);
  int i = 0;
  while (replicas_[i].stream.get() != event.stream) ++i;
  if (event.kind == StreamEvent::Kind::kDone) return HandleDone(i, event.status);
  if (event.kind != StreamEvent::Kind::kRead) return;
  if (!event.stream->cancelled()) {
    const absl::Status status = event.status.ok() ? HandleMessage(i, std::move(*event.received)) : event.status;
    if (!status.ok()) event.stream->Cancel(status);
  }
  event.stream->TakenIn();  // also after Cancel: the stream ends when its reads have ended
}

absl::Status ClientLoop::HandleReply(int i, Received received) {
  const v1::LabelReply& reply = received.message.message.reply();
  const absl::Status status(static_cast<absl::StatusCode>(reply.code()), reply.message());
  uint64_t id = 0;
  switch (router_.Replied(i, reply.request_id(), status, reply.retry_after_ms(), SteadyMs(), &id)) {
    case Router::Verdict::kUnknown:
      return absl::DataLossError(
          absl::StrCat("answered request ", reply.request_id(), ", which was never asked or is answered already"));
    case Router::Verdict::kDeliver: {
      NoteCounts();  // whoever is called back may ask for them
      absl::StatusOr<PieceAnswer>& answer = *received.answer;
      const Piece& piece = *pieces_.at(id);
      if (answer.ok()) piece.call->Take(piece.place, *std::move(answer));
      EndPiece(id, Annotate(answer.status(), replicas_[i].address));
      break;
    }
    case Router::Verdict::kAgain:
    case Router::Verdict::kLate:
      break;
  }
  return absl::OkStatus();
}

void ClientLoop::EndPiece(uint64_t id, const absl::Status& status) {
  const auto found = pieces_.find(id);
  if (found == pieces_.end()) return;  // its call has failed already
  const std::shared_ptr<Call> call = found->second->call;
  pieces_.erase(found);
  if (status.ok()) {
    if (--call->pieces_left == 0) call->callback(call->TakeLabels());
    return;
  }
  std::erase_if(pieces_, [&](const auto& entry) {
    if (entry.second->call != call) return false;
    router_.Forget(entry.first);
    return true;
  });
  call->callback(status);
}

void ClientLoop::Handle(StopLoop&) {
  stopping_ = true;
  while (!pieces_.empty()) EndPiece(pieces_.begin()->first, absl::CancelledError("the label client is being closed"));
  for (Replica& replica : replicas_) {
    if (replica.stream != nullptr) replica.stream->Cancel(absl::CancelledError("the label client is being closed"));
  }
}

bool ClientLoop::AllStreamsGone() const {
  return std::all_of(replicas_.begin(), replicas_.end(), [](const Replica& r) { return r.stream == nullptr; });
}

}  // namespace polystill::soft_labels
