#include "student_worker/generation.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "corpus/reader.h"
#include "models/model.h"
#include "runtime/status.h"
#include "runtime/yaml_proto.h"
#include "student_worker/agreement.h"
#include "student_worker/masker.h"
#include "student_worker/schedule.h"

namespace polystill::student_worker {
namespace {

// For a rank that waits for labels, which is no dead rank. A killed one shows at once, and of one that hangs the
// coordinator hears nothing: then it interrupts the others.
constexpr std::chrono::seconds kPeerTimeout(90);
// For all ranks to be ready.
constexpr std::chrono::seconds kJoinTimeout(60);
// For labels that are on their way when the stop comes: a whole step more ends at a boundary with a checkpoint.
constexpr std::chrono::seconds kStopPatience(3);

// Steps between two comparisons of the replicas' weights: the digest of 3 million takes 7 ms, 0.3% of so many steps.
constexpr int64_t kCompareEvery = 100;

// Reads of a block per pass and rank from which on reading is said to be slow; 1 when every block is read once.
constexpr double kManyReads = 2;

std::vector<std::string> LanguagesOf(const v1::CorpusIndex& index) {
  std::vector<std::string> names;
  for (const auto& language : index.languages()) names.push_back(language.name());
  return names;
}

}  // namespace

Generation::Generation(const v1::WorkerOrder::Assignment& assignment, const WorkerContext& context, Training* training)
    : assignment_(assignment),
      job_(training->job),
      context_(context),
      training_(*training),
      replica_(*training->replica),
      progress_(training->progress) {
  progress_.set_generation(assignment.generation());
  context_.membership->ListenToTeachers(
      [teachers = training->teachers.get()](const v1::WorkerOrder::Assignment& now) { teachers->SetReplicas(now); });
}

Generation::~Generation() { context_.membership->ListenToTeachers(nullptr); }

absl::Status Generation::Form() {
  RETURN_IF_ERROR(Join());
  context_.membership->Joined();
  const auto start_anew = [this]() -> absl::Status {
    ASSIGN_OR_RETURN(const auto fresh, training_.start());
    return replica_.Take(fresh->State());
  };
  ASSIGN_OR_RETURN(const Source source,
                   AgreeOnState(assignment_, group_.get(), context_.membership, &replica_, start_anew));
  first_step_ = called_step_ = replica_.step();
  roll_call_ = std::make_unique<RollCall>(group_.get(), first_step_);
  TellState();
  if (context_.trace != nullptr) {
    context_.trace->Enter(job_.name(), assignment_.generation(), assignment_.rank(), assignment_.world_size());
    RETURN_IF_ERROR(context_.trace->Agreed(first_step_, replica_.Digest(), source.state.generation,
                                           source.kind == Source::Kind::kCheckpoint));
  }
  if (first_step_ > 0) {
    spdlog::info("{}: generation {} goes on after step {} from {}", job_.name(), assignment_.generation(), first_step_,
                 source.kind == Source::Kind::kCheckpoint ? assignment_.checkpoint()
                                                          : absl::StrCat("the memory of rank ", source.rank));
  }
  return LoadData();
}

absl::Status Generation::Join() {
  collectives::Group::Options options;
  options.rank = assignment_.rank();
  options.world_size = assignment_.world_size();
  options.store_host = assignment_.store_host();
  options.store_port = assignment_.store_port();
  options.store_prefix = assignment_.store_prefix();
  options.host = context_.host;
  options.device = training_.device;
  options.timeout = kPeerTimeout;
  options.join_timeout = kJoinTimeout;
  options.interrupt = context_.membership->leave();
  ASSIGN_OR_RETURN(group_, collectives::Group::Create(options));
  std::vector<at::Tensor> parameters, tables;
  const auto list_of = [&](const std::string& name) {
    return replica_.model().tables().contains(name) ? &tables : &parameters;
  };
  for (const auto& [name, parameter] : replica_.Trained()) list_of(name)->push_back(parameter);
  ASSIGN_OR_RETURN(reducer_, collectives::Reducer::Create(parameters, tables, group_.get()));
  training_step_ =
      std::make_unique<TrainingStep>(job_, replica_.model(), replica_.projections(),
                                     training_.teachers->Heads(training_.device, models::ScalarTypeOf(job_.dtype())),
                                     StepTotals(job_, LanguagesOf(*training_.index), group_.get()), reducer_.get(),
                                     [this](const v1::Counted& counted) { return Apply(counted); });
  return absl::OkStatus();
}

absl::Status Generation::LoadData() {
  if (job_.has_early_stopping()) {
    ASSIGN_OR_RETURN(held_out_, HeldOut::Load(assignment_, context_.link, training_.tokenizer.get()));
  }
  DataLoader::Options options;
  options.first_step = first_step_;
  options.stop_patience = kStopPatience;
  options.leave = context_.membership->leave();
  options.while_waiting = [this] { NoteWaiting(); };
  options.steps = job_.steps();
  options.rank = assignment_.rank();
  options.world_size = assignment_.world_size();
  options.prefetch = job_.prefetch();
  options.reads = job_.reads();
  options.task = training_.shape.task;
  ASSIGN_OR_RETURN(options.masker, Masker::Of(job_, training_.tokenizer.get()));
  for (const v1::Loss& loss : job_.losses()) options.needs_gold |= loss.kind() == v1::LOSS_KIND_TASK;
  options.labels = training_.teachers->Sources(LabelKindsOf(assignment_));
  ASSIGN_OR_RETURN(auto reader, corpus::Reader::Open(training_.index));
  asked_at_ = Clock::now();
  loader_ = std::make_unique<DataLoader>(std::move(options), training_.plan, std::move(reader), training_.tokenizer);
  return absl::OkStatus();
}

absl::StatusOr<bool> Generation::Work() {
  began_at_ = ended_at_ = Clock::now();
  RETURN_IF_ERROR(MeasureIfDue());
  // A generation that has no step left leaves a checkpoint too: that of the one before may not have been admitted.
  if (replica_.ended() && replica_.step() > 0) RETURN_IF_ERROR(AfterStep().status());
  while (!replica_.ended()) {
    RETURN_IF_ERROR(Step());
    ended_at_ = Clock::now();
    ASSIGN_OR_RETURN(const bool goes_on, AfterStep());
    if (!goes_on) return false;
  }
  RETURN_IF_ERROR(training_.writer->Flush());
  return true;
}

absl::StatusOr<bool> Generation::AfterStep() {
  RETURN_IF_ERROR(training_.writer->Poll());
  const int64_t step = replica_.step();
  const bool saves = replica_.ended() || (job_.checkpoint_every() > 0 && step % job_.checkpoint_every() == 0);
  const bool compares = saves || step % kCompareEvery == 0;
  if (!compares && !roll_call_->IsDue(step)) return true;
  ASSIGN_OR_RETURN(RollCall::Answer answer, CallRoll(compares));
  if (saves || answer.stop) {
    if (!compares) {
      ASSIGN_OR_RETURN(answer, CallRoll(/*compare=*/true));
    }
    RETURN_IF_ERROR(BeginCheckpoint(answer.waited_seconds));
  }
  if (replica_.ended()) return true;
  if (answer.stop) {
    RETURN_IF_ERROR(training_.writer->Flush());
    return absl::CancelledError(absl::StrCat("stopped after step ", step, " of ", job_.steps()));
  }
  if (answer.regroup)
    spdlog::info("{}: the ranks leave generation {} after step {}", job_.name(), assignment_.generation(), step);
  return !answer.regroup;
}

absl::Status Generation::MeasureIfDue() {
  if (!replica_.MeasureIsDue()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const double value, held_out_->Measure(replica_.model(), group_.get()));
  replica_.NoteMeasured(value);
  const v1::EarlyStoppingState state = *replica_.early_stopping();
  spdlog::info("{}: step {}: {} on held-out records is {:.6g}, the best {:.6g} (step {})", job_.name(), replica_.step(),
               EnumName(v1::EarlyStopping::Metric_descriptor()->FindValueByNumber(job_.early_stopping().metric())),
               value, state.best(), state.best_step());
  return absl::OkStatus();
}

absl::StatusOr<RollCall::Answer> Generation::CallRoll(bool compare) {
  v1::RankNote note;
  note.set_stop(context_.stop.stop_requested());
  note.set_regroup(context_.membership->leave_at_boundary());
  note.mutable_counted()->set_data_wait_seconds(replica_.counted().data_wait_seconds());
  if (compare) {
    trained_digest_ = models::WeightsDigest(replica_.Trained());
    note.set_weights_digest(trained_digest_);
  }
  const int64_t step = replica_.step();
  const double seconds = std::chrono::duration<double>(Clock::now() - called_at_).count();
  note.set_step_seconds(seconds / static_cast<double>(std::max<int64_t>(step - called_step_, 1)));
  called_step_ = step;
  called_at_ = Clock::now();
  return roll_call_->Hold(step, note);
}

absl::Status Generation::Apply(const v1::Counted& counted) {
  context_.membership->Applying();
  RETURN_IF_ERROR(replica_.Apply(counted));
  context_.membership->Applied();
  return absl::OkStatus();
}

absl::Status Generation::Step() {
  ASSIGN_OR_RETURN(const Batch batch, loader_->Next(context_.stop));
  // Before the others can have this rank's part of the step: what is committed is written down, though this process
  // may die at any moment.
  if (context_.trace != nullptr) RETURN_IF_ERROR(context_.trace->Slice(batch.step, batch.ids));
  ASSIGN_OR_RETURN(const double loss, training_step_->Run(batch));
  if (context_.trace != nullptr) RETURN_IF_ERROR(context_.trace->Applied(batch.step, loss));
  RETURN_IF_ERROR(MeasureIfDue());
  NoteProgress(batch, loss);
  return absl::OkStatus();
}

void Generation::NoteWaiting() {
  const std::vector<std::string> missing = training_.teachers->Missing();
  progress_.mutable_missing_teachers()->Assign(missing.begin(), missing.end());
  context_.link->Report(progress_);
}

void Generation::NoteProgress(const Batch& batch, double loss) {
  const double waited = loader_->wait_seconds() - waited_;
  waited_ += waited;
  replica_.Waited(waited);
  progress_.clear_missing_teachers();
  progress_.set_loss(loss);
  if (context_.metrics != nullptr) {
    context_.metrics->Stepped(job_.name(), batch, loss, waited);
    context_.metrics->Asked(training_.teachers->TakeCounts(), loader_->prefetch());
  }
  const double since = std::chrono::duration<double>(Clock::now() - noted_at_).count();
  noted_at_ = Clock::now();
  progress_.set_own_seconds(own_seconds_.Add(training_step_->TakeOwnSeconds(), since));
  if (context_.metrics != nullptr) context_.metrics->TookOwnSeconds(job_.name(), progress_.own_seconds());
  progress_.set_learning_rate(LearningRate(job_.optimizer(), replica_.step() - 1, job_.steps()));
  TellState();
}

void Generation::TellState() {
  const v1::Counted& counted = replica_.counted();
  progress_.set_step(replica_.step());
  *progress_.mutable_records() = counted.records();
  progress_.set_labels(counted.labels());
  progress_.set_label_bytes(counted.label_bytes());
  progress_.set_data_wait_seconds(counted.data_wait_seconds());
  if (const auto stopping = replica_.early_stopping(); stopping.has_value()) {
    progress_.set_validation(stopping->last());
    progress_.set_validation_step(stopping->last_step());
  }
  if (replica_.step() > 0) context_.link->Report(progress_);
}

absl::Status Generation::BeginCheckpoint(double waited) {
  if (!writes_files()) return absl::OkStatus();
  checkpoint::CheckpointState state = replica_.Checkpoint(assignment_.generation());
  state.counted.set_data_wait_seconds(waited);
  v1::WorkerMessage::Checkpointed written;
  written.set_generation(state.generation);
  written.set_step(state.step);
  written.set_weights_digest(trained_digest_);
  return training_.writer->Write(std::move(state), [link = context_.link, written](const std::string& path) mutable {
    written.set_path(path);
    link->TellCheckpoint(written);
  });
}

void Generation::TellCosts() const {
  const double reads = loader_->ReadsPerBlock();
  const int64_t steps = std::max<int64_t>(replica_.step() - first_step_, 1);
  const auto seconds_since = [this](Clock::time_point start) {
    return std::chrono::duration<double>(ended_at_ - start).count();
  };
  spdlog::info("{}: {} steps in {:.3f} s, {:.3f} s with making ready; milliseconds a step: {}", job_.name(), steps,
               seconds_since(began_at_), seconds_since(asked_at_),
               training_step_->phases().PerStep(steps, loader_->wait_seconds()));
  spdlog::info("{}: each block of the corpus was read {:.1f} times a pass", job_.name(), reads);
  training_.teachers->TellCounts(job_.name());
  if (loader_->cut_words() > 0) {
    spdlog::info("{}: {} words of the records drawn lie beyond tokenizer.max_length and were not judged", job_.name(),
                 loader_->cut_words());
  }
  if (reads <= kManyReads) return;
  spdlog::warn(
      "{}: the blocks that the languages' shuffle windows span do not fit in the cache, so each was read {:.1f} times "
      "a pass; write the corpus with smaller row groups, then a read costs less",
      job_.name(), reads);
}

}  // namespace polystill::student_worker
