#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/counter_rng.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "runtime/utf8.h"
#include "soft_labels/client_loop.h"
#include "soft_labels/outputs.h"
#include "soft_labels/rendezvous.h"

// Who the replicas are, and which of them may be asked.
namespace polystill::soft_labels {
namespace {

// The id of a canary's request; the router counts its own from 1.
constexpr uint64_t kCanaryId = 0;

// Statuses of a stream after which trying again is of no use.
bool IsFinal(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) || absl::IsUnimplemented(status) || absl::IsPermissionDenied(status) ||
         absl::IsUnauthenticated(status);
}

// Whether rows of every output fit a message.
absl::Status CheckWidths(const v1::DescribeReply& reply) {
  for (const v1::Feature& feature : reply.features()) {
    if (feature.width() > 0 && feature.width() <= kMaxMessageBytes / 2) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("describes rows of '", Excerpt(feature.name()), "' of ", feature.width(), " numbers"));
  }
  if (reply.head().width() < 0 || reply.head().width() > kMaxMessageBytes / 2 || reply.head().bytes() < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("describes a head of ", reply.head().width(), " numbers and ", reply.head().bytes(), " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ClientLoop::WaitUntilReady() {
  const int64_t end_ms = SteadyMs() + options_.give_up_after_ms;
  MutexLock lock(&mutex_);
  while (!settled_) {
    const int64_t left_ms = end_ms - SteadyMs();
    if (left_ms <= 0) {
      return absl::UnavailableError(
          absl::StrCat("no teacher replica could be asked within ", options_.give_up_after_ms, " ms: ", troubles_));
    }
    settled_changed_.WaitFor(&mutex_, std::chrono::milliseconds(left_ms));
  }
  return outcome_;
}

void ClientLoop::Settle(const absl::Status& status) {
  MutexLock lock(&mutex_);
  if (settled_) return;
  settled_ = true;
  outcome_ = status;
  settled_changed_.NotifyAll();
}

void ClientLoop::HandleDone(int i, const absl::Status& status) {
  replicas_[i].stream.reset();
  replicas_[i].awaits_canary = false;
  if (stopping_) return;
  if (jury_ != nullptr) jury_->Failed(i);
  const absl::Status why = status.ok() ? absl::UnavailableError("the replica closed the stream") : status;
  if (IsFinal(why)) {
    spdlog::error("teacher replica {} is not used: {}", replicas_[i].address, why.ToString());
    router_.Refused(i, why);
    MutexLock lock(&mutex_);
    ++counts_.refused_replicas;
  } else {
    if (replicas_[i].opened) spdlog::warn("teacher replica {} is lost: {}", replicas_[i].address, why.ToString());
    router_.Broken(i, why, SteadyMs());
  }
  if (replicas_[i].wanted) router_.Back(i);
  if (const absl::Status none = router_.AllRefused(); !none.ok()) Settle(none);
  NoteTroubles();
}

void ClientLoop::NoteTroubles() {
  const std::string names = roster_.Troubles(), replicas = router_.Troubles();
  MutexLock lock(&mutex_);
  troubles_ = absl::StrCat(names, names.empty() || replicas.empty() ? "" : "; ", replicas);
}

void ClientLoop::AddReplica(const std::string& address, const std::string& server_id) {
  replicas_.push_back({address, server_id.empty() ? address : server_id, Connect(address), nullptr});
}

void ClientLoop::LookUpNames(const ReplicaRoster::Actions& actions) {
  for (const ReplicaRoster::LookUp& name : actions.look_up) {
    options_.look_up(name.host, [inbox = inbox_, address = name.address](HostAddresses hosts) {
      inbox->Put(FoundHosts{address, std::move(hosts)});
    });
  }
}

void ClientLoop::Handle(NewReplicas& replicas) {
  if (stopping_) return;
  roster_.Set(replicas.given);
  UseRoster();
}

void ClientLoop::Handle(FoundHosts& found) {
  if (stopping_) return;
  const std::string news = roster_.Found(found.address, found.hosts);
  if (!news.empty()) spdlog::log(found.hosts.ok() ? spdlog::level::info : spdlog::level::warn, news);
  UseRoster();
}

void ClientLoop::UseRoster() {
  const ReplicaRoster::Replicas wanted = roster_.replicas();
  const auto number_of = [this](const std::string& address) {
    const auto found =
        std::find_if(replicas_.begin(), replicas_.end(), [&](const Replica& r) { return r.address == address; });
    return static_cast<int>(found - replicas_.begin());
  };
  const std::set<std::string> addresses(wanted.addresses.begin(), wanted.addresses.end());
  for (int i = 0; i < static_cast<int>(replicas_.size()); ++i) {
    replicas_[i].wanted = addresses.contains(replicas_[i].address);
    if (replicas_[i].wanted) continue;
    router_.Left(i, SteadyMs());
    if (jury_ != nullptr) jury_->Failed(i);
    if (replicas_[i].stream != nullptr) replicas_[i].stream->Cancel(absl::UnavailableError("no replica any more"));
  }
  for (size_t k = 0; k < wanted.addresses.size(); ++k) {
    const int i = number_of(wanted.addresses[k]);
    if (i < static_cast<int>(replicas_.size())) {
      if (!wanted.server_ids[k].empty()) replicas_[i].name = wanted.server_ids[k];
      if (replicas_[i].stream == nullptr) router_.Back(i);
      continue;
    }
    AddReplica(wanted.addresses[k], wanted.server_ids[k]);
    router_.Joined(wanted.addresses[k]);
    if (jury_ != nullptr) jury_->Joined();
  }
  replica_count_ = static_cast<int64_t>(addresses.size());
  NoteTroubles();
}

absl::Status ClientLoop::HandleMessage(int i, Received received) {
  const v1::LabelStreamReply& message = received.message.message;
  const bool is_opened = message.message_case() == v1::LabelStreamReply::kOpened;
  if (is_opened == replicas_[i].opened) return absl::DataLossError("must send `opened` first, and once");
  if (!is_opened && replicas_[i].awaits_canary && message.reply().request_id() == kCanaryId) {
    return HandleCanary(i, received.message);
  }
  if (!is_opened) return HandleReply(i, std::move(received));
  const v1::DescribeReply& reply = message.opened();
  RETURN_IF_ERROR(CheckDescription(reply));
  replicas_[i].opened = true;
  replicas_[i].description = reply;
  if (description_.digest().empty()) description_ = reply;
  if (jury_ == nullptr) {
    Admit(i);
  } else {
    SendCanary(i);
  }
  return absl::OkStatus();
}

void ClientLoop::Admit(int i) {
  const v1::DescribeReply& description = replicas_[i].description;
  router_.Opened(i, description.stream_credits(), description.max_records_per_request());
  Settle(absl::OkStatus());
}

void ClientLoop::SendCanary(int i) {
  if (canary_.inputs().empty()) canary_ = CanaryRequest(description_);
  v1::LabelStreamRequest message;
  v1::LabelRequest& request = *message.mutable_request();
  request = canary_;
  request.set_request_id(kCanaryId);
  request.set_priority(options_.priority);
  replicas_[i].awaits_canary = true;
  replicas_[i].stream->Send(std::move(message));
}

absl::Status ClientLoop::HandleCanary(int i, const StreamReply& message) {
  replicas_[i].awaits_canary = false;
  CanaryAnswer answer = ReadCanary(message, description_, canary_);
  // A replica that cannot answer now is asked again after a pause, on another stream.
  const absl::Status& status = answer.status();
  if (absl::IsUnavailable(status) || absl::IsResourceExhausted(status) || absl::IsDeadlineExceeded(status)) {
    return status;
  }
  if (!status.ok()) spdlog::warn("teacher replica {}: the canary: {}", replicas_[i].address, status.ToString());
  jury_->Answered(i, std::move(answer), SteadyMs());
  return absl::OkStatus();
}

void ClientLoop::Judge() {
  for (const ParityJury::Verdict& verdict : jury_->Step(SteadyMs())) {
    if (verdict.agrees) {
      Admit(verdict.replica);
      continue;
    }
    replicas_[verdict.replica].stream->Cancel(absl::FailedPreconditionError(
        absl::StrCat("its answers to the same inputs differ from those of ", replicas_[verdict.reference].address,
                     " by up to ", verdict.difference, ", more than parity_tolerance ", *options_.parity_tolerance,
                     ", though it claims the same digest ", description_.digest())));
  }
}

std::vector<int> ClientLoop::HomesOf(const std::vector<v1::LabelInput>& inputs, int64_t now_ms) const {
  const std::vector<int> askable = router_.Askable(now_ms);
  const auto caches = [this](int i) { return replicas_[i].description.caches(); };
  if (askable.size() < 2 || !std::all_of(askable.begin(), askable.end(), caches)) return {};
  std::vector<uint64_t> words;
  for (const int i : askable) words.push_back(NameWord(replicas_[i].name));
  std::vector<int> homes;
  for (const v1::LabelInput& input : inputs) homes.push_back(askable[Rendezvous(WordOf(input), words)]);
  return homes;
}

absl::Status ClientLoop::CheckDescription(const v1::DescribeReply& reply) const {
  RETURN_IF_ERROR(CheckProtocolVersion(reply.protocol_version()));
  const bool first = description_.digest().empty();
  const std::string& digest = first ? options_.teacher_digest : description_.digest();
  if (reply.digest().empty() || (!digest.empty() && reply.digest() != digest)) {
    return absl::FailedPreconditionError(absl::StrCat("serves the teacher '", reply.name(), "' with digest '",
                                                      reply.digest(), "', expected digest ", digest));
  }
  const bool gives_none = !models::GivesLogits(reply.signature()) && reply.features().empty();
  if (gives_none || reply.stream_credits() < 1 || reply.max_records_per_request() < 1) {
    return absl::FailedPreconditionError("describes a teacher without labels, credits or records per request");
  }
  RETURN_IF_ERROR(CheckWidths(reply));
  if (first) return absl::OkStatus();
  if (reply.signature().SerializeAsString() != description_.signature().SerializeAsString()) {
    return absl::FailedPreconditionError("has another signature than the other replicas");
  }
  const auto same = [](const v1::Feature& a, const v1::Feature& b) {
    return a.name() == b.name() && a.width() == b.width();
  };
  const auto &features = reply.features(), &others = description_.features();
  if (!std::equal(features.begin(), features.end(), others.begin(), others.end(), same) ||
      reply.tokenizer_sha256() != description_.tokenizer_sha256()) {
    return absl::FailedPreconditionError("has other features or another tokeniser than the other replicas");
  }
  if (reply.stream_credits() < description_.stream_credits() ||
      reply.max_records_per_request() < description_.max_records_per_request()) {
    return absl::FailedPreconditionError("takes fewer records than the other replicas; start all with the same flags");
  }
  return absl::OkStatus();
}

}  // namespace polystill::soft_labels
