#include "student_worker/teachers.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/safetensors.h"
#include "models/outputs.h"
#include "models/signature.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "runtime/tenant.h"
#include "runtime/tokenizer_file.h"
#include "soft_labels/head.h"
#include "soft_labels/look_ahead.h"
#include "soft_labels/store_manifest.h"

namespace polystill::student_worker {
namespace {

// For the first replica of a teacher to answer. Milliseconds.
constexpr int64_t kConnectWithinMs = 10'000;

// Whether the ids that the student makes of a record are those that the teacher would make of it.
absl::Status CheckTokens(const v1::Job& job, v1::Side teacher_reads, const v1::DescribeReply& description) {
  if (teacher_reads != job.reads()) {
    return absl::FailedPreconditionError(
        "it reads another side of the records than the student; let both read the same");
  }
  const v1::Signature& signature = description.signature();
  if (signature.max_length() < job.tokenizer().max_length()) {
    return absl::FailedPreconditionError(absl::StrCat("it takes ", signature.max_length(),
                                                      " tokens of a record, the student reads ",
                                                      job.tokenizer().max_length(), "; lower tokenizer.max_length"));
  }
  if (job.tokenizer().kind() == v1::Tokenizer::KIND_IDS) return absl::OkStatus();  // CheckSignature has seen to it
  ASSIGN_OR_RETURN(const std::string file, FindTokenizerFile(job.tokenizer_folder()));
  ASSIGN_OR_RETURN(const std::string sha256, Sha256File(file));
  if (sha256 == description.tokenizer_sha256()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("its tokeniser (sha256 ", description.tokenizer_sha256(), ") is not the student's (", sha256,
                   "); give tokenizer.path the tokeniser's file of the teacher's package"));
}

}  // namespace

std::vector<LabelKind> LabelKindsOf(const v1::Loss& loss, const v1::WorkerOrder::Assignment& assignment) {
  const bool only = loss.teacher().empty() && assignment.teachers_size() > 0;
  std::vector<LabelKind> kinds;
  for (const std::string& output : soft_labels::TeacherOutputsOf(loss)) {
    kinds.push_back({only ? assignment.teachers(0).name() : loss.teacher(), soft_labels::SettingsOf(loss), output});
  }
  return kinds;
}

std::vector<LabelKind> LabelKindsOf(const v1::WorkerOrder::Assignment& assignment) {
  std::set<LabelKind> kinds;
  for (const v1::Loss& loss : assignment.job().losses()) {
    for (const LabelKind& kind : LabelKindsOf(loss, assignment)) kinds.insert(kind);
  }
  return {kinds.begin(), kinds.end()};
}

// Notes what the teacher gives of what is needed of it.
absl::Status Teachers::CheckOutputs(const v1::Job& job, const std::vector<LabelKind>& kinds, const std::string& name,
                                    Teacher* teacher) {
  const v1::DescribeReply& description = teacher->description();
  for (const LabelKind& kind : kinds) {
    if (kind.teacher != name) continue;
    v1::LabelSpec spec;
    spec.add_outputs(kind.output);
    const auto outputs = soft_labels::OutputsOf(spec, description);
    if (!outputs.ok()) return absl::FailedPreconditionError(outputs.status().message());
    if (outputs->at(0).of_tokens || models::JudgesTokens(job.task())) {
      RETURN_IF_ERROR(
          Annotate(CheckTokens(job, teacher->reads, description), absl::StrCat("'", kind.output, "' is of tokens")));
    }
    spec = soft_labels::SpecOf(kind.codec, 0);
    spec.add_outputs(kind.output);
    const absl::Status fits = soft_labels::CheckSpec(spec, *outputs, description.signature().task());
    if (!fits.ok()) return absl::FailedPreconditionError(fits.message());
    teacher->outputs[kind.output] = outputs->at(0);
  }
  return absl::OkStatus();
}

// Of a store: that what was asked for is what is needed.
absl::Status Teachers::CheckStored(const v1::Job& job, const std::vector<LabelKind>& kinds, const std::string& name,
                                   Teacher* teacher) {
  if (teacher->store == nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(soft_labels::CheckStoredSide(teacher->store->manifest(), teacher->reads, job.task()));
  soft_labels::Outputs outputs;
  for (const LabelKind& kind : kinds) {
    if (kind.teacher != name) continue;
    RETURN_IF_ERROR(soft_labels::CheckStored(teacher->store->manifest(), kind.output, kind.codec));
    outputs.push_back(teacher->outputs.at(kind.output));
  }
  teacher->store->UseOutputs(outputs);
  return absl::OkStatus();
}

absl::Status Teachers::Open(const v1::WorkerOrder::Assignment& assignment, const std::string& name,
                            soft_labels::LabelClient::Options options, std::vector<std::string>* addresses,
                            Teacher* teacher) {
  std::string store;
  for (const v1::TeacherEndpoint& endpoint : assignment.teachers()) {
    if (endpoint.name() != name) continue;
    if (!endpoint.address().empty()) {
      addresses->push_back(endpoint.address());
      options.server_ids.push_back(endpoint.server_id());
    }
    store = endpoint.store();
    teacher->digest = endpoint.digest();
    teacher->reads = endpoint.reads();
    options.parity_tolerance = endpoint.parity_tolerance();
    options.compression = endpoint.compression();
  }
  if (!store.empty()) {
    ASSIGN_OR_RETURN(teacher->store, soft_labels::LabelStore::Open(store));
    return absl::OkStatus();
  }
  if (addresses->empty()) return absl::InvalidArgumentError("the assignment names no replica");
  options.teacher_digest = teacher->digest;
  ASSIGN_OR_RETURN(teacher->client, soft_labels::LabelClient::Connect(*addresses, options));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Teachers>> Teachers::Connect(const v1::WorkerOrder::Assignment& assignment,
                                                            const std::vector<LabelKind>& kinds,
                                                            const std::string& run) {
  auto connected = std::make_unique<Teachers>();
  const v1::Job& job = assignment.job();
  connected->judges_tokens_ = models::JudgesTokens(job.task());
  connected->seed_ = job.seed();
  soft_labels::LabelClient::Options options;
  options.client = absl::StrCat(job.name(), "/worker-", assignment.rank());
  options.tenant = TenantNamed(run);
  options.priority = v1::PRIORITY_TRAINING;
  // A training waits for its teachers; who connects may look in between whether it is to leave.
  options.waits_for_replicas = true;
  options.give_up_after_ms = kConnectWithinMs;
  // Every record that the loader may have asked for: a slice for each step of the queue and for the one that waits
  // for room in it, by each codec. The slice is the whole batch where the others are gone, and the loader of the
  // generation before may have asked for as many.
  const int64_t slice = 2 * int64_t{job.plan().batch_size()};
  const int64_t most_steps = job.prefetch() > 0 ? job.prefetch() : soft_labels::kMostLookAhead;
  options.max_waiting_records = slice * (most_steps + 1) * static_cast<int64_t>(kinds.size());
  for (const LabelKind& kind : kinds) {
    if (connected->teachers_.contains(kind.teacher)) continue;
    Teacher& teacher = connected->teachers_[kind.teacher];
    std::vector<std::string> addresses;
    const std::string who = absl::StrCat("teacher '", kind.teacher, "'");
    RETURN_IF_ERROR(Annotate(Open(assignment, kind.teacher, options, &addresses, &teacher), who));
    const v1::DescribeReply& description = teacher.description();
    RETURN_IF_ERROR(Annotate(models::CheckSignature(description.signature(), assignment.job()), who));
    RETURN_IF_ERROR(Annotate(CheckOutputs(job, kinds, kind.teacher, &teacher), who));
    RETURN_IF_ERROR(Annotate(CheckStored(job, kinds, kind.teacher, &teacher), who));
    RETURN_IF_ERROR(Annotate(connected->FetchHeadIfNeeded(kind.teacher, kinds, addresses), who));
    if (!description.repeatable()) {
      spdlog::warn("{}: its labels are not repeatable (a record's depend on what it is batched with), nor is this run",
                   who);
    }
  }
  return connected;
}

absl::Status Teachers::UseIndex(const std::shared_ptr<const v1::CorpusIndex>& index) {
  for (auto& [name, teacher] : teachers_) {
    if (teacher.store == nullptr) continue;
    RETURN_IF_ERROR(Annotate(teacher.store->UseIndex(index), absl::StrCat("teacher '", name, "'")));
  }
  return absl::OkStatus();
}

absl::Status Teachers::FetchHeadIfNeeded(const std::string& name, const std::vector<LabelKind>& kinds,
                                         const std::vector<std::string>& addresses) {
  const bool needed = std::any_of(kinds.begin(), kinds.end(), [&](const LabelKind& kind) {
    return kind.teacher == name && kind.codec.codec == v1::CODEC_HIDDEN_HEAD;
  });
  if (!needed) return absl::OkStatus();
  const Teacher& teacher = teachers_.at(name);
  const v1::Head& described = teacher.description().head();
  ASSIGN_OR_RETURN(const std::string bytes,
                   teacher.store == nullptr ? soft_labels::FetchHead(addresses, described) : teacher.store->ReadHead());
  ASSIGN_OR_RETURN(const checkpoint::NamedTensors tensors,
                   checkpoint::ParseSafetensors(bytes, absl::StrCat("output head ", described.digest())));
  const int64_t logits = teacher.outputs.at(models::kLogits).width;
  losses::Head& head = heads_[name];
  for (const auto& [tensor_name, tensor] : tensors) (tensor_name == "weight" ? head.weight : head.bias) = tensor;
  const bool fits = head.weight.defined() && head.bias.defined() &&
                    head.weight.sizes() == at::IntArrayRef({logits, int64_t{described.width()}}) &&
                    head.bias.sizes() == at::IntArrayRef({logits}) && head.weight.scalar_type() == at::kFloat &&
                    head.bias.scalar_type() == at::kFloat;
  if (!fits || !head.weight.isfinite().all().item<bool>() || !head.bias.isfinite().all().item<bool>()) {
    return absl::DataLossError(absl::StrCat("its output head is no finite float32 weight [", logits, ", ",
                                            described.width(), "] and bias [", logits, "]"));
  }
  return absl::OkStatus();
}

std::map<std::string, losses::Head> Teachers::Heads(at::Device device, at::ScalarType type) const {
  std::map<std::string, losses::Head> heads;
  for (const auto& [name, head] : heads_) heads[name] = {head.weight.to(device, type), head.bias.to(device, type)};
  return heads;
}

std::vector<DataLoader::LabelSource> Teachers::Sources(const std::vector<LabelKind>& kinds) const {
  std::map<std::pair<std::string, soft_labels::CodecSettings>, DataLoader::LabelSource> sources;
  for (const LabelKind& kind : kinds) {
    const Teacher& teacher = teachers_.at(kind.teacher);
    const soft_labels::Output& output = teacher.outputs.at(kind.output);
    DataLoader::LabelSource& source = sources[{kind.teacher, kind.codec}];
    if (source.outputs.empty()) source.spec = soft_labels::SpecOf(kind.codec, seed_);
    source.spec.add_outputs(kind.output);
    source.outputs.push_back(output);
    source.draws_anew = kind.codec.draws_anew;
    // Of words, or of tokens some of which are hidden, the teacher sees what the student sees, whatever it is asked
    // for.
    source.sends_tokens |= output.of_tokens || judges_tokens_;
    source.teacher = kind.teacher;
    source.spec.set_teacher_digest(teacher.description().digest());
    source.reads = teacher.reads;
    source.input = teacher.description().signature().input();
    if (teacher.store != nullptr) continue;
    source.ask = [client = teacher.client.get()](v1::LabelSpec spec, std::vector<v1::LabelInput> inputs,
                                                 soft_labels::LabelClient::Callback callback) {
      client->Label(std::move(spec), std::move(inputs), std::move(callback));
    };
  }
  for (auto& [key, source] : sources) {
    const Teacher& teacher = teachers_.at(key.first);
    if (teacher.store == nullptr) continue;
    // `outputs` is whole by now.
    source.read = [store = teacher.store.get(), outputs = source.outputs](const std::vector<corpus::RecordRef>& refs,
                                                                          const std::vector<v1::LabelInput>& inputs) {
      return store->Read(outputs, refs, inputs);
    };
  }
  std::vector<DataLoader::LabelSource> list;
  for (auto& [key, source] : sources) list.push_back(std::move(source));
  return list;
}

void Teachers::SetReplicas(const v1::WorkerOrder::Assignment& assignment) {
  for (auto& [name, teacher] : teachers_) {
    if (teacher.client == nullptr) continue;
    std::vector<std::string> addresses, server_ids;
    for (const v1::TeacherEndpoint& endpoint : assignment.teachers()) {
      if (endpoint.name() != name || endpoint.address().empty()) continue;
      addresses.push_back(endpoint.address());
      server_ids.push_back(endpoint.server_id());
    }
    teacher.client->SetReplicas(std::move(addresses), std::move(server_ids));
  }
}

std::vector<std::string> Teachers::Missing() const {
  std::vector<std::string> missing;
  for (const auto& [name, teacher] : teachers_) {
    if (teacher.client != nullptr && !teacher.client->HasReplica()) missing.push_back(name);
  }
  return missing;
}

soft_labels::LabelClient::Counts Teachers::TakeCounts() {
  const soft_labels::LabelClient::Counts all = CountsOfAll();
  return all - std::exchange(taken_, all);
}

void Teachers::TellCounts(const std::string& job) const {
  const soft_labels::LabelClient::Counts all = CountsOfAll();
  if (all.requests == 0) return;
  spdlog::info("{}: {} requests for labels, {} of them to a second replica (hedged), which won {}; {} were sent again",
               job, all.requests, all.hedges, all.hedge_wins, all.retries);
}

soft_labels::LabelClient::Counts Teachers::CountsOfAll() const {
  soft_labels::LabelClient::Counts all;
  for (const auto& [name, teacher] : teachers_) {
    if (teacher.client != nullptr) all = all + teacher.client->counts();
  }
  return all;
}

int64_t Teachers::WidthOf(const LabelKind& kind) const {
  return teachers_.at(kind.teacher).outputs.at(kind.output).width;
}

}  // namespace polystill::student_worker
