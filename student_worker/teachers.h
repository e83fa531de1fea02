#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "losses/chunks.h"
#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/corpus.pb.h"
#include "soft_labels/client.h"
#include "soft_labels/outputs.h"
#include "soft_labels/store_reader.h"
#include "student_worker/data_loader.h"

namespace polystill::student_worker {

// The labels that a loss needs, of the job's only teacher when the loss names none; none for the task loss.
std::vector<LabelKind> LabelKindsOf(const v1::Loss& loss, const v1::WorkerOrder::Assignment& assignment);

// Those of all losses of a job, each once.
std::vector<LabelKind> LabelKindsOf(const v1::WorkerOrder::Assignment& assignment);

// The teachers of a job: connections to those that answer, and label stores of those that did. Thread-safe, but for
// what the sources of stores read: one thread, that of the data loader.
class Teachers {
 public:
  // Opens the store of every teacher that has one, and connects to every replica of every teacher that `kinds` name, as
  // the tenant named after `run`, and compares those of one teacher; as many records may wait as `assignment` asks for
  // ahead. FAILED_PRECONDITION when a teacher's classes or inputs are not the job's, it does not give an output, or
  // gives one of tokens and the student's tokens are not its own (another side of the record, another tokeniser), or
  // gives it by another codec only, or a store holds labels of other settings; NOT_FOUND and DATA_LOSS about a store;
  // INVALID_ARGUMENT when the assignment names no replica of one, UNAVAILABLE when none answers.
  static absl::StatusOr<std::unique_ptr<Teachers>> Connect(const v1::WorkerOrder::Assignment& assignment,
                                                           const std::vector<LabelKind>& kinds, const std::string& run);

  // The records that stores are asked for are of this index. FAILED_PRECONDITION when one does not hold them.
  absl::Status UseIndex(const std::shared_ptr<const v1::CorpusIndex>& index);

  // Sources for the data loader, which must be gone before this object is: one for each teacher and codec.
  std::vector<DataLoader::LabelSource> Sources(const std::vector<LabelKind>& kinds) const;

  // The output heads of those teachers whose labels come by codec hidden_head, by name.
  std::map<std::string, losses::Head> Heads(at::Device device, at::ScalarType type) const;

  // The replicas of the teachers are those that the assignment names now.
  void SetReplicas(const v1::WorkerOrder::Assignment& assignment);

  // Those none of whose replicas may be asked at present.
  std::vector<std::string> Missing() const;

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
    // One of the two.
    std::unique_ptr<soft_labels::LabelClient> client;
    std::unique_ptr<soft_labels::LabelStore> store;
    // By name, of those that are needed.
    std::map<std::string, soft_labels::Output> outputs;

    const v1::DescribeReply& description() const {
      return store == nullptr ? client->description() : store->manifest().teacher();
    }
  };
  soft_labels::LabelClient::Counts CountsOfAll() const;
  static absl::Status CheckOutputs(const v1::Job& job, const std::vector<LabelKind>& kinds, const std::string& name,
                                   Teacher* teacher);

  static absl::Status CheckStored(const v1::Job& job, const std::vector<LabelKind>& kinds, const std::string& name,
                                  Teacher* teacher);
  // The replicas that an assignment names, or the store; the rest of what it says.
  static absl::Status Open(const v1::WorkerOrder::Assignment& assignment, const std::string& name,
                           soft_labels::LabelClient::Options options, std::vector<std::string>* addresses,
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
