#pragma once

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "collectives/group.h"
#include "student_worker/membership.h"
#include "student_worker/replica.h"

namespace polystill::student_worker {

// Bytes of a state that travel at once.
inline constexpr int64_t kTransferChunkBytes = int64_t{16} << 20;

// A collective: gives the receivers of `source` the state that its rank holds, as `mine` does, and lies `mine` there or
// here: a copy beside what is held, whose digest was compared. Every other rank gets nothing; all take part. ABORTED: a
// peer is gone, or what came is not what was sent.
absl::StatusOr<std::optional<checkpoint::CheckpointState>> TransferState(const Source& source,
                                                                         const checkpoint::CheckpointState& mine,
                                                                         collectives::Group* group);

// A collective, the first of a generation (docs/elastic.md, "Agree"): the ranks go on from the greatest state that one
// of them holds, or from the assignment's checkpoint, and compare what they hold then. `start_anew` gives the replica
// the state before the first step. Says `agreed`. ABORTED: a peer is gone, or the generation is to be left; INTERNAL:
// the replicas are apart; errors of LoadCheckpoint.
absl::StatusOr<Source> AgreeOnState(const v1::WorkerOrder::Assignment& assignment, collectives::Group* group,
                                    Membership* membership, Replica* replica,
                                    const std::function<absl::Status()>& start_anew);

}  // namespace polystill::student_worker
