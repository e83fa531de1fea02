#include "coordinator/run_coordinator.h"

#include <signal.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <future>
#include <iostream>
#include <memory>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "checkpoint/checkpoint.h"
#include "collectives/store_server.h"
#include "coordinator/address_file.h"
#include "coordinator/dry_run.h"
#include "coordinator/event_queue.h"
#include "coordinator/job_curves.h"
#include "coordinator/jobs.h"
#include "coordinator/metrics.h"
#include "coordinator/resumption.h"
#include "coordinator/run_file.h"
#include "coordinator/run_folder.h"
#include "coordinator/run_inputs.h"
#include "coordinator/run_loop.h"
#include "coordinator/run_report.h"
#include "coordinator/service.h"
#include "coordinator/spec_difference.h"
#include "coordinator/stages.h"
#include "coordinator/state_store.h"
#include "coordinator/status_file.h"
#include "corpus/tokenizer.h"
#include "models/package.h"
#include "models/package_manifest.h"
#include "models/signature.h"
#include "runtime/address.h"
#include "runtime/files.h"
#include "runtime/random_id.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "runtime/yaml_proto.h"
#include "soft_labels/store_manifest.h"

namespace polystill::coordinator {
namespace {

constexpr std::chrono::milliseconds kSignalPoll{50};
constexpr std::chrono::seconds kShutdownPatience{2};
constexpr std::chrono::seconds kStagesPatience{1};

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

// What a run reads, and must not delete.
std::vector<RunFolder::Input> ReadByRun(const v1::RunSpec& spec) {
  std::vector<RunFolder::Input> inputs = {{"corpus.path", spec.corpus().path()}};
  for (const RunInput& input : InputsOf(spec)) inputs.push_back({input.key, input.path});
  return inputs;
}

// That nothing asks a teacher that gives features alone for logits.
absl::Status CheckFeaturesAlone(const v1::RunSpec& spec, const v1::Teacher& teacher) {
  constexpr char kWhy[] = "gives features alone (its signature.labels is empty)";
  for (int i = 0; i < spec.student().losses_size(); ++i) {
    const v1::Loss& loss = spec.student().losses(i);
    const bool asks = IsOfTeachersLogits(loss) && (loss.teacher().empty() || loss.teacher() == teacher.name());
    if (!asks) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        kWhy, ", but student.losses.", i, " learns from logits; write kind: embedding or hidden, or another teacher"));
  }
  const bool zero_shot =
      std::find(spec.baselines().begin(), spec.baselines().end(), v1::BASELINE_ZERO_SHOT) != spec.baselines().end();
  if (!zero_shot || ReportedTeacher(spec) != &teacher) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      kWhy, ", so it cannot be evaluated; take zero_shot out of baselines, or let the first loss ask another teacher"));
}

// That the packages of teachers do the run's task and answer for its classes, while nothing has been started.
absl::Status CheckPackages(const v1::RunSpec& spec) {
  const std::string wanted = absl::StrJoin(spec.corpus().labels(), ", ");
  for (int i = 0; i < spec.teachers_size(); ++i) {
    const std::string& package = spec.teachers(i).package();
    if (package.empty()) continue;
    ASSIGN_OR_RETURN(const v1::PackageManifest manifest, models::ReadPackageManifest(package));
    const std::string path = absl::StrCat("teachers.", i, ".package: ", package);
    if (!models::GivesLogits(manifest.signature())) {
      RETURN_IF_ERROR(Annotate(CheckFeaturesAlone(spec, spec.teachers(i)), path));
      continue;
    }
    RETURN_IF_ERROR(Annotate(models::CheckSignatureTask(manifest.signature(), spec.task()), path));
    const std::string labels = absl::StrJoin(manifest.signature().labels(), ", ");
    if (labels == wanted) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(path, " answers for the classes ", labels, "; corpus.labels are ", wanted));
  }
  return absl::OkStatus();
}

// Looks at what lies in the run's folder byte by byte.
Verifiers MakeVerifiers() {
  Verifiers verifiers;
  verifiers.checkpoint = [](const std::string& path) -> absl::StatusOr<StateStore::Checkpoint> {
    ASSIGN_OR_RETURN(checkpoint::CheckpointState state, checkpoint::LoadCheckpoint(path));
    const std::string digest = models::WeightsDigest(checkpoint::TrainedOf(std::move(state.model), state.projections));
    return StateStore::Checkpoint{state.step, state.generation, path, digest};
  };
  verifiers.package = [](const std::string& folder, const std::string& weights_digest) -> absl::Status {
    ASSIGN_OR_RETURN(const models::Package package, models::LoadPackage(folder));
    const std::string digest = models::WeightsDigest(*package.model);
    if (digest == weights_digest) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(folder, ": has weights ", digest, ", but the job made ", weights_digest));
  };
  return verifiers;
}

// Whoever watches the run of a coordinator that was killed means the one that goes on with it.
std::string RunIdOf(const CoordinatorOptions& options, const v1::RunSpec& spec) {
  if (!options.resume && !options.resume_or_start) return RandomId();
  const auto left = ReadAddressFile(absl::StrCat(spec.output(), "/", kAddressFile));
  return left.ok() ? left->run_id : RandomId();
}

// Everything that belongs to one run.
class Coordinator {
 public:
  explicit Coordinator(const CoordinatorOptions& options) : options_(options) {}
  ~Coordinator();

  // Up to the moment from which processes can join.
  absl::Status Prepare();
  // Until the run has ended; the process's exit code.
  int Run();

 private:
  absl::Status ListenForAll();
  absl::Status OpenFolder();
  absl::Status ReopenFolder();
  void RunStagesAside();
  void WriteReportAside(const WriteReport& order, const v1::RunStatus& status);
  v1::RunStatus WaitForEnd(std::future<v1::RunStatus> ended);

  const CoordinatorOptions options_;
  v1::RunSpec spec_;
  EventQueue events_;
  std::string run_id_;
  Metrics metrics_;
  RunMetrics run_metrics_{&metrics_};
  std::unique_ptr<Service> service_;
  ListeningServer listening_;
  std::unique_ptr<collectives::StoreServer> rendezvous_;
  std::unique_ptr<RunFolder> folder_;
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<StatusFile> status_file_;
  Resumption resumption_;
  StateStore::Generation last_generation_;
  int64_t wanted_workers_ = 0;
  // Written by the stages' thread before it posts StagesFinished, read after that.
  Stages stages_;
  std::atomic<bool> stop_stages_ = false;
  std::promise<void> stages_ended_;
  std::thread stages_thread_;
  std::jthread report_thread_;
  // An earlier process has done it all.
  bool done_ = false;
  int exit_code_ = kExitFailed;
};

// Tells how the run ended.
int ExitCodeOf(const v1::RunStatus& status) {
  switch (status.state()) {
    case v1::RunStatus::STATE_DONE:
      spdlog::info("done: {}", status.report());
      return kExitDone;
    case v1::RunStatus::STATE_STOPPED:
      spdlog::info("stopped: {}", status.reason());
      return kExitStopped;
    default:
      spdlog::error("failed: {}", status.reason());
      return kExitFailed;
  }
}

absl::Status Coordinator::ListenForAll() {
  ASSIGN_OR_RETURN(listening_, Listen(options_.listen, {service_.get()}, options_.insecure, options_.advertise));
  ASSIGN_OR_RETURN(rendezvous_, collectives::StoreServer::Start(HostOf(options_.listen)));
  return absl::OkStatus();
}

absl::Status Coordinator::ReopenFolder() {
  ASSIGN_OR_RETURN(RunFolder folder, RunFolder::Reopen(spec_.output()));
  folder_ = std::make_unique<RunFolder>(std::move(folder));
  ASSIGN_OR_RETURN(store_, StateStore::Open(folder_->PathOf(kStateFile)));
  const auto began = store_->Spec();
  if (absl::IsNotFound(began.status())) return absl::OkStatus();  // it died before it had begun
  if (!began.ok()) return began.status();
  RETURN_IF_ERROR(CheckSameRun(*began, spec_));
  done_ = std::filesystem::exists(folder_->PathOf(kReportFile));  // it comes last
  if (done_) return absl::OkStatus();
  ASSIGN_OR_RETURN(resumption_, FindResumption(spec_, MakeVerifiers(), store_.get()));
  return absl::OkStatus();
}

absl::Status Coordinator::OpenFolder() {
  ASSIGN_OR_RETURN(const bool holds_run, RunFolder::HoldsRun(spec_.output()));
  if (options_.resume || (options_.resume_or_start && holds_run)) {
    RETURN_IF_ERROR(ReopenFolder());
    RETURN_IF_ERROR(store_->PutSpec(spec_));
    return WriteFileAtomically(folder_->PathOf(kSpecFile), WriteYaml(spec_));
  }
  ASSIGN_OR_RETURN(RunFolder folder, RunFolder::Open(spec_.output(), options_.overwrite, ReadByRun(spec_)));
  folder_ = std::make_unique<RunFolder>(std::move(folder));
  ASSIGN_OR_RETURN(store_, StateStore::Open(folder_->PathOf(kStateFile)));
  RETURN_IF_ERROR(store_->PutSpec(spec_));
  return WriteFileAtomically(folder_->PathOf(kSpecFile), WriteYaml(spec_));
}

absl::Status Coordinator::Prepare() {
  ASSIGN_OR_RETURN(const RunFile file, ReadRunFile(options_.spec, options_.settings));
  spec_ = file.spec;
  run_id_ = RunIdOf(options_, spec_);
  service_ = std::make_unique<Service>(&events_, Service::Options{.run_id = run_id_});
  // Before the folder: a port in use must not cost an earlier run.
  RETURN_IF_ERROR(ListenForAll());
  if (!options_.metrics.empty()) RETURN_IF_ERROR(metrics_.Listen(options_.metrics, options_.insecure));
  RETURN_IF_ERROR(OpenFolder());
  ASSIGN_OR_RETURN(last_generation_, store_->LastGeneration());
  ASSIGN_OR_RETURN(wanted_workers_, store_->WantedWorkers());
  const v1::Student& student = spec_.student();
  service_->AllowScale(student.min_workers() > 0 ? student.min_workers() : student.workers(),
                       student.max_workers() > 0 ? student.max_workers() : student.workers());
  spdlog::info("run {}: term {}, listening on {}", spec_.name(), store_->term(), listening_.address);
  status_file_ = std::make_unique<StatusFile>(folder_->PathOf(kStatusFile));
  RETURN_IF_ERROR(WriteAddressFile(folder_->PathOf(kAddressFile), {listening_.address, run_id_}));
  if (options_.address_file.empty()) return absl::OkStatus();
  return WriteFileAtomically(options_.address_file, listening_.address + "\n");
}

void Coordinator::RunStagesAside() {
  const auto progress = [this](StageProgress update) { events_.Post(std::move(update)); };
  const auto run = [&]() -> absl::StatusOr<Stages> {
    RETURN_IF_ERROR(CheckPackages(spec_));
    return RunStages(spec_, progress, stop_stages_, resumption_.finished["tokenizer"]);
  };
  absl::StatusOr<Stages> stages = run();
  if (stages.ok()) {
    stages_ = std::move(*stages);
    Service::Indexes indexes;
    for (const auto& [digest, index] : stages_.indexes) {
      indexes[digest] = std::make_shared<const std::string>(IndexBytes(*index));
    }
    service_->PutIndexes(std::move(indexes));
    events_.Post(StagesFinished{stages_.prepared});
  } else {
    events_.Post(StagesFinished{stages.status()});
  }
  stages_ended_.set_value();
}

void Coordinator::WriteReportAside(const WriteReport& order, const v1::RunStatus& status) {
  FinishedRun run{spec_, status, stages_.prepared.jobs, order.teacher_digests, "", {}};
  for (const auto& [digest, index] : stages_.indexes) run.indexes.push_back(index);
  for (const v1::Teacher& teacher : spec_.teachers()) {
    // A run resumed for its evaluation alone asks no teacher who it is.
    const std::string package = TeacherPackage(spec_, teacher);
    if (!package.empty() && run.teacher_digests[teacher.name()].empty()) {
      run.teacher_digests[teacher.name()] = models::PackageDigest(package).value_or("");
    }
    if (teacher.store().empty()) continue;
    const auto store = soft_labels::ReadStore(teacher.store());
    if (store.ok()) run.teacher_digests[teacher.name()] = store->teacher().digest();
  }
  report_thread_ = std::jthread([this, run = std::move(run)](const std::stop_token& stop) mutable {
    auto digest = models::PackageDigest(PackageFolder(spec_, "distilled"));
    if (!digest.ok()) return events_.Post(ReportFinished{digest.status()});
    run.student_digest = *std::move(digest);
    events_.Post(ReportFinished{WriteRunReport(run, stop)});
  });
}

int Coordinator::Run() {
  if (done_) {
    spdlog::info("done already: {}", folder_->PathOf(kReportFile));
    return kExitDone;
  }
  RunConfig config;
  config.run = spec_.name();
  config.term = store_->term();
  config.generation = last_generation_;
  config.wanted_workers = wanted_workers_;
  config.resumed = resumption_;
  config.store_host = HostOf(listening_.address);
  config.store_port = rendezvous_->port();
  config.stages = StageNames(spec_);
  config.teachers.assign(spec_.teachers().begin(), spec_.teachers().end());
  config.labels.assign(spec_.corpus().labels().begin(), spec_.corpus().labels().end());
  RunLoop::Options options;
  options.begin_generation = [this](int64_t number) { rendezvous_->Forget(OfEarlierGenerations(number)); };
  std::set<std::string> finished;
  for (const auto& [job, digest] : resumption_.finished) finished.insert(job);
  JobCurves curves(folder_->PathOf(kEventsFolder), store_->term(), finished);
  options.observe = [&](const v1::RunStatus& status) {
    status_file_->Observe(status);
    run_metrics_.Observe(status);
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    curves.Observe(status, std::chrono::duration<double>(now).count());
  };
  RunLoop loop(
      std::move(config), &events_, service_.get(), store_.get(),
      [this](const WriteReport& order, const v1::RunStatus& status) { WriteReportAside(order, status); }, options);
  stages_thread_ = std::thread([this] { RunStagesAside(); });
  exit_code_ = ExitCodeOf(WaitForEnd(std::async(std::launch::async, [&loop] { return loop.Run(); })));
  return exit_code_;
}

v1::RunStatus Coordinator::WaitForEnd(std::future<v1::RunStatus> ended) {
  const sigset_t signals = StopSignals();
  const timespec poll{0, std::chrono::nanoseconds(kSignalPoll).count()};
  bool asked = false;
  while (ended.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    const int signal = sigtimedwait(&signals, nullptr, &poll);
    if (signal <= 0) continue;
    if (asked) std::_Exit(kExitStopped);
    asked = true;
    events_.Post(StopAsked{absl::StrCat("stopped by ", signal == SIGINT ? "SIGINT" : "SIGTERM")});
  }
  return ended.get();
}

Coordinator::~Coordinator() {
  if (service_ != nullptr) service_->CloseAll();
  if (listening_.server != nullptr) listening_.server->Shutdown(std::chrono::system_clock::now() + kShutdownPatience);
  report_thread_.request_stop();
  if (report_thread_.joinable()) report_thread_.join();
  const bool present = store_ != nullptr && store_->CheckTerm().ok();  // a successor's address may be the same
  if (present) RemoveAddressFile(folder_->PathOf(kAddressFile), {listening_.address, run_id_});
  stop_stages_ = true;
  if (!stages_thread_.joinable()) return;
  if (stages_ended_.get_future().wait_for(kStagesPatience) != std::future_status::ready) {
    // Indexing and tokeniser training cannot be interrupted. Whatever they write appears whole or not at all, so the
    // process may leave in the middle; only a stopped or failed run gets here.
    spdlog::info("leaving while the corpus is still being read");
    std::_Exit(exit_code_);
  }
  stages_thread_.join();
}

int DryRun(const CoordinatorOptions& options) {
  absl::StatusOr<RunFile> file = ReadRunFile(options.spec, options.settings);
  const auto plan = [&]() -> absl::StatusOr<std::string> {
    RETURN_IF_ERROR(file.status());
    RETURN_IF_ERROR(CheckPackages(file->spec));
    v1::Tokenizer& tokenizer = *file->spec.mutable_tokenizer();
    if (!tokenizer.path().empty()) {
      ASSIGN_OR_RETURN(const auto given, corpus::Tokenizer::Load(tokenizer.path(), tokenizer.max_length()));
      tokenizer.set_vocab_size(given->vocab_size());
    }
    const auto parameters = [](const v1::Job& job) -> absl::StatusOr<int64_t> {
      const models::ModelShape shape = models::ShapeOf(job, job.tokenizer().vocab_size());
      ASSIGN_OR_RETURN(const auto model, models::MakeModel(shape, job.seed()));
      return models::ParameterCount(model->NamedParameters());
    };
    return DescribeDryRun(file->spec, parameters);
  }();
  if (!plan.ok()) {
    spdlog::error("{}", std::string(plan.status().message()));
    return kExitFailed;
  }
  std::cout << *plan << std::flush;
  return kExitDone;
}

}  // namespace

int RunCoordinator(const CoordinatorOptions& options) {
  if (options.dry_run) return DryRun(options);
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  Coordinator coordinator(options);
  const absl::Status prepared = coordinator.Prepare();
  if (!prepared.ok()) {
    spdlog::error("{}", std::string(prepared.message()));
    return kExitFailed;
  }
  return coordinator.Run();
}

}  // namespace polystill::coordinator
