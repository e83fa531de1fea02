#include "cli/status_command.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "cli/exit_codes.h"
#include "cli/progress.h"
#include "coordinator/address_file.h"
#include "coordinator/run_folder.h"
#include "coordinator/status_file.h"
#include "polystill/v1/coordinator.grpc.pb.h"
#include "runtime/rpc.h"
#include "runtime/status.h"

namespace polystill::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kAnswerWithin{2};
constexpr std::chrono::milliseconds kLookUpEvery{100};
constexpr int kWidth = 120;

class RunInFolder {
 public:
  explicit RunInFolder(const std::string& folder) : folder_(folder) {}

  absl::Status Check() const {
    if (fs::exists(PathOf(coordinator::kStateFile))) return absl::OkStatus();
    return absl::NotFoundError(absl::StrCat(folder_, ": holds no run; name the output folder of one"));
  }

  // The coordinator's word. UNAVAILABLE when none answers, NOT_FOUND when it has left, or another run's answers.
  absl::StatusOr<v1::RunStatus> Ask() {
    ASSIGN_OR_RETURN(coordinator_, coordinator::ReadAddressFile(PathOf(coordinator::kAddressFile)));
    stub_ = v1::CoordinatorService::NewStub(Connect(coordinator_.address));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kAnswerWithin);
    v1::WatchRequest request;
    request.set_protocol_version(kProtocolVersion);
    request.set_run_id(coordinator_.run_id);
    const auto stream = stub_->Watch(&context, request);
    v1::RunStatus status;
    const bool answered = stream->Read(&status);
    if (answered) context.TryCancel();  // one status is enough; without one, the end says why
    const grpc::Status end = stream->Finish();
    if (answered) return status;
    return end.ok() ? absl::UnavailableError("it said nothing") : FromGrpc(end);
  }

  absl::Status Stop() {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kAnswerWithin);
    v1::StopRequest request;
    request.set_protocol_version(kProtocolVersion);
    request.set_reason("stopped by polystill stop");
    request.set_run_id(coordinator_.run_id);
    v1::StopReply reply;
    return FromGrpc(stub_->Stop(&context, request, &reply));
  }

  absl::StatusOr<v1::ScaleReply> Scale(int workers) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kAnswerWithin);
    v1::ScaleRequest request;
    request.set_protocol_version(kProtocolVersion);
    request.set_run_id(coordinator_.run_id);
    request.set_workers(workers);
    v1::ScaleReply reply;
    RETURN_IF_ERROR(FromGrpc(stub_->Scale(&context, request, &reply)));
    return reply;
  }

  // The coordinator's word, or else its last one.
  absl::StatusOr<v1::RunStatus> Find() {
    if (auto asked = Ask(); asked.ok()) return asked;
    return Last();
  }

  // What the files say of a run that no coordinator leads any more.
  absl::StatusOr<v1::RunStatus> Last() const {
    auto status = coordinator::ReadStatusFile(PathOf(coordinator::kStatusFile));
    if (absl::IsNotFound(status.status())) status.emplace();
    if (!status.ok()) return status;
    if (status->state() == v1::RunStatus::STATE_RUNNING || status->state() == v1::RunStatus::STATE_UNSPECIFIED) {
      status->set_state(v1::RunStatus::STATE_FAILED);
      status->set_reason("its coordinator is gone without a word");
    }
    return status;
  }

  std::string ResumeCommand() const {
    return absl::StrCat("polystill run ", PathOf(coordinator::kSpecFile), " --resume");
  }
  std::string PathOf(const char* name) const { return absl::StrCat(folder_, "/", name); }

 private:
  const std::string folder_;
  coordinator::CoordinatorAddress coordinator_;
  std::unique_ptr<v1::CoordinatorService::Stub> stub_;
};

std::string StateText(const v1::RunStatus& status) {
  switch (status.state()) {
    case v1::RunStatus::STATE_RUNNING:
      return "running";
    case v1::RunStatus::STATE_DONE:
      return absl::StrCat("done: ", status.report());
    case v1::RunStatus::STATE_STOPPED:
      return absl::StrCat("stopped: ", status.reason());
    default:
      return absl::StrCat("failed: ", status.reason());
  }
}

// The stages so far: what is finished, and the one under way.
std::string Text(const v1::RunStatus& status) {
  std::string text = absl::StrCat("run ", status.run(), ": ", StateText(status), "\n");
  for (int i = 0; i < status.stages_size() && i <= status.current(); ++i) {
    const v1::RunStatus::Stage& stage = status.stages(i);
    absl::StrAppend(&text, "  ", stage.finished() ? FinishedLine(stage) : RunningLine(stage, stage.seconds(), kWidth),
                    "\n", WorkerLines(stage));
  }
  for (const std::string& worker : status.left_out()) absl::StrAppend(&text, "  ", worker, "\n");
  return text;
}

int Fail(const absl::Status& status, int code, std::ostream& err) {
  err << "polystill: " << status.message() << std::endl;
  return code;
}

// Why a run does not answer.
absl::Status WhyNoAnswer(const absl::Status& why, const std::string& folder) {
  const bool none = absl::IsNotFound(why) || absl::IsUnavailable(why) || absl::IsUnimplemented(why);
  if (!none) return Annotate(why, folder);
  return absl::UnavailableError(absl::StrCat(folder, ": no run is under way here"));
}

}  // namespace

int ShowStatus(const std::string& folder, bool json, std::ostream& out, std::ostream& err) {
  RunInFolder run(folder);
  if (const absl::Status there = run.Check(); !there.ok()) return Fail(there, kExitUsage, err);
  const auto status = run.Find();
  if (!status.ok()) return Fail(status.status(), kExitFailed, err);
  out << (json ? coordinator::StatusJson(*status) : Text(*status));
  const bool ended = status->state() != v1::RunStatus::STATE_RUNNING && status->state() != v1::RunStatus::STATE_DONE;
  if (ended && !json) out << "go on with: " << run.ResumeCommand() << "\n";
  out << std::flush;
  return kExitFine;
}

int StopRun(const std::string& folder, std::ostream& out, std::ostream& err) {
  RunInFolder run(folder);
  if (const absl::Status there = run.Check(); !there.ok()) return Fail(there, kExitUsage, err);
  auto status = run.Ask();
  if (!status.ok()) return Fail(WhyNoAnswer(status.status(), folder), kExitFailed, err);
  const absl::Status told = run.Stop();
  if (!told.ok()) return Fail(Annotate(told, folder), kExitFailed, err);
  // The coordinator takes its address away when everybody has left; one that was killed does not answer.
  while (fs::exists(run.PathOf(coordinator::kAddressFile))) {
    if (const auto again = run.Ask(); again.ok()) {
      status = again;
    } else {
      break;
    }
    std::this_thread::sleep_for(kLookUpEvery);
  }
  if (auto last = run.Last(); last.ok()) status = std::move(last);
  out << Text(*status);
  if (status->state() == v1::RunStatus::STATE_STOPPED) out << "go on with: " << run.ResumeCommand() << "\n";
  out << std::flush;
  return status->state() == v1::RunStatus::STATE_FAILED ? kExitFailed : kExitFine;
}

int ScaleRun(const std::string& folder, int workers, std::ostream& out, std::ostream& err) {
  RunInFolder run(folder);
  if (const absl::Status there = run.Check(); !there.ok()) return Fail(there, kExitUsage, err);
  if (const auto status = run.Ask(); !status.ok()) {
    return Fail(WhyNoAnswer(status.status(), folder), kExitFailed, err);
  }
  const absl::StatusOr<v1::ScaleReply> reply = run.Scale(workers);
  if (!reply.ok()) {
    return Fail(reply.status(), absl::IsInvalidArgument(reply.status()) ? kExitUsage : kExitFailed, err);
  }
  out << "wants " << workers << " workers from its next step boundary on; " << reply->workers() << " are here now"
      << std::endl;
  return kExitFine;
}

}  // namespace polystill::cli
