#include "student_worker/agreement.h"

#include <ATen/ATen.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "polystill/v1/package.pb.h"
#include "runtime/status.h"

namespace polystill::student_worker {
namespace {

// The bytes of tensors, one after the other, read or written piece by piece.
class Bytes {
 public:
  // The tensors are contiguous and on the CPU; they are shared, not copied.
  explicit Bytes(const checkpoint::NamedTensors& tensors) {
    for (const auto& [name, tensor] : tensors) {
      if (tensor.numel() > 0) parts_.push_back(tensor.detach().reshape({-1}).view(at::kByte));
      size_ += static_cast<int64_t>(tensor.nbytes());
    }
  }

  int64_t size() const { return size_; }

  // The next bytes, as many as `chunk` holds, into it.
  void Read(at::Tensor chunk) {
    Walk(chunk, [](at::Tensor part, at::Tensor piece) { piece.copy_(part); });
  }
  // From it.
  void Write(const at::Tensor& chunk) {
    Walk(chunk, [](at::Tensor part, at::Tensor piece) { part.copy_(piece); });
  }

 private:
  template <typename Copy>
  void Walk(const at::Tensor& chunk, Copy copy) {
    for (int64_t done = 0; done < chunk.numel();) {
      const int64_t count = std::min(parts_[part_].numel() - offset_, chunk.numel() - done);
      copy(parts_[part_].narrow(0, offset_, count), chunk.narrow(0, done, count));
      done += count;
      offset_ += count;
      if (offset_ < parts_[part_].numel()) continue;
      ++part_;
      offset_ = 0;
    }
  }

  std::vector<at::Tensor> parts_;
  int64_t size_ = 0;
  size_t part_ = 0;
  int64_t offset_ = 0;
};

// All tensors of a state, in one order.
std::vector<checkpoint::NamedTensors*> PartsOf(checkpoint::CheckpointState* state) {
  return {&state->model, &state->projections, &state->optimizer, &state->best};
}

// What a state holds beside tensors.
v1::CheckpointManifest HeadOf(const checkpoint::CheckpointState& state) {
  v1::CheckpointManifest head;
  head.set_step(state.step);
  *head.mutable_counted() = state.counted;
  if (state.early_stopping.has_value()) *head.mutable_early_stopping() = *state.early_stopping;
  if (!state.best.empty()) head.add_files()->set_name("best");
  return head;
}

// Room for a state with that head, formed like `mine`.
checkpoint::CheckpointState RoomFor(const v1::CheckpointManifest& head, const checkpoint::CheckpointState& mine) {
  checkpoint::CheckpointState room = mine;
  room.step = head.step();
  room.counted = head.counted();
  if (head.has_early_stopping()) room.early_stopping = head.early_stopping();
  room.best = head.files().empty() ? checkpoint::NamedTensors() : room.model;
  for (checkpoint::NamedTensors* tensors : PartsOf(&room)) {
    for (auto& [name, tensor] : *tensors) tensor = at::empty(tensor.sizes(), tensor.options().device(at::kCPU));
  }
  return room;
}

// A state's tensors on the CPU, contiguous: themselves, or copies.
checkpoint::NamedTensors TensorsOf(checkpoint::CheckpointState state) {
  checkpoint::NamedTensors all;
  for (checkpoint::NamedTensors* tensors : PartsOf(&state)) {
    for (auto& [name, tensor] : *tensors) all.emplace_back(name, tensor.detach().to(at::kCPU).contiguous());
  }
  return all;
}

absl::StatusOr<std::vector<v1::StateNote>> ExchangeNotes(const v1::StateNote& note, collectives::Group* group) {
  ASSIGN_OR_RETURN(const std::vector<std::string> answers, group->AllGather(note.SerializeAsString()));
  std::vector<v1::StateNote> notes(answers.size());
  for (size_t rank = 0; rank < answers.size(); ++rank) {
    if (notes[rank].ParseFromString(answers[rank])) continue;
    return absl::InternalError(
        absl::StrCat("rank ", rank, " sent something else than what it holds; do all ranks run the same build?"));
  }
  return notes;
}

absl::Status CompareDigests(const std::string& mine, collectives::Group* group) {
  ASSIGN_OR_RETURN(const std::vector<std::string> digests, group->AllGather(mine));
  for (size_t rank = 0; rank < digests.size(); ++rank) {
    if (digests[rank] == digests[0]) continue;
    return absl::InternalError(absl::StrCat("replicas apart at the beginning of a generation: rank 0 holds ",
                                            digests[0], ", rank ", rank, " holds ", digests[rank]));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::optional<checkpoint::CheckpointState>> TransferState(const Source& source,
                                                                         const checkpoint::CheckpointState& mine,
                                                                         collectives::Group* group) {
  const bool sends = group->rank() == source.rank;
  const bool receives = std::count(source.receivers.begin(), source.receivers.end(), group->rank()) > 0;
  const std::string offered = sends ? HeadOf(mine).SerializeAsString() : std::string();
  ASSIGN_OR_RETURN(const std::vector<std::string> heads, group->AllGather(offered));
  v1::CheckpointManifest head;
  if (!head.ParseFromString(heads[source.rank])) {
    return absl::AbortedError(absl::StrCat("rank ", source.rank, " sent no head of a state"));
  }
  checkpoint::CheckpointState room = receives ? RoomFor(head, mine) : checkpoint::CheckpointState();
  Bytes bytes(sends ? TensorsOf(mine) : TensorsOf(room));
  int64_t left = sends ? bytes.size() : 0;
  {
    const at::Tensor size = at::full({1}, left, at::kLong);
    RETURN_IF_ERROR(group->Broadcast(size, source.rank));
    left = size.item<int64_t>();
  }
  if (receives && left != bytes.size()) {
    return absl::AbortedError(
        absl::StrCat("rank ", source.rank, " sends a state of ", left, " bytes, this rank's has ", bytes.size()));
  }
  const at::Tensor buffer = at::empty({std::min(left, kTransferChunkBytes)}, at::kByte);
  while (left > 0) {
    const at::Tensor chunk = buffer.narrow(0, 0, std::min(left, kTransferChunkBytes));
    if (sends) bytes.Read(chunk);
    RETURN_IF_ERROR(group->Broadcast(chunk, source.rank));
    if (receives) bytes.Write(chunk);
    left -= chunk.numel();
  }
  if (!receives) return std::nullopt;
  if (const std::string digest = checkpoint::StateDigest(room); digest != source.digest) {
    return absl::AbortedError(
        absl::StrCat("the state of rank ", source.rank, " came as ", digest, ", but it is said to be ", source.digest));
  }
  return room;
}

absl::StatusOr<Source> AgreeOnState(const v1::WorkerOrder::Assignment& assignment, collectives::Group* group,
                                    Membership* membership, Replica* replica,
                                    const std::function<absl::Status()>& start_anew) {
  v1::StateNote note = membership->note();
  if (note.step() >= 0) note.set_digest(replica->Digest());
  ASSIGN_OR_RETURN(const std::vector<v1::StateNote> notes, ExchangeNotes(note, group));
  ASSIGN_OR_RETURN(Source source, membership->Agree(notes));
  std::optional<checkpoint::CheckpointState> received;
  if (source.kind == Source::Kind::kCheckpoint) {
    auto read = checkpoint::LoadCheckpoint(assignment.checkpoint());
    if (!read.ok()) return Annotate(read.status(), assignment.checkpoint());
    received = *std::move(read);
  } else if (!source.receivers.empty()) {
    ASSIGN_OR_RETURN(received, TransferState(source, replica->State(), group));
  }
  if (received.has_value()) {
    membership->Taking();
    RETURN_IF_ERROR(Annotate(replica->Take(*std::move(received)), assignment.checkpoint()));
    membership->Taken();
  } else if (source.kind == Source::Kind::kInitial) {
    membership->Taking();
    RETURN_IF_ERROR(start_anew());
    membership->Taken();
  }
  replica->ForgetMeasured();
  const std::string digest = replica->Digest();
  RETURN_IF_ERROR(CompareDigests(digest, group));
  membership->Agreed(digest);
  return source;
}

}  // namespace polystill::student_worker
