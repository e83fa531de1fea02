// Teachers: servers that register and load a package, and teachers that run elsewhere.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/run_machine.h"
#include "models/outputs.h"

namespace polystill::coordinator {
namespace {

constexpr size_t kMaxNameBytes = 256;

}  // namespace

void RunMachine::Welcome(StreamId stream, const v1::TeacherMessage::Hello& hello) {
  const Teacher* teacher = FindTeacher(hello.teacher());
  if (teacher == nullptr) {
    const auto name = [](std::string* out, const Teacher& t) { out->append(t.spec.name()); };
    return Drop(stream, absl::NotFoundError(absl::StrCat("run ", config_.run, " has no teacher '", hello.teacher(),
                                                         "', only: ", absl::StrJoin(teachers_, ", ", name))));
  }
  if (!teacher->spec.address().empty()) {
    return Drop(stream, absl::FailedPreconditionError(absl::StrCat("teacher ", hello.teacher(), " runs at ",
                                                                   teacher->spec.address(), ", as the run file says")));
  }
  if (!teacher->spec.store().empty()) {
    return Drop(stream, absl::FailedPreconditionError(absl::StrCat("teacher ", hello.teacher(), "'s labels are in ",
                                                                   teacher->spec.store(), ", as the run file says")));
  }
  if (hello.server_id().empty() || hello.server_id().size() > kMaxNameBytes || hello.address().empty() ||
      hello.address().size() > kMaxNameBytes) {
    return Drop(stream, absl::InvalidArgumentError("hello needs a server_id and an address of 1 to 256 bytes"));
  }
  for (const auto& [other, server] : servers_) {
    if (server.id != hello.server_id()) continue;
    return Drop(stream, absl::AlreadyExistsError(absl::StrCat("server_id ", hello.server_id(), " is taken")));
  }
  strangers_.erase(stream);
  servers_[stream] = {stream, hello.server_id(), hello.teacher(), hello.address(), hello.digest(), false, "", {now_}};
  NoteTeachers();
  v1::TeacherOrder order;
  order.mutable_welcome()->set_protocol_version(hello.protocol_version());
  order.mutable_welcome()->set_term(config_.term);
  actions_.push_back(SendToTeacher{stream, std::move(order)});
  ++revision_;
  Say(absl::StrCat("teacher ", hello.teacher(), " joined at ", hello.address()));
}

RunMachine::TeacherServer* RunMachine::FindServer(StreamId stream) {
  const auto server = servers_.find(stream);
  return server == servers_.end() ? nullptr : &server->second;
}

RunMachine::Teacher* RunMachine::FindTeacher(const std::string& name) {
  for (Teacher& teacher : teachers_) {
    if (teacher.spec.name() == name) return &teacher;
  }
  return nullptr;
}

void RunMachine::NoteTeachers() {
  load_due_ = tell_due_ = missing_due_ = true;
  ++revision_;
}

void RunMachine::LoadTeachers() {
  if (!std::exchange(load_due_, false)) return;
  std::vector<StreamId> adopted;
  for (auto& [stream, server] : servers_) {
    const Teacher& teacher = *FindTeacher(server.teacher);
    if (server.loading || teacher.package.empty()) continue;
    server.loading = true;
    if (!server.serves.empty()) {
      adopted.push_back(server.stream);
      continue;
    }
    v1::TeacherOrder order;
    order.mutable_load()->set_package(teacher.package);
    order.mutable_load()->set_device(teacher.spec.device());
    actions_.push_back(SendToTeacher{server.stream, std::move(order)});
  }
  for (const StreamId stream : adopted) Adopt(FindServer(stream));
}

// It has lost an earlier coordinator, and serves what that had it load.
void RunMachine::Adopt(TeacherServer* server) {
  Teacher& teacher = *FindTeacher(server->teacher);
  if (teacher.digest.empty()) teacher.digest = server->serves;
  if (teacher.digest != server->serves) {
    return Drop(server->stream, absl::FailedPreconditionError(
                                    absl::StrCat("teacher ", server->teacher, ": this server serves package ",
                                                 server->serves, ", the others ", teacher.digest, "; start it again")));
  }
  server->digest = server->serves;
  NoteTeachers();
  Say(absl::StrCat("teacher ", server->teacher, " at ", server->address, " serves still"));
}

void RunMachine::DiscardServed(const v1::Job& job) {
  for (auto& [stream, server] : servers_) {
    if (absl::StrCat("teacher:", server.teacher) == job.name()) server.serves.clear();
  }
}

void RunMachine::OnReady(TeacherServer* server, const v1::TeacherMessage::Ready& ready) {
  if (!server->loading || ready.digest().empty()) {
    return Drop(server->stream, absl::InvalidArgumentError("ready needs an order to load before, and a digest"));
  }
  Teacher& teacher = *FindTeacher(server->teacher);
  if (teacher.digest.empty()) teacher.digest = ready.digest();
  if (teacher.digest != ready.digest()) {
    return End(v1::RunStatus::STATE_FAILED,
               absl::StrCat("teacher ", server->teacher, ": the server at ", server->address, " serves package ",
                            ready.digest(), ", the others ", teacher.digest));
  }
  server->digest = ready.digest();
  NoteTeachers();
}

void RunMachine::LoseTeacher(const TeacherServer& server, const std::string& why) {
  NoteTeachers();
  Say(absl::StrCat("teacher ", server.teacher, " at ", server.address, " left (", why, ")"));
}

std::vector<const RunMachine::TeacherServer*> RunMachine::ReadyServers(const std::string& teacher) const {
  std::vector<const TeacherServer*> ready;
  for (const auto& [stream, server] : servers_) {
    if (server.teacher == teacher && !server.digest.empty()) ready.push_back(&server);
  }
  return ready;
}

std::string RunMachine::WaitingForTeacher(const std::string& name, int replicas) const {
  for (const Teacher& teacher : teachers_) {
    if (teacher.spec.name() != name) continue;
    if (!teacher.spec.address().empty()) return teacher.digest.empty() ? absl::StrCat("teacher ", name) : "";
    if (!teacher.spec.store().empty()) return "";
    const size_t ready = ReadyServers(name).size();
    if (ready >= static_cast<size_t>(replicas)) return "";
    return absl::StrCat("teacher ", name, " (", ready, " of ", replicas, " servers)");
  }
  return absl::StrCat("teacher ", name);
}

std::string RunMachine::MissingTeachers(const PlannedJob& planned) const {
  std::set<std::string> missing;
  for (const std::string& name : planned.teachers) {
    if (!WaitingForTeacher(name, 1).empty() && now_ - began_ >= kComeBackWithin) missing.insert(name);
  }
  for (const Rank& rank : generation_->ranks) {
    if (rank.place != Rank::Place::kIn || !rank.progress.has_value()) continue;
    missing.insert(rank.progress->missing_teachers().begin(), rank.progress->missing_teachers().end());
  }
  const auto name = [](std::string* out, const std::string& teacher) { absl::StrAppend(out, "teacher ", teacher); };
  return absl::StrJoin(missing, ", ", name);
}

void RunMachine::TellTeachers() {
  if (!tell_due_ || !generation_.has_value() || generation_->phase == Generation::Phase::kBroken) return;
  if (now_ - told_at_ < std::chrono::milliseconds(generation_->ranks.size() / kToldAMillisecond)) return;
  const PlannedJob& planned = jobs_[next_job_];
  for (const std::string& name : planned.teachers) {
    const Teacher* teacher = FindTeacher(name);
    if (teacher == nullptr) return;
    // After a restart they come one by one, and the members know them all.
    const bool known = WaitingForTeacher(name, std::max(teacher->spec.replicas(), 1)).empty();
    if (!known && (now_ - began_ < kComeBackWithin || !teacher->spec.address().empty())) return;
  }
  tell_due_ = false;
  told_at_ = now_;
  told_ = ReplicaChoice(EndpointsOf(planned));
  for (Rank& rank : generation_->ranks) {
    if (rank.place == Rank::Place::kIn) TellTeachers(&rank);
  }
}

void RunMachine::TellTeachers(Rank* rank) {
  v1::WorkerOrder order;
  order.mutable_teachers()->set_term(config_.term);
  order.mutable_teachers()->set_generation(generation_->number);
  const uint64_t before =
      std::exchange(rank->replicas, told_.For(rank->worker, order.mutable_teachers()->mutable_teachers()));
  if (rank->replicas != before) actions_.push_back(SendToWorker{rank->stream, std::move(order)});
}

std::vector<v1::TeacherEndpoint> RunMachine::EndpointsOf(const PlannedJob& planned) const {
  std::vector<v1::TeacherEndpoint> endpoints;
  const auto add = [&endpoints](const Teacher& teacher, const std::string& address, const std::string& server_id = "") {
    v1::TeacherEndpoint endpoint;
    endpoint.set_name(teacher.spec.name());
    endpoint.set_address(address);
    endpoint.set_server_id(server_id);
    endpoint.set_digest(teacher.digest);
    endpoint.set_reads(teacher.spec.reads());
    endpoint.set_compression(teacher.spec.compression());
    endpoint.set_parity_tolerance(teacher.spec.parity_tolerance());
    endpoint.set_store(teacher.spec.store());
    endpoints.push_back(std::move(endpoint));
  };
  for (const std::string& name : planned.teachers) {
    for (const Teacher& teacher : teachers_) {
      if (teacher.spec.name() != name) continue;
      if (!teacher.spec.address().empty()) add(teacher, teacher.spec.address());
      if (!teacher.spec.store().empty()) add(teacher, "");
      for (const TeacherServer* server : ReadyServers(name)) add(teacher, server->address, server->id);
    }
  }
  return endpoints;
}

void RunMachine::DescribeTeachers() {
  described_ = now_;
  for (const Teacher& teacher : teachers_) {
    if (teacher.spec.address().empty()) continue;
    actions_.push_back(DescribeTeacher{teacher.spec.name(), teacher.spec.address()});
  }
}

void RunMachine::DescribeAgain() {
  for (Teacher& teacher : teachers_) {
    if (!running() || !teacher.ask_at.has_value() || now_ < *teacher.ask_at) continue;
    teacher.ask_at.reset();
    actions_.push_back(DescribeTeacher{teacher.spec.name(), teacher.spec.address()});
  }
}

void RunMachine::On(const TeacherDescribed& event) {
  Teacher* teacher = FindTeacher(event.teacher);
  if (teacher == nullptr || !running()) return;
  const std::string who = absl::StrCat("teacher ", event.teacher, " at ", teacher->spec.address());
  if (absl::IsUnavailable(event.reply.status()) && now_ - *described_ < kLoadWithin) {
    teacher->ask_at = now_ + kAskEvery;
    return;
  }
  if (!event.reply.ok()) {
    return End(v1::RunStatus::STATE_FAILED, absl::StrCat(who, ": ", event.reply.status().message()));
  }
  // One that gives features alone has no classes.
  const auto& labels = event.reply->signature().labels();
  if (models::GivesLogits(event.reply->signature()) &&
      !std::equal(labels.begin(), labels.end(), config_.labels.begin(), config_.labels.end())) {
    return End(v1::RunStatus::STATE_FAILED, absl::StrCat(who, " answers for the classes ", absl::StrJoin(labels, ", "),
                                                         "; corpus.labels are ", absl::StrJoin(config_.labels, ", ")));
  }
  if (event.reply->digest().empty()) {
    return End(v1::RunStatus::STATE_FAILED, absl::StrCat(who, " tells no digest of its package; use another server"));
  }
  RunInput input{absl::StrCat("teachers.", teacher - teachers_.data(), ".address"), teacher->spec.address(), {}};
  input.digest = event.reply->digest();
  for (const PlannedJob& planned : jobs_) {
    const auto& asked = planned.teachers;
    const bool asks = std::find(asked.begin(), asked.end(), event.teacher) != asked.end();
    if (asks) input.jobs.push_back(planned.job.name());
  }
  if (!AdoptInput(input)) return;
  teacher->digest = event.reply->digest();
  NoteTeachers();
}

}  // namespace polystill::coordinator
