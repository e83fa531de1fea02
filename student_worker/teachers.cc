#include "student_worker/teachers.h"

#include <spdlog/spdlog.h>

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/signature.h"
#include "runtime/status.h"

namespace polystill::student_worker {
std::optional<LabelKind> LabelKindOf(const v1::Loss& loss, const v1::WorkerOrder::Assignment& assignment) {
  if (loss.kind() == v1::LOSS_KIND_TASK) return std::nullopt;
  const bool only = loss.teacher().empty() && assignment.teachers_size() > 0;
  return LabelKind{only ? assignment.teachers(0).name() : loss.teacher(), loss.codec()};
}

std::vector<LabelKind> LabelKindsOf(const v1::WorkerOrder::Assignment& assignment) {
  std::set<LabelKind> kinds;
  for (const v1::Loss& loss : assignment.job().losses()) {
    if (const std::optional<LabelKind> kind = LabelKindOf(loss, assignment)) kinds.insert(*kind);
  }
  return {kinds.begin(), kinds.end()};
}

absl::StatusOr<std::unique_ptr<Teachers>> Teachers::Connect(const v1::WorkerOrder::Assignment& assignment,
                                                            const std::vector<LabelKind>& kinds) {
  auto connected = std::make_unique<Teachers>();
  const v1::Job& job = assignment.job();
  for (const LabelKind& kind : kinds) {
    if (connected->teachers_.contains(kind.teacher)) continue;
    Teacher& teacher = connected->teachers_[kind.teacher];
    std::vector<std::string> addresses;
    for (const v1::TeacherEndpoint& endpoint : assignment.teachers()) {
      if (endpoint.name() != kind.teacher) continue;
      addresses.push_back(endpoint.address());
      teacher.digest = endpoint.digest();
      teacher.reads = endpoint.reads();
    }
    const std::string who = absl::StrCat("teacher '", kind.teacher, "'");
    if (addresses.empty()) return absl::InvalidArgumentError(absl::StrCat(who, ": the assignment names no replica"));
    soft_labels::LabelClient::Options options;
    options.client = absl::StrCat(job.name(), "/worker-", assignment.rank());
    options.teacher_digest = teacher.digest;
    // Every record that the loader may have asked for: a slice for each step of the queue and for the one that waits
    // for room in it, by each codec.
    const int64_t slice = (job.plan().batch_size() + assignment.world_size() - 1) / assignment.world_size();
    options.max_waiting_records = slice * (job.prefetch() + 1) * static_cast<int64_t>(kinds.size());
    auto client = soft_labels::LabelClient::Connect(addresses, options);
    if (!client.ok()) return Annotate(client.status(), who);
    teacher.client = *std::move(client);
    const v1::DescribeReply& description = teacher.client->description();
    RETURN_IF_ERROR(Annotate(models::CheckSignature(description.signature(), assignment.job()), who));
    if (!description.repeatable()) {
      spdlog::warn("{}: its labels are not repeatable (a record's depend on what it is batched with), nor is this run",
                   who);
    }
  }
  return connected;
}

std::vector<DataLoader::LabelSource> Teachers::Sources(const std::vector<LabelKind>& kinds) const {
  std::vector<DataLoader::LabelSource> sources;
  for (const LabelKind& kind : kinds) {
    const Teacher& teacher = teachers_.at(kind.teacher);
    DataLoader::LabelSource source;
    source.kind = kind;
    source.spec.add_outputs("logits");
    source.spec.set_codec(kind.codec);
    source.spec.set_teacher_digest(teacher.digest);
    source.reads = teacher.reads;
    source.input = teacher.client->description().signature().input();
    source.classes = teacher.client->description().signature().labels_size();
    source.ask = [client = teacher.client.get()](v1::LabelSpec spec, std::vector<v1::LabelInput> inputs,
                                                 soft_labels::LabelClient::Callback callback) {
      client->Label(std::move(spec), std::move(inputs), std::move(callback));
    };
    sources.push_back(std::move(source));
  }
  return sources;
}

}  // namespace polystill::student_worker
