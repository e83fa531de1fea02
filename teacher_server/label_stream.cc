#include "teacher_server/label_stream.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "runtime/utf8.h"
#include "teacher_server/validation.h"
#include "teacher_server/wire.h"

namespace polystill::teacher_server {

LabelStream::LabelStream(Engine* engine, std::string tenant, std::function<void(LabelStream*)> gone)
    : engine_(engine), tenant_(std::move(tenant)), gone_(std::move(gone)) {}

void LabelStream::Start() {
  MutexLock lock(&mutex_);
  Advance();
}

void LabelStream::Drain() {
  MutexLock lock(&mutex_);
  draining_ = true;
  Advance();
}

void LabelStream::OnReadDone(bool ok) {
  v1::LabelStreamRequest message;
  absl::Status parsed;
  if (ok) parsed = Parse(&incoming_, &message);
  MutexLock lock(&mutex_);
  reading_ = false;
  half_closed_ = !ok;
  if (ok && !ending_) {
    const absl::Status status = Take(std::move(parsed), std::move(message));
    if (!status.ok()) End(status);
  }
  Advance();
}

absl::Status LabelStream::Take(absl::Status parsed, v1::LabelStreamRequest message) {
  if (!parsed.ok()) {
    const absl::Status bad_text = FindBadText(message.request());
    if (bad_text.ok() || !opened_) return parsed;
    v1::LabelRequest unread;
    unread.set_request_id(message.request().request_id());
    Hold(std::move(unread), bad_text);
    return absl::OkStatus();
  }
  switch (message.message_case()) {
    case v1::LabelStreamRequest::kOpen:
      return TakeOpen(message.open());
    case v1::LabelStreamRequest::kRequest:
      return TakeRequest(std::move(*message.mutable_request()));
    case v1::LabelStreamRequest::kCancel:
      TakeCancel(message.cancel().request_id());
      return absl::OkStatus();
    default:
      return absl::InvalidArgumentError("a message of the stream holds `open`, `request` or `cancel`; this one none");
  }
}

absl::Status LabelStream::TakeOpen(const v1::LabelStreamRequest::Open& open) {
  if (opened_) return absl::InvalidArgumentError("`open` was sent twice on a stream");
  RETURN_IF_ERROR(CheckProtocolVersion(open.protocol_version()));
  opened_ = true;
  spdlog::info("label stream opened by '{}'", Excerpt(open.client()));
  v1::LabelStreamReply reply;
  *reply.mutable_opened() = engine_->description();
  Enqueue(Pack(reply), 0);
  return absl::OkStatus();
}

absl::Status LabelStream::TakeRequest(v1::LabelRequest request) {
  if (!opened_) return absl::InvalidArgumentError("the first message of a stream must be `open`");
  const uint64_t id = request.request_id();
  if (flights_.contains(id) || FindHeld(id) != held_.end()) {
    return absl::InvalidArgumentError(absl::StrCat("request_id ", id, " is still in flight on this stream"));
  }
  Hold(std::move(request), absl::OkStatus());
  return absl::OkStatus();
}

void LabelStream::Hold(v1::LabelRequest request, absl::Status bad) {
  const size_t bytes = sizeof(Held) + request.SpaceUsedLong();
  held_bytes_ += bytes;
  held_.push_back({std::move(request), std::move(bad), bytes});
}

LabelStream::Held LabelStream::Release(std::deque<Held>::iterator held) {
  Held released = std::move(*held);
  held_bytes_ -= released.bytes;
  held_.erase(held);
  return released;
}

std::deque<LabelStream::Held>::iterator LabelStream::FindHeld(uint64_t request_id) {
  return std::find_if(held_.begin(), held_.end(), [&](const Held& h) { return h.request.request_id() == request_id; });
}

void LabelStream::BeginHeld() {
  while (!held_.empty() && unsent_bytes_ <= kMaxUnsentBytes && flight_bytes_ <= kMaxFlightBytes) {
    Held next = Release(held_.begin());
    const uint64_t id = next.request.request_id();
    if (next.bad.ok()) next.bad = Ask(std::move(next.request));
    if (!next.bad.ok()) Enqueue(PackReply(engine_->Reply(id, next.bad)), 0);
  }
}

absl::Status LabelStream::Ask(v1::LabelRequest request) {
  if (draining_) return absl::UnavailableError("the teacher server is draining; ask another replica");
  const int64_t records = request.inputs_size();
  const int64_t credits = engine_->description().stream_credits();
  if (credits_used_ + records > credits) {
    return absl::ResourceExhaustedError(absl::StrCat("the stream has ", credits_used_, " records in flight; with ",
                                                     records, " more it exceeds its ", credits, " credits"));
  }
  const uint64_t id = request.request_id();
  const int64_t bytes = AnswerBytesOf(request, engine_->description()).on_wire;
  auto flight = std::make_shared<Flight>(id, records, bytes);
  Requester requester{.tenant = tenant_};
  requester.cancelled = std::shared_ptr<const std::atomic<bool>>(flight, &flight->cancelled);
  RETURN_IF_ERROR(engine_->Ask(std::move(request), std::move(requester),
                               [self = shared_from_this(), flight](absl::StatusOr<Answer> answer) {
                                 self->Deliver(flight, std::move(answer));
                               }));
  credits_used_ += records;
  flight_bytes_ += bytes;
  flights_[id] = std::move(flight);
  return absl::OkStatus();
}

void LabelStream::TakeCancel(uint64_t request_id) {
  int64_t records = 0;
  if (const auto held = FindHeld(request_id); held != held_.end()) {
    Release(held);
  } else {
    const auto found = flights_.find(request_id);
    if (found == flights_.end()) return;  // answered already
    found->second->cancelled = true;
    records = found->second->records;
    Land(found);
  }
  Enqueue(PackReply(engine_->Reply(request_id, absl::CancelledError("cancelled by the caller"))), records);
}

void LabelStream::Land(std::map<uint64_t, std::shared_ptr<Flight>>::iterator flight) {
  flight_bytes_ -= flight->second->answer_bytes;
  flights_.erase(flight);
}

void LabelStream::Deliver(const std::shared_ptr<Flight>& flight, absl::StatusOr<Answer> answer) {
  grpc::ByteBuffer message = PackReply(engine_->Reply(flight->request_id, std::move(answer)));
  MutexLock lock(&mutex_);
  const auto found = flights_.find(flight->request_id);
  if (found == flights_.end() || found->second != flight) return;  // cancelled meanwhile
  Land(found);
  Enqueue(std::move(message), flight->records);
  Advance();
}

void LabelStream::Enqueue(grpc::ByteBuffer message, int64_t records) {
  const size_t bytes = message.Length();
  unsent_bytes_ += bytes;
  outgoing_.push_back({std::move(message), records, bytes});
}

void LabelStream::OnWriteDone(bool ok) {
  MutexLock lock(&mutex_);
  writing_ = false;
  credits_used_ -= outgoing_.front().records;
  unsent_bytes_ -= outgoing_.front().bytes;
  outgoing_.pop_front();
  if (!ok) End(absl::CancelledError("the caller has gone"));
  Advance();
}

void LabelStream::OnCancel() {
  MutexLock lock(&mutex_);
  End(absl::CancelledError("the caller has gone"));
  Advance();
}

void LabelStream::End(const absl::Status& status) {
  if (ending_) return;
  ending_ = true;
  end_ = status;
  for (const auto& [id, flight] : flights_) flight->cancelled = true;
  flights_.clear();
  flight_bytes_ = 0;
  held_.clear();
  held_bytes_ = 0;
}

void LabelStream::Advance() {
  if (finished_) return;
  if (!ending_) BeginHeld();
  const bool all_answered = flights_.empty() && outgoing_.empty();
  if (all_answered && half_closed_) End(absl::OkStatus());
  if (all_answered && draining_) End(absl::UnavailableError("the teacher server is draining; ask another replica"));
  if (!writing_ && ending_) {
    finished_ = true;
    Finish(ToGrpc(end_));
    return;
  }
  if (!writing_ && !outgoing_.empty()) {
    writing_ = true;
    StartWrite(&outgoing_.front().message);
  }
  if (!reading_ && !half_closed_ && !ending_ && held_bytes_ <= kMaxHeldBytes) {
    reading_ = true;
    StartRead(&incoming_);
  }
}

}  // namespace polystill::teacher_server
