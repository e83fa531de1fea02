#include "coordinator/status_file.h"

#include <google/protobuf/util/json_util.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::coordinator {
namespace {

constexpr int64_t kMaxBytes = int64_t{16} << 20;
// A training that has come this far since the last write is worth another: it costs an fsync.
constexpr double kShare = 0.05;

bool IsWorthWriting(const v1::RunStatus& before, const v1::RunStatus& now) {
  if (before.stages_size() != now.stages_size() || before.current() != now.current()) return true;
  if (before.state() != now.state() || now.stages().empty()) return true;
  if (!std::equal(before.left_out().begin(), before.left_out().end(), now.left_out().begin(), now.left_out().end()))
    return true;
  const auto& stage = now.stages(now.current());
  const auto& old = before.stages(now.current());
  if (stage.slow_workers_size() != old.slow_workers_size() || stage.evictions_size() != old.evictions_size())
    return true;
  return stage.finished() != old.finished() || stage.waiting_for() != old.waiting_for() ||
         static_cast<double>(stage.done() - old.done()) > kShare * static_cast<double>(stage.total());
}

}  // namespace

void StatusFile::Observe(const v1::RunStatus& status) {
  if (!IsWorthWriting(written_, status)) return;
  written_ = status;
  const absl::Status write = WriteFileAtomically(path_, StatusJson(status));
  if (!write.ok()) spdlog::warn("{}", std::string(write.message()));
}

std::string StatusJson(const v1::RunStatus& status) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string json;
  (void)google::protobuf::util::MessageToJsonString(status, &json, options);
  return json + "\n";
}

absl::StatusOr<v1::RunStatus> ReadStatusFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kMaxBytes));
  v1::RunStatus status;
  const auto parsed = google::protobuf::util::JsonStringToMessage(json, &status);
  if (parsed.ok()) return status;
  return absl::DataLossError(absl::StrCat(path, ": not the status of a run: ", std::string(parsed.message())));
}

}  // namespace polystill::coordinator
