#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "losses/chunks.h"
#include "polystill/v1/coordinator.pb.h"
#include "soft_labels/client.h"
#include "soft_labels/outputs.h"
#include "student_worker/data_loader.h"

namespace polystill::student_worker {

// The labels that a loss needs, of the job's only teacher when the loss names none; none for the task loss.
std::vector<LabelKind> LabelKindsOf(const v1::Loss& loss, const v1::WorkerOrder::Assignment& assignment);

// Those of all losses of a job, each once.
std::vector<LabelKind> LabelKindsOf(const v1::WorkerOrder::Assignment& assignment);

// Connections to the teachers of a job. Thread-safe.
class Teachers {
 public:
  // Connects to every replica of every teacher that `kinds` name, as the tenant named after `run`, and compares those
  // of one teacher; as many records may wait as `assignment` asks for ahead. FAILED_PRECONDITION when a teacher's
  // classes or inputs are not the job's, it does not give an output, or gives one of tokens and the student's tokens
  // are not its own (another side of the record, another tokeniser), or gives it by another codec only;
  // INVALID_ARGUMENT when the assignment names no replica of one, UNAVAILABLE when none answers.
  static absl::StatusOr<std::unique_ptr<Teachers>> Connect(const v1::WorkerOrder::Assignment& assignment,
                                                           const std::vector<LabelKind>& kinds, const std::string& run);

  // Sources for the data loader, which must be gone before this object is: one for each teacher and codec.
  std::vector<DataLoader::LabelSource> Sources(const std::vector<LabelKind>& kinds) const;

  // The output heads of those teachers whose labels come by codec hidden_head, by name.
  std::map<std::string, losses::Head> Heads(at::Device device, at::ScalarType type) const;

  // Of all teachers together, since the call before; for one caller.
  soft_labels::LabelClient::Counts TakeCounts();
  // Writes to the log what was asked in all.
  void TellCounts(const std::string& job) const;

  // Numbers of a row of an output.
  int64_t WidthOf(const LabelKind& kind) const;

 private:
  struct Teacher {
    std::string digest;
    v1::Side reads = v1::SIDE_TEXT;
    double parity_tolerance = 0;
    std::unique_ptr<soft_labels::LabelClient> client;
    // By name, of those that are needed.
    std::map<std::string, soft_labels::Output> outputs;
  };
  soft_labels::LabelClient::Counts CountsOfAll() const;
  static absl::Status CheckOutputs(const v1::Job& job, const std::vector<LabelKind>& kinds, const std::string& name,
                                   Teacher* teacher);

  absl::Status FetchHeadIfNeeded(const std::string& name, const std::vector<LabelKind>& kinds,
                                 const std::vector<std::string>& addresses);

  std::map<std::string, Teacher> teachers_;
  std::map<std::string, losses::Head> heads_;
  // What TakeCounts has given.
  soft_labels::LabelClient::Counts taken_;
  // The job's, of draws.
  uint64_t seed_ = 0;
  // Whether the job's task does.
  bool judges_tokens_ = false;
};

}  // namespace polystill::student_worker
