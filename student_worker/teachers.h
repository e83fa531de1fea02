#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.pb.h"
#include "soft_labels/client.h"
#include "student_worker/data_loader.h"

namespace polystill::student_worker {

// The soft labels that a loss needs, of the job's only teacher when the loss names none; nothing for the task loss.
std::optional<LabelKind> LabelKindOf(const v1::Loss& loss, const v1::WorkerOrder::Assignment& assignment);

// Those of all losses of a job, each once.
std::vector<LabelKind> LabelKindsOf(const v1::WorkerOrder::Assignment& assignment);

// Connections to the teachers of a job. Thread-safe.
class Teachers {
 public:
  // Connects to every replica of every teacher that `kinds` name; as many records may wait as `assignment` asks for
  // ahead. FAILED_PRECONDITION when a teacher's classes or
  // inputs are not the job's, INVALID_ARGUMENT when the assignment names no replica of one, UNAVAILABLE when none
  // answers.
  static absl::StatusOr<std::unique_ptr<Teachers>> Connect(const v1::WorkerOrder::Assignment& assignment,
                                                           const std::vector<LabelKind>& kinds);

  // Sources for the data loader, which must be gone before this object is.
  std::vector<DataLoader::LabelSource> Sources(const std::vector<LabelKind>& kinds) const;

 private:
  struct Teacher {
    std::string digest;
    v1::Side reads = v1::SIDE_TEXT;
    std::unique_ptr<soft_labels::LabelClient> client;
  };
  std::map<std::string, Teacher> teachers_;
};

}  // namespace polystill::student_worker
