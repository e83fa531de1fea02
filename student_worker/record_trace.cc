#include "student_worker/record_trace.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/sha256.h"

namespace polystill::student_worker {

struct RecordTrace::Fields {
  nlohmann::ordered_json values;
};

RecordTrace::RecordTrace(const std::string& path) : path_(path), file_(path, std::ios::app) {}

absl::StatusOr<std::unique_ptr<RecordTrace>> RecordTrace::Open(const std::string& path) {
  auto trace = std::unique_ptr<RecordTrace>(new RecordTrace(path));
  if (!trace->file_.is_open()) {
    return absl::PermissionDeniedError(absl::StrCat("--trace-records: cannot write to ", path));
  }
  return trace;
}

void RecordTrace::Enter(const std::string& job, int64_t generation, int rank, int world_size) {
  job_ = job;
  generation_ = generation;
  rank_ = rank;
  world_size_ = world_size;
}

absl::Status RecordTrace::Agreed(int64_t steps, const std::string& digest, int64_t from_generation,
                                 bool from_checkpoint) {
  return Write("agreed", {{{"world_size", world_size_},
                           {"steps", steps},
                           {"digest", digest},
                           {"from_generation", from_generation},
                           {"from_checkpoint", from_checkpoint}}});
}

absl::Status RecordTrace::Slice(int64_t step, const std::vector<std::string>& ids) {
  return Write(
      "slice",
      {{{"world_size", world_size_}, {"step", step}, {"digest", Sha256Hex(absl::StrJoin(ids, "\n"))}, {"ids", ids}}});
}

absl::Status RecordTrace::Applied(int64_t step, double loss) {
  return Write("applied", {{{"step", step}, {"loss", loss}}});
}

absl::Status RecordTrace::Done(int64_t steps, const std::string& weights_digest) {
  return Write("done", {{{"steps", steps}, {"weights_digest", weights_digest}}});
}

absl::Status RecordTrace::Write(const char* event, const Fields& fields) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  nlohmann::ordered_json line = {
      {"event", event}, {"job", job_}, {"generation", generation_}, {"rank", rank_}, {"at", now.count()}};
  line.update(fields.values);
  file_ << line.dump() << std::endl;
  if (file_.good()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("cannot write to ", path_, "; is the disk full?"));
}

}  // namespace polystill::student_worker
