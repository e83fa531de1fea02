#include "student_worker/trainer.h"

#include <ATen/Parallel.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "checkpoint/async_writer.h"
#include "checkpoint/checkpoint.h"
#include "collectives/group.h"
#include "collectives/reducer.h"
#include "corpus/plan.h"
#include "corpus/reader.h"
#include "corpus/tokenizer.h"
#include "models/model.h"
#include "models/package.h"
#include "models/signature.h"
#include "runtime/cuda/device.h"
#include "runtime/status.h"
#include "runtime/tokenizer_file.h"
#include "runtime/yaml_proto.h"
#include "student_worker/data_loader.h"
#include "student_worker/early_stopping.h"
#include "student_worker/held_out.h"
#include "student_worker/optimizer.h"
#include "student_worker/projections.h"
#include "student_worker/roll_call.h"
#include "student_worker/schedule.h"
#include "student_worker/teachers.h"
#include "student_worker/training_state.h"
#include "student_worker/training_step.h"

namespace polystill::student_worker {
namespace {

// Longer than a teacher may be away (soft_labels::LabelClient::Options::give_up_after_ms): a rank that waits for labels
// is no dead rank. A killed rank shows at once, whatever this is.
constexpr std::chrono::seconds kPeerTimeout(90);
// For labels that are on their way when the stop comes: a whole step more ends at a boundary with a checkpoint.
constexpr std::chrono::seconds kStopPatience(3);

using Clock = std::chrono::steady_clock;

// Steps between two comparisons of the replicas' weights: the digest of 3 million takes 7 ms, 0.3% of so many steps.
constexpr int64_t kCompareEvery = 100;

// Reads of a block per pass and rank from which on reading is said to be slow; 1 when every block is read once.
constexpr double kManyReads = 2;

// One job from its first step, or that of its checkpoint, to its last.
class Trainer {
 public:
  Trainer(const v1::WorkerOrder::Assignment& assignment, const WorkerContext& context)
      : assignment_(assignment), job_(assignment.job()), context_(context), steps_(job_.steps()) {}

  absl::Status Prepare();
  absl::Status Run();
  absl::StatusOr<v1::WorkerMessage::Done> Finish();

 private:
  absl::Status LoadData();
  absl::Status MakeModel();
  // After the teachers have said how wide their features are.
  absl::Status MakeOptimizer();
  // What is trained: the model's parameters, then the projections.
  checkpoint::NamedTensors Trained() const;
  absl::Status Resume();
  absl::Status JoinGroup();
  absl::Status Step();
  // True when the ranks have agreed to stop.
  absl::StatusOr<bool> AfterStep();
  absl::Status MeasureIfDue();
  // A roll call; with the digest of the weights where they are to be compared.
  absl::StatusOr<RollCall::Answer> CallRoll(bool compare);
  absl::Status BeginCheckpoint(const v1::Counted& counted);
  void TellCosts() const;
  void NoteProgress(const Batch& batch, double loss);
  bool ended() const { return optimizer_->step() == steps_ || (early_stopper_ != nullptr && early_stopper_->ended()); }
  bool writes_files() const { return assignment_.rank() == 0; }

  const v1::WorkerOrder::Assignment& assignment_;
  const v1::Job& job_;
  const WorkerContext& context_;
  const int64_t steps_;

  std::string tokenizer_file_;                          // empty with token ids,
  std::shared_ptr<const corpus::Tokenizer> tokenizer_;  // where this is null
  at::Device device_ = at::kCPU;
  models::ModelShape shape_;
  std::unique_ptr<models::Model> model_;
  checkpoint::NamedTensors projections_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<collectives::Group> group_;
  std::unique_ptr<collectives::Reducer> reducer_;
  std::unique_ptr<TrainingStep> training_step_;
  std::unique_ptr<Teachers> teachers_;
  std::unique_ptr<DataLoader> loader_;  // after teachers_, which it asks
  std::unique_ptr<RollCall> roll_call_;
  std::unique_ptr<HeldOut> held_out_;            // null without early stopping, as is
  std::unique_ptr<EarlyStopper> early_stopper_;  // this
  checkpoint::NamedTensors best_;                // the parameters of its best step

  // Steps that the checkpoint had seen.
  int64_t first_step_ = 0;
  // Of the last roll call.
  int64_t called_step_ = 0;
  Clock::time_point called_at_ = Clock::now();
  // When data was asked for first, when the first step began to wait for it, and the end of the last step.
  Clock::time_point asked_at_, began_at_, ended_at_;
  double wait_before_ = 0;
  v1::WorkerMessage::Progress progress_;
  std::string trained_digest_;
  std::unique_ptr<checkpoint::AsyncWriter> writer_;  // last: it writes what is above
};

absl::Status Trainer::Prepare() {
  at::set_num_threads(job_.threads());
  ASSIGN_OR_RETURN(device_, cuda::OpenDevice(job_.device(), context_.gpu));
  progress_.set_generation(assignment_.generation());
  if (job_.tokenizer().kind() != v1::Tokenizer::KIND_IDS) {
    ASSIGN_OR_RETURN(tokenizer_file_, FindTokenizerFile(job_.tokenizer_folder()));
    ASSIGN_OR_RETURN(tokenizer_, corpus::Tokenizer::Load(tokenizer_file_, job_.tokenizer().max_length()));
  }
  RETURN_IF_ERROR(MakeModel());
  ASSIGN_OR_RETURN(teachers_, Teachers::Connect(assignment_, LabelKindsOf(assignment_), context_.run));
  RETURN_IF_ERROR(MakeOptimizer());
  RETURN_IF_ERROR(Annotate(Resume(), assignment_.checkpoint()));
  RETURN_IF_ERROR(LoadData());
  return JoinGroup();
}

absl::Status Trainer::MakeModel() {
  shape_ = models::ShapeOf(job_, tokenizer_ == nullptr ? job_.tokenizer().vocab_size() : tokenizer_->vocab_size());
  ASSIGN_OR_RETURN(model_, models::MakeModel(shape_, job_.seed()));
  if (!job_.model().initial().empty() && assignment_.checkpoint().empty()) {
    RETURN_IF_ERROR(Annotate(models::TakeInitialWeights(shape_, tokenizer_file_, model_.get()), "model.initial"));
  }
  return model_->MoveTo(device_);
}

checkpoint::NamedTensors Trainer::Trained() const {
  return checkpoint::TrainedOf(model_->NamedParameters(), projections_);
}

absl::Status Trainer::MakeOptimizer() {
  ASSIGN_OR_RETURN(projections_, MakeProjections(assignment_, model_->feature_widths(),
                                                 [this](const LabelKind& kind) { return teachers_->WidthOf(kind); }));
  try {
    for (auto& [name, projection] : projections_) projection.set_data(projection.detach().to(device_));
    optimizer_ = std::make_unique<Optimizer>(job_.optimizer(), steps_, Trained());
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("the optimiser's state: ", error.what_without_backtrace()));
  }
  if (job_.has_early_stopping()) {
    early_stopper_ = std::make_unique<EarlyStopper>(job_.early_stopping(), v1::EarlyStoppingState());
  }
  return absl::OkStatus();
}

absl::Status Trainer::Resume() {
  if (assignment_.checkpoint().empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(checkpoint::CheckpointState state, checkpoint::LoadCheckpoint(assignment_.checkpoint()));
  RETURN_IF_ERROR(RestoreState(state, job_, model_.get(), projections_, optimizer_.get()));
  if (early_stopper_ != nullptr && state.early_stopping.has_value()) {
    early_stopper_ = std::make_unique<EarlyStopper>(job_.early_stopping(), *state.early_stopping);
    best_ = std::move(state.best);
  }
  progress_.set_step(state.step);
  // What all ranks had consumed goes on with one of them, so that the sum over the ranks counts it once.
  if (!writes_files()) return absl::OkStatus();
  GoOnFrom(state.counted, &progress_);
  wait_before_ = state.counted.data_wait_seconds();
  spdlog::info("{}: goes on after step {} from {}", job_.name(), state.step, assignment_.checkpoint());
  return absl::OkStatus();
}

absl::Status Trainer::LoadData() {
  ASSIGN_OR_RETURN(v1::CorpusIndex fetched, context_.link->GetIndex(job_.plan().index_digest()));
  const auto index = std::make_shared<const v1::CorpusIndex>(std::move(fetched));
  ASSIGN_OR_RETURN(corpus::Plan plan, corpus::Plan::Create(job_.plan(), index));
  ASSIGN_OR_RETURN(auto reader, corpus::Reader::Open(index));
  RETURN_IF_ERROR(teachers_->UseIndex(index));
  if (early_stopper_ != nullptr) {
    ASSIGN_OR_RETURN(held_out_, HeldOut::Load(assignment_, context_.link, tokenizer_.get()));
  }
  DataLoader::Options options;
  options.first_step = optimizer_->step();
  options.stop_patience = kStopPatience;
  options.steps = steps_;
  options.rank = assignment_.rank();
  options.world_size = assignment_.world_size();
  options.prefetch = job_.prefetch();
  options.reads = job_.reads();
  options.task = shape_.task;
  ASSIGN_OR_RETURN(options.masker, Masker::Of(job_, tokenizer_.get()));
  for (const v1::Loss& loss : job_.losses()) options.needs_gold |= loss.kind() == v1::LOSS_KIND_TASK;
  options.labels = teachers_->Sources(LabelKindsOf(assignment_));
  asked_at_ = Clock::now();
  loader_ = std::make_unique<DataLoader>(std::move(options), std::make_shared<const corpus::Plan>(std::move(plan)),
                                         std::move(reader), tokenizer_);
  return absl::OkStatus();
}

absl::Status Trainer::JoinGroup() {
  collectives::Group::Options options;
  options.rank = assignment_.rank();
  options.world_size = assignment_.world_size();
  options.store_host = assignment_.store_host();
  options.store_port = assignment_.store_port();
  options.store_prefix = assignment_.store_prefix();
  options.host = context_.host;
  options.device = device_;
  options.timeout = kPeerTimeout;
  ASSIGN_OR_RETURN(group_, collectives::Group::Create(options));
  std::vector<at::Tensor> parameters, tables;
  const auto list_of = [&](const std::string& name) { return model_->tables().contains(name) ? &tables : &parameters; };
  for (const auto& [name, parameter] : Trained()) list_of(name)->push_back(parameter);
  ASSIGN_OR_RETURN(reducer_, collectives::Reducer::Create(parameters, tables, group_.get()));
  training_step_ = std::make_unique<TrainingStep>(job_, *model_, projections_,
                                                  teachers_->Heads(device_, models::ScalarTypeOf(job_.dtype())),
                                                  group_.get(), reducer_.get(), optimizer_.get());
  first_step_ = called_step_ = optimizer_->step();
  roll_call_ = std::make_unique<RollCall>(group_.get(), first_step_);
  writer_ = std::make_unique<checkpoint::AsyncWriter>(job_.checkpoints());
  return absl::OkStatus();
}

absl::Status Trainer::Run() {
  // Replicas that read one checkpoint from several disks may differ.
  if (!assignment_.checkpoint().empty()) RETURN_IF_ERROR(CallRoll(/*compare=*/true).status());
  began_at_ = ended_at_ = Clock::now();
  while (!ended()) {
    RETURN_IF_ERROR(Step());
    ended_at_ = Clock::now();
    ASSIGN_OR_RETURN(const bool stop, AfterStep());
    if (!stop || ended()) continue;
    RETURN_IF_ERROR(writer_->Flush());
    return absl::CancelledError(absl::StrCat("stopped after step ", optimizer_->step(), " of ", steps_));
  }
  return writer_->Flush();
}

absl::StatusOr<bool> Trainer::AfterStep() {
  RETURN_IF_ERROR(writer_->Poll());
  const int64_t step = optimizer_->step();
  const bool saves = ended() || (job_.checkpoint_every() > 0 && step % job_.checkpoint_every() == 0);
  const bool compares = saves || step % kCompareEvery == 0;
  if (!compares && !roll_call_->IsDue(step)) return false;
  ASSIGN_OR_RETURN(RollCall::Answer answer, CallRoll(compares));
  if (!saves && !answer.stop) return false;
  if (!compares) {
    ASSIGN_OR_RETURN(answer, CallRoll(/*compare=*/true));
  }
  RETURN_IF_ERROR(BeginCheckpoint(answer.counted));
  return saves ? answer.stop : true;
}

absl::Status Trainer::MeasureIfDue() {
  const int64_t step = optimizer_->step();
  if (early_stopper_ == nullptr || !early_stopper_->IsDue(step)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const double value, held_out_->Measure(*model_, group_.get()));
  if (early_stopper_->Note(step, value)) {
    best_ = model_->NamedParameters();
    for (auto& [name, tensor] : best_) tensor = tensor.detach().clone();
  }
  spdlog::info("{}: step {}: {} on held-out records is {:.6g}, the best {:.6g} (step {})", job_.name(), step,
               EnumName(v1::EarlyStopping::Metric_descriptor()->FindValueByNumber(job_.early_stopping().metric())),
               value, early_stopper_->state().best(), early_stopper_->state().best_step());
  return absl::OkStatus();
}

absl::StatusOr<RollCall::Answer> Trainer::CallRoll(bool compare) {
  v1::RankNote note;
  note.set_stop(context_.stop.stop_requested());
  *note.mutable_counted() = CountedOf(progress_);
  if (compare) {
    trained_digest_ = models::WeightsDigest(Trained());
    note.set_weights_digest(trained_digest_);
  }
  const int64_t step = optimizer_->step();
  const double seconds = std::chrono::duration<double>(Clock::now() - called_at_).count();
  note.set_step_seconds(seconds / static_cast<double>(std::max<int64_t>(step - called_step_, 1)));
  called_step_ = step;
  called_at_ = Clock::now();
  return roll_call_->Hold(step, note);
}

absl::Status Trainer::Step() {
  ASSIGN_OR_RETURN(const Batch batch, loader_->Next(context_.stop));
  ASSIGN_OR_RETURN(const double loss, training_step_->Run(batch));
  if (context_.trace != nullptr) {
    RETURN_IF_ERROR(
        context_.trace->Append(job_.name(), assignment_.generation(), batch.step, assignment_.rank(), batch.ids));
  }
  RETURN_IF_ERROR(MeasureIfDue());
  NoteProgress(batch, loss);
  return absl::OkStatus();
}

void Trainer::NoteProgress(const Batch& batch, double loss) {
  progress_.set_step(optimizer_->step());
  progress_.set_loss(loss);
  for (const auto& [language, records] : batch.languages) (*progress_.mutable_records())[language] += records;
  progress_.set_labels(progress_.labels() + batch.label_count);
  progress_.set_label_bytes(progress_.label_bytes() + batch.label_bytes);
  const double waited = wait_before_ + loader_->wait_seconds();
  if (context_.metrics != nullptr) {
    context_.metrics->Stepped(job_.name(), batch, loss, waited - progress_.data_wait_seconds());
    context_.metrics->Asked(teachers_->TakeCounts(), loader_->prefetch());
  }
  progress_.set_data_wait_seconds(waited);
  progress_.set_learning_rate(LearningRate(job_.optimizer(), optimizer_->step() - 1, steps_));
  if (early_stopper_ != nullptr) {
    progress_.set_validation(early_stopper_->state().last());
    progress_.set_validation_step(early_stopper_->state().last_step());
  }
  context_.link->Report(progress_);
}

absl::Status Trainer::BeginCheckpoint(const v1::Counted& counted) {
  if (!writes_files()) return absl::OkStatus();
  checkpoint::CheckpointState state = StateOf(job_, assignment_.generation(), *model_, projections_, *optimizer_);
  state.counted = counted;
  if (early_stopper_ != nullptr) state.early_stopping = early_stopper_->state();
  state.best = best_;
  v1::WorkerMessage::Checkpointed written;
  written.set_generation(state.generation);
  written.set_step(state.step);
  written.set_weights_digest(trained_digest_);
  return writer_->Write(std::move(state), [link = context_.link, written](const std::string& path) mutable {
    written.set_path(path);
    link->TellCheckpoint(written);
  });
}

void Trainer::TellCosts() const {
  const double reads = loader_->ReadsPerBlock();
  const int64_t steps = std::max<int64_t>(optimizer_->step() - first_step_, 1);
  const auto seconds_since = [this](Clock::time_point start) {
    return std::chrono::duration<double>(ended_at_ - start).count();
  };
  spdlog::info("{}: {} steps in {:.3f} s, {:.3f} s with making ready; milliseconds a step: {}", job_.name(), steps,
               seconds_since(began_at_), seconds_since(asked_at_),
               training_step_->phases().PerStep(steps, loader_->wait_seconds()));
  spdlog::info("{}: each block of the corpus was read {:.1f} times a pass", job_.name(), reads);
  teachers_->TellCounts(job_.name());
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

absl::StatusOr<v1::WorkerMessage::Done> Trainer::Finish() {
  if (!best_.empty()) {
    RETURN_IF_ERROR(models::SetParameters(best_, model_.get()));
    spdlog::info("{}: ended at step {} of {}, keeps the weights of step {}", job_.name(), optimizer_->step(), steps_,
                 early_stopper_->state().best_step());
  }
  if (writes_files()) {
    v1::Signature signature;
    signature.set_input(tokenizer_ == nullptr ? v1::Signature::INPUT_IDS : v1::Signature::INPUT_TEXT);
    signature.set_vocab_size(static_cast<int32_t>(shape_.vocab_size));
    signature.set_max_length(job_.tokenizer().max_length());
    *signature.mutable_labels() = job_.labels();
    signature.set_task(shape_.task);
    ASSIGN_OR_RETURN(const std::optional<Masker> masker, Masker::Of(job_, tokenizer_.get()));
    if (masker.has_value()) signature.set_mask_id(masker->mask_id());
    RETURN_IF_ERROR(
        models::SavePackage(job_.package(), job_.model_name(), *model_, shape_, signature, tokenizer_file_).status());
  }
  TellCosts();
  v1::WorkerMessage::Done done;
  *done.mutable_progress() = progress_;
  done.set_weights_digest(models::WeightsDigest(*model_));
  return done;
}

}  // namespace

absl::StatusOr<v1::WorkerMessage::Done> Train(const v1::WorkerOrder::Assignment& assignment,
                                              const WorkerContext& context) {
  Trainer trainer(assignment, context);
  RETURN_IF_ERROR(trainer.Prepare());
  const absl::Status status = trainer.Run();
  if (status.ok()) return trainer.Finish();
  // Whoever is stopped is no failure, be it by the order itself or by a peer that obeyed it earlier.
  return context.stop.stop_requested() ? absl::CancelledError(status.message()) : status;
}

}  // namespace polystill::student_worker
