#pragma once

// What the tests of RunMachine share.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "checkpoint/path.h"
#include "coordinator/run_machine.h"
#include "runtime/rpc.h"

namespace polystill::coordinator {

using std::chrono::milliseconds;

// An action in a line, so that tables can be read; empty for log lines.
struct Describe {
  std::string operator()(const SendToWorker& a) const {
    if (a.order.has_welcome()) return absl::StrCat("welcome ", a.stream);
    if (a.order.has_stop()) return absl::StrCat("stop ", a.stream);
    if (a.order.has_teachers())
      return absl::StrCat("teachers ", a.stream, " ", Replicas(a.order.teachers().teachers()));
    if (a.order.has_regroup()) {
      return absl::StrCat("regroup ", a.stream, " ", a.order.regroup().generation(),
                          a.order.regroup().at_boundary() ? " at boundary" : "");
    }
    const auto& x = a.order.assignment();
    return absl::StrCat("assign ", a.stream, " ", x.job().name(), " ", x.generation(), " rank ", x.rank(), "/",
                        x.world_size(), x.teachers_size() > 0 ? " teachers " : "", Replicas(x.teachers()),
                        x.checkpoint().empty() ? "" : " from ", x.checkpoint());
  }
  static std::string Replicas(const google::protobuf::RepeatedPtrField<v1::TeacherEndpoint>& teachers) {
    return absl::StrJoin(teachers, ",", [](std::string* out, const v1::TeacherEndpoint& t) {
      absl::StrAppend(out, t.address(), t.store(), "=", t.digest());
    });
  }
  std::string operator()(const SendToTeacher& a) const {
    if (a.order.has_welcome()) return absl::StrCat("welcome ", a.stream);
    if (a.order.has_stop()) return absl::StrCat("stop ", a.stream);
    return absl::StrCat("load ", a.stream, " ", a.order.load().package());
  }
  std::string operator()(const CloseStream& a) const {
    return absl::StrCat("close ", a.stream, " ", absl::StatusCodeToString(a.status.code()));
  }
  std::string operator()(const DescribeTeacher& a) const {
    return absl::StrCat("describe ", a.teacher, " ", a.address);
  }
  std::string operator()(const RecordGeneration& a) const {
    return absl::StrCat("record generation ", a.generation.number);
  }
  std::string operator()(const RecordWantedWorkers& a) const { return absl::StrCat("record workers ", a.workers); }
  std::string operator()(const RecordSegment& a) const { return absl::StrCat("record segment ", a.job); }
  std::string operator()(const RecordInput& a) const { return absl::StrCat("record input ", a.key, " ", a.digest); }
  std::string operator()(const RecordFinishedJob& a) const {
    return absl::StrCat("record done ", a.job, " ", a.weights_digest, " ", a.checkpoint);
  }
  std::string operator()(const RecordCheckpoint& a) const {
    return absl::StrCat("record checkpoint ", a.job, " ", a.checkpoint.step);
  }
  std::string operator()(const DropCheckpoint& a) const { return absl::StrCat("drop ", a.path); }
  std::string operator()(const DeleteCheckpoint& a) const { return absl::StrCat("delete ", a.path); }
  std::string operator()(const CleanCheckpoints& a) const { return absl::StrCat("clean ", a.folder); }
  std::string operator()(const ConfirmTerm&) const { return ""; }
  std::string operator()(const WriteReport&) const { return "report"; }
  std::string operator()(const Log&) const { return ""; }
  std::string operator()(const EndRun&) const { return "end"; }
};

inline v1::Teacher TrainedTeacher() {
  v1::Teacher teacher;
  teacher.set_name("english");
  teacher.mutable_train();
  teacher.set_replicas(1);
  return teacher;
}

inline v1::Teacher PackagedTeacher(int replicas) {
  v1::Teacher teacher;
  teacher.set_name("english");
  teacher.set_package("packages/english");
  teacher.set_replicas(replicas);
  return teacher;
}

inline PlannedJob Train(const std::string& name, int workers, std::vector<std::string> teachers = {}) {
  PlannedJob planned;
  planned.job.set_name(name);
  planned.job.set_kind(v1::Job::KIND_TRAIN);
  planned.job.set_steps(10);
  planned.job.set_checkpoints("run/checkpoints/" + name);
  planned.job.set_package("run/models/" + name);
  planned.teachers = std::move(teachers);
  planned.workers = workers;
  return planned;
}

inline PlannedJob EvaluateJob() {
  PlannedJob planned;
  planned.job.set_name("evaluate");
  planned.job.set_kind(v1::Job::KIND_EVALUATE);
  planned.workers = 1;
  return planned;
}

// Drives a machine with events by hand, by a clock that only the test moves.
class RunMachineTest : public testing::Test {
 protected:
  // `last`: the generation that an earlier coordinator formed.
  void Start(std::vector<PlannedJob> jobs, std::vector<v1::Teacher> teachers = {}, StateStore::Generation last = {}) {
    RunConfig config;
    config.run = "topics";
    config.term = 1;
    config.generation = std::move(last);
    config.store_host = "127.0.0.1";
    config.store_port = 4242;
    config.stages = {"index"};
    for (const PlannedJob& planned : jobs) config.stages.push_back(planned.job.name());
    config.teachers = std::move(teachers);
    config.labels = {"net", "devel"};
    machine_.emplace(std::move(config), now_);
    jobs_ = std::move(jobs);
  }

  std::vector<std::string> Do(const Event& event) {
    std::vector<std::string> lines;
    for (const Action& action : machine_->Handle(event, now_)) {
      if (std::string line = std::visit(Describe(), action); !line.empty()) lines.push_back(std::move(line));
    }
    return lines;
  }

  // Ticks as often as the loop does.
  std::vector<std::string> After(milliseconds time) {
    std::vector<std::string> lines;
    for (milliseconds step{}; time > step.zero(); time -= step) {
      step = std::min(time, milliseconds(100));
      now_ += step;
      for (std::string& line : Do(Tick{})) lines.push_back(std::move(line));
    }
    return lines;
  }

  std::vector<std::string> Prepared() {
    PreparedJobs prepared{jobs_, {}};
    for (const PlannedJob& planned : jobs_) prepared.totals[planned.job.name()] = 10;
    return Do(StagesFinished{prepared});
  }

  std::vector<std::string> WorkerJoins(StreamId stream, const std::string& id = "") {
    Do(StreamOpened{stream});
    return Do(WorkerSaid{stream, Hello(id.empty() ? absl::StrCat("worker-", stream) : id)});
  }

  static v1::WorkerMessage Hello(const std::string& id, int version = kProtocolVersion) {
    v1::WorkerMessage message;
    message.mutable_hello()->set_protocol_version(version);
    message.mutable_hello()->set_worker_id(id);
    message.mutable_hello()->set_host("127.0.0.1");
    return message;
  }

  std::vector<std::string> TeacherJoins(StreamId stream, const std::string& name = "english",
                                        const std::string& id = "", const std::string& serves = "") {
    Do(StreamOpened{stream});
    v1::TeacherMessage message;
    message.mutable_hello()->set_digest(serves);
    message.mutable_hello()->set_protocol_version(kProtocolVersion);
    message.mutable_hello()->set_server_id(id.empty() ? absl::StrCat("server-", stream) : id);
    message.mutable_hello()->set_teacher(name);
    message.mutable_hello()->set_address(absl::StrCat("host:", stream));
    return Do(TeacherSaid{stream, message});
  }

  std::vector<std::string> TeacherReady(StreamId stream, const std::string& digest = "abc") {
    v1::TeacherMessage message;
    message.mutable_ready()->set_digest(digest);
    return Do(TeacherSaid{stream, message});
  }

  std::vector<std::string> TeacherBeats(StreamId stream) {
    v1::TeacherMessage message;
    message.mutable_heartbeat();
    return Do(TeacherSaid{stream, message});
  }

  std::vector<std::string> TeacherFails(StreamId stream, const std::string& why) {
    v1::TeacherMessage message;
    message.mutable_failed()->set_message(why);
    return Do(TeacherSaid{stream, message});
  }

  std::vector<std::string> WorkerProgress(StreamId stream, int64_t generation, int64_t step, double loss,
                                          int64_t records) {
    v1::WorkerMessage message;
    auto& progress = *message.mutable_progress();
    progress.set_generation(generation);
    progress.set_step(step);
    progress.set_loss(loss);
    (*progress.mutable_records())["de"] = records;
    progress.set_labels(records);
    progress.set_label_bytes(40 * records);
    return Do(WorkerSaid{stream, message});
  }

  std::vector<std::string> WorkerDone(StreamId stream, int64_t generation, const std::string& digest,
                                      int64_t step = 10) {
    v1::WorkerMessage message;
    message.mutable_done()->mutable_progress()->set_generation(generation);
    message.mutable_done()->mutable_progress()->set_step(step);
    message.mutable_done()->set_weights_digest(digest);
    return Do(WorkerSaid{stream, message});
  }

  std::vector<std::string> WorkerFails(StreamId stream, int64_t generation, absl::StatusCode code,
                                       const std::string& why) {
    v1::WorkerMessage message;
    message.mutable_failed()->set_generation(generation);
    message.mutable_failed()->set_code(static_cast<int>(code));
    message.mutable_failed()->set_message(why);
    return Do(WorkerSaid{stream, message});
  }

  // `begun`: the generation that its training thread has begun; `idle`: that waits for another.
  std::vector<std::string> WorkerBeats(StreamId stream, int64_t begun = 0, bool idle = false) {
    v1::WorkerMessage message;
    message.mutable_heartbeat()->set_begun(begun);
    message.mutable_heartbeat()->set_idle(idle);
    return Do(WorkerSaid{stream, message});
  }

  // The last word of a member that leaves its generation.
  std::vector<std::string> WorkerLeaves(StreamId stream, int64_t generation,
                                        absl::StatusCode code = absl::StatusCode::kOk) {
    v1::WorkerMessage message;
    message.mutable_interrupted()->mutable_standing()->set_generation(generation);
    message.mutable_interrupted()->set_code(static_cast<int>(code));
    return Do(WorkerSaid{stream, message});
  }

  std::vector<std::string> WorkerHasWritten(StreamId stream, int64_t generation, int64_t step) {
    v1::WorkerMessage message;
    auto& written = *message.mutable_checkpointed();
    written.set_generation(generation);
    written.set_step(step);
    written.set_path(checkpoint::CheckpointPath(jobs_.front().job.checkpoints(), step, generation));
    return Do(WorkerSaid{stream, message});
  }

  std::vector<std::string> WorkerAgrees(StreamId stream, int64_t generation, const std::string& digest) {
    v1::WorkerMessage message;
    message.mutable_agreed()->set_generation(generation);
    message.mutable_agreed()->set_digest(digest);
    return Do(WorkerSaid{stream, message});
  }

  // A worker that has lost its coordinator, and comes back with what it does.
  std::vector<std::string> WorkerComesBack(StreamId stream, const std::string& id, int64_t generation, bool working) {
    Do(StreamOpened{stream});
    v1::WorkerMessage message = Hello(id);
    v1::Standing& standing = *message.mutable_hello()->mutable_standing();
    standing.set_job("distilled");
    standing.set_generation(generation);
    standing.set_working(working);
    return Do(WorkerSaid{stream, message});
  }

  v1::RunStatus Status() const { return machine_->Status(now_); }

  Instant now_{std::chrono::hours(1)};
  std::optional<RunMachine> machine_;
  std::vector<PlannedJob> jobs_;
};

}  // namespace polystill::coordinator
