#include "student_worker/record_trace.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/sha256.h"

namespace polystill::student_worker {

RecordTrace::RecordTrace(const std::string& path) : path_(path), file_(path, std::ios::app) {}

absl::StatusOr<std::unique_ptr<RecordTrace>> RecordTrace::Open(const std::string& path) {
  auto trace = std::unique_ptr<RecordTrace>(new RecordTrace(path));
  if (!trace->file_.is_open()) {
    return absl::PermissionDeniedError(absl::StrCat("--trace-records: cannot write to ", path));
  }
  return trace;
}

absl::Status RecordTrace::Append(const std::string& job, int64_t generation, int64_t step, int rank,
                                 const std::vector<std::string>& ids) {
  const nlohmann::ordered_json line = {{"job", job},
                                       {"generation", generation},
                                       {"step", step},
                                       {"rank", rank},
                                       {"digest", Sha256Hex(absl::StrJoin(ids, "\n"))},
                                       {"ids", ids}};
  file_ << line.dump() << std::endl;
  if (file_.good()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("cannot write to ", path_, "; is the disk full?"));
}

}  // namespace polystill::student_worker
