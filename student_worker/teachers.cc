#include "student_worker/teachers.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/status.h"

namespace polystill::student_worker {
namespace {

absl::Status CheckSignature(const v1::Signature& signature, const v1::Job& job) {
  if (!std::equal(signature.labels().begin(), signature.labels().end(), job.labels().begin(), job.labels().end())) {
    return absl::FailedPreconditionError(absl::StrCat("its classes are ", absl::StrJoin(signature.labels(), ", "),
                                                      ", but corpus.labels are ", absl::StrJoin(job.labels(), ", ")));
  }
  const bool job_has_ids = job.tokenizer().kind() == v1::Tokenizer::KIND_IDS;
  const bool wants_ids = signature.input() == v1::Signature::INPUT_IDS;
  if (job_has_ids != wants_ids) {
    return absl::FailedPreconditionError(absl::StrCat("it reads ", wants_ids ? "token ids" : "text",
                                                      ", but the corpus has ", job_has_ids ? "token ids" : "text",
                                                      " (tokenizer.kind)"));
  }
  return absl::OkStatus();
}

}  // namespace

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
    RETURN_IF_ERROR(Annotate(CheckSignature(teacher.client->description().signature(), job), who));
  }
  return connected;
}

std::vector<DataLoader::LabelSource> Teachers::Sources(const std::vector<LabelKind>& kinds) const {
  std::vector<DataLoader::LabelSource> sources;
  for (const LabelKind& kind : kinds) {
    const Teacher& teacher = teachers_.at(kind.teacher);
    DataLoader::LabelSource source;
    source.kind = kind;
    source.spec.set_output("logits");
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
