#include "student_worker/trainer.h"

#include <ATen/Parallel.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint.h"
#include "collectives/group.h"
#include "collectives/reducer.h"
#include "corpus/plan.h"
#include "corpus/reader.h"
#include "corpus/tokenizer.h"
#include "models/model.h"
#include "models/package.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "student_worker/data_loader.h"
#include "student_worker/optimizer.h"
#include "student_worker/teachers.h"
#include "student_worker/training_step.h"

namespace polystill::student_worker {
namespace {

// Longer than a teacher may be away (soft_labels::LabelClient::Options::give_up_after_ms): a rank that waits for labels
// is no dead rank. A killed rank shows at once, whatever this is.
constexpr std::chrono::seconds kPeerTimeout(90);

// Steps between two comparisons of the replicas' weights. The digest of 3 million
// weights takes 7 ms, 0.3% of so many steps of theirs.
constexpr int64_t kCompareEvery = 100;

std::string MessageDigest(const google::protobuf::Message& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return Sha256Hex(bytes);
}

// Reads of a block per pass and rank from which on reading is said to be slow; 1 when every block is read once.
constexpr double kManyReads = 2;

// One job from its first to its last step.
class Trainer {
 public:
  Trainer(const v1::WorkerOrder::Assignment& assignment, const WorkerContext& context)
      : assignment_(assignment), job_(assignment.job()), context_(context), steps_(job_.steps()) {}

  absl::Status Prepare();
  absl::Status Run();
  absl::StatusOr<v1::WorkerMessage::Done> Finish();
  // The state after the last step applied, if this rank is the one that writes it.
  absl::Status SaveCheckpoint();

 private:
  absl::Status LoadData();
  absl::Status MakeModel();
  absl::Status JoinGroup();
  absl::Status Step();
  absl::Status CompareDigests();
  void TellCosts() const;
  void NoteProgress(const Batch& batch, double loss);
  std::string TokenizerFile() const;
  bool writes_files() const { return assignment_.rank() == 0; }

  const v1::WorkerOrder::Assignment& assignment_;
  const v1::Job& job_;
  const WorkerContext& context_;
  const int64_t steps_;

  std::shared_ptr<const corpus::Tokenizer> tokenizer_;  // null with token ids
  models::ModelShape shape_;
  std::unique_ptr<models::Model> model_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<collectives::Group> group_;
  std::unique_ptr<collectives::Reducer> reducer_;
  std::unique_ptr<TrainingStep> training_step_;
  std::unique_ptr<Teachers> teachers_;
  std::unique_ptr<DataLoader> loader_;  // after teachers_, which it asks

  v1::WorkerMessage::Progress progress_;
  std::string weights_digest_;
};

std::string Trainer::TokenizerFile() const {
  return tokenizer_ == nullptr ? "" : absl::StrCat(job_.tokenizer_folder(), "/", corpus::kTokenizerFile);
}

absl::Status Trainer::Prepare() {
  at::set_num_threads(job_.threads());
  progress_.set_generation(assignment_.generation());
  if (job_.tokenizer().kind() != v1::Tokenizer::KIND_IDS) {
    const std::string file = absl::StrCat(job_.tokenizer_folder(), "/", corpus::kTokenizerFile);
    ASSIGN_OR_RETURN(tokenizer_, corpus::Tokenizer::Load(file, job_.tokenizer().max_length()));
  }
  RETURN_IF_ERROR(MakeModel());
  RETURN_IF_ERROR(LoadData());
  return JoinGroup();
}

absl::Status Trainer::MakeModel() {
  shape_.spec = job_.model();
  shape_.vocab_size = tokenizer_ == nullptr ? job_.tokenizer().vocab_size() : tokenizer_->vocab_size();
  shape_.classes = job_.labels_size();
  shape_.dtype = job_.dtype();
  shape_.max_length = job_.tokenizer().max_length();
  ASSIGN_OR_RETURN(model_, models::MakeModel(shape_, job_.seed()));
  try {
    optimizer_ = std::make_unique<Optimizer>(job_.optimizer(), steps_, model_->NamedParameters());
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("the optimiser's state: ", error.what_without_backtrace()));
  }
  return absl::OkStatus();
}

absl::Status Trainer::LoadData() {
  ASSIGN_OR_RETURN(v1::CorpusIndex fetched, context_.link->GetIndex(job_.plan().index_digest()));
  const auto index = std::make_shared<const v1::CorpusIndex>(std::move(fetched));
  ASSIGN_OR_RETURN(corpus::Plan plan, corpus::Plan::Create(job_.plan(), index));
  ASSIGN_OR_RETURN(auto reader, corpus::Reader::Open(index));
  const std::vector<LabelKind> kinds = LabelKindsOf(assignment_);
  ASSIGN_OR_RETURN(teachers_, Teachers::Connect(assignment_, kinds));
  DataLoader::Options options;
  options.steps = steps_;
  options.rank = assignment_.rank();
  options.world_size = assignment_.world_size();
  options.prefetch = job_.prefetch();
  options.reads = job_.reads();
  for (const v1::Loss& loss : job_.losses()) options.needs_gold |= loss.kind() == v1::LOSS_KIND_TASK;
  options.labels = teachers_->Sources(kinds);
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
  options.timeout = kPeerTimeout;
  ASSIGN_OR_RETURN(group_, collectives::Group::Create(options));
  std::vector<at::Tensor> parameters;
  for (const auto& [name, parameter] : model_->NamedParameters()) parameters.push_back(parameter);
  ASSIGN_OR_RETURN(reducer_, collectives::Reducer::Create(parameters, group_.get()));
  training_step_ = std::make_unique<TrainingStep>(job_, *model_, reducer_.get(), optimizer_.get());
  return absl::OkStatus();
}

absl::Status Trainer::Run() {
  while (optimizer_->step() < steps_) {
    if (context_.stop.stop_requested()) {
      return absl::CancelledError(absl::StrCat("stopped after step ", optimizer_->step(), " of ", steps_));
    }
    RETURN_IF_ERROR(Step());
    const int64_t done = optimizer_->step();
    const bool saves = done == steps_ || (job_.checkpoint_every() > 0 && done % job_.checkpoint_every() == 0);
    if (saves || done % kCompareEvery == 0) RETURN_IF_ERROR(CompareDigests());
    if (saves) RETURN_IF_ERROR(SaveCheckpoint());
  }
  return absl::OkStatus();
}

absl::Status Trainer::Step() {
  ASSIGN_OR_RETURN(const Batch batch, loader_->Next(context_.stop));
  ASSIGN_OR_RETURN(const double loss, training_step_->Run(batch));
  if (context_.trace != nullptr) {
    RETURN_IF_ERROR(
        context_.trace->Append(job_.name(), assignment_.generation(), batch.step, assignment_.rank(), batch.ids));
  }
  NoteProgress(batch, loss);
  return absl::OkStatus();
}

void Trainer::NoteProgress(const Batch& batch, double loss) {
  progress_.set_step(optimizer_->step());
  progress_.set_loss(loss);
  for (const auto& [language, records] : batch.languages) (*progress_.mutable_records())[language] += records;
  progress_.set_labels(progress_.labels() + batch.label_count);
  progress_.set_label_bytes(progress_.label_bytes() + batch.label_bytes);
  progress_.set_data_wait_seconds(loader_->wait_seconds());
  context_.link->Report(progress_);
}

// Replicas that have drifted apart are an error, never averaged away.
absl::Status Trainer::CompareDigests() {
  weights_digest_ = models::WeightsDigest(*model_);
  ASSIGN_OR_RETURN(const std::vector<std::string> digests, group_->AllGather(weights_digest_));
  for (size_t rank = 0; rank < digests.size(); ++rank) {
    if (digests[rank] == digests[0]) continue;
    return absl::InternalError(absl::StrCat("replicas apart after step ", optimizer_->step(), ": rank 0 has weights ",
                                            digests[0], ", rank ", rank, " has ", digests[rank]));
  }
  return absl::OkStatus();
}

absl::Status Trainer::SaveCheckpoint() {
  if (!writes_files()) return absl::OkStatus();
  checkpoint::CheckpointState state;
  state.job = job_.name();
  state.step = optimizer_->step();
  state.generation = assignment_.generation();
  state.spec_digest = MessageDigest(job_);
  state.plan_digest = MessageDigest(job_.plan());
  state.model = model_->NamedParameters();
  state.optimizer = optimizer_->State();
  return checkpoint::SaveCheckpoint(job_.checkpoints(), state).status();
}

void Trainer::TellCosts() const {
  const double reads = loader_->ReadsPerBlock();
  spdlog::info("{}: {} steps; milliseconds a step: {}; each block of the corpus was read {:.1f} times a pass",
               job_.name(), steps_, training_step_->phases().PerStep(steps_, loader_->wait_seconds()), reads);
  if (reads <= kManyReads) return;
  spdlog::warn(
      "{}: the blocks that the languages' shuffle windows span do not fit in the cache, so each was read {:.1f} times "
      "a "
      "pass; write the corpus with smaller row groups, then a read costs less",
      job_.name(), reads);
}

absl::StatusOr<v1::WorkerMessage::Done> Trainer::Finish() {
  if (writes_files()) {
    v1::Signature signature;
    signature.set_input(tokenizer_ == nullptr ? v1::Signature::INPUT_IDS : v1::Signature::INPUT_TEXT);
    signature.set_vocab_size(static_cast<int32_t>(shape_.vocab_size));
    signature.set_max_length(job_.tokenizer().max_length());
    *signature.mutable_labels() = job_.labels();
    RETURN_IF_ERROR(
        models::SavePackage(job_.package(), job_.model_name(), *model_, shape_, signature, TokenizerFile()).status());
  }
  TellCosts();
  v1::WorkerMessage::Done done;
  *done.mutable_progress() = progress_;
  done.set_weights_digest(weights_digest_);
  return done;
}

}  // namespace

absl::StatusOr<v1::WorkerMessage::Done> Train(const v1::WorkerOrder::Assignment& assignment,
                                              const WorkerContext& context) {
  Trainer trainer(assignment, context);
  RETURN_IF_ERROR(trainer.Prepare());
  const absl::Status status = trainer.Run();
  if (status.ok()) return trainer.Finish();
  // Whoever is stopped keeps what is done, be it by the order itself or by a peer that obeyed it earlier.
  if (context.stop.stop_requested()) RETURN_IF_ERROR(trainer.SaveCheckpoint());
  return context.stop.stop_requested() ? absl::CancelledError(status.message()) : status;
}

}  // namespace polystill::student_worker
