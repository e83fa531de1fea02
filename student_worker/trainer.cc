#include "student_worker/trainer.h"

#include <ATen/Parallel.h>
#include <google/protobuf/util/message_differencer.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "models/package.h"
#include "models/signature.h"
#include "runtime/cuda/device.h"
#include "runtime/status.h"
#include "runtime/tokenizer_file.h"
#include "student_worker/masker.h"
#include "student_worker/projections.h"

namespace polystill::student_worker {

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Prepare(const v1::WorkerOrder::Assignment& assignment,
                                                          const WorkerContext& context) {
  auto trainer = std::unique_ptr<Trainer>(new Trainer(context));
  RETURN_IF_ERROR(trainer->Load(assignment));
  return trainer;
}

bool Trainer::IsFor(const v1::Job& job) const {
  if (begun_) return job.name() == training_.job.name();
  return google::protobuf::util::MessageDifferencer::Equals(job, training_.job);
}

absl::Status Trainer::Load(const v1::WorkerOrder::Assignment& assignment) {
  training_.job = assignment.job();
  const v1::Job& job = training_.job;
  at::set_num_threads(job.threads());
  ASSIGN_OR_RETURN(training_.device, cuda::OpenDevice(job.device(), context_.gpu));
  int64_t vocabulary = job.tokenizer().vocab_size();
  if (job.tokenizer().kind() != v1::Tokenizer::KIND_IDS) {
    ASSIGN_OR_RETURN(training_.tokenizer_file, FindTokenizerFile(job.tokenizer_folder()));
    ASSIGN_OR_RETURN(training_.tokenizer,
                     corpus::Tokenizer::Load(training_.tokenizer_file, job.tokenizer().max_length()));
    vocabulary = training_.tokenizer->vocab_size();
  }
  training_.shape = models::ShapeOf(job, vocabulary);
  RETURN_IF_ERROR(ConnectTeachers(assignment));
  training_.start = [this, assignment]() -> absl::StatusOr<std::unique_ptr<Replica>> {
    ASSIGN_OR_RETURN(auto model, MakeModel());
    const auto width_of = [this](const LabelKind& kind) { return training_.teachers->WidthOf(kind); };
    ASSIGN_OR_RETURN(auto projections, MakeProjections(assignment, model->feature_widths(), width_of));
    try {
      for (auto& [name, projection] : projections) projection.set_data(projection.detach().to(training_.device));
      return std::make_unique<Replica>(training_.job, std::move(model), std::move(projections));
    } catch (const c10::Error& error) {
      return absl::InternalError(absl::StrCat("the optimiser's state: ", error.what_without_backtrace()));
    }
  };
  if (context_.membership->leave().stop_requested()) return absl::AbortedError("left while it was getting ready");
  ASSIGN_OR_RETURN(training_.replica, training_.start());
  ASSIGN_OR_RETURN(v1::CorpusIndex fetched, context_.link->GetIndex(job.plan().index_digest()));
  training_.index = std::make_shared<const v1::CorpusIndex>(std::move(fetched));
  ASSIGN_OR_RETURN(corpus::Plan plan, corpus::Plan::Create(job.plan(), training_.index));
  training_.plan = std::make_shared<const corpus::Plan>(std::move(plan));
  RETURN_IF_ERROR(training_.teachers->UseIndex(training_.index));
  training_.writer = std::make_unique<checkpoint::AsyncWriter>(job.checkpoints());
  return absl::OkStatus();
}

absl::Status Trainer::ConnectTeachers(v1::WorkerOrder::Assignment assignment) {
  while (true) {
    auto teachers = Teachers::Connect(assignment, LabelKindsOf(assignment), context_.run);
    if (!absl::IsUnavailable(teachers.status())) {
      ASSIGN_OR_RETURN(training_.teachers, std::move(teachers));
      return absl::OkStatus();
    }
    if (assignment.generation() == 0) return teachers.status();  // nobody says when they come
    if (context_.stop.stop_requested()) return absl::CancelledError(teachers.status().message());
    if (context_.membership->leave().stop_requested()) return absl::AbortedError(teachers.status().message());
    spdlog::warn("{}: {}; it waits for one", training_.job.name(), std::string(teachers.status().message()));
    *assignment.mutable_teachers() = context_.membership->assignment().teachers();
  }
}

absl::StatusOr<std::unique_ptr<models::Model>> Trainer::MakeModel() const {
  ASSIGN_OR_RETURN(auto model, models::MakeModel(training_.shape, training_.job.seed()));
  if (!training_.job.model().initial().empty()) {
    RETURN_IF_ERROR(
        Annotate(models::TakeInitialWeights(training_.shape, training_.tokenizer_file, model.get()), "model.initial"));
  }
  RETURN_IF_ERROR(model->MoveTo(training_.device));
  return model;
}

absl::StatusOr<std::optional<v1::WorkerMessage::Done>> Trainer::CarryOut(
    const v1::WorkerOrder::Assignment& assignment) {
  begun_ = true;
  Generation generation(assignment, context_, &training_);
  RETURN_IF_ERROR(generation.Form());
  ASSIGN_OR_RETURN(const bool ended, generation.Work());
  if (!ended) return std::nullopt;
  generation.TellCosts();
  ASSIGN_OR_RETURN(v1::WorkerMessage::Done done, Finish(assignment));
  return done;
}

absl::StatusOr<v1::WorkerMessage::Done> Trainer::Finish(const v1::WorkerOrder::Assignment& assignment) {
  const v1::Job& job = training_.job;
  const Replica& replica = *training_.replica;
  // The replica keeps the weights of the last step: it may have to hand them to a peer.
  std::unique_ptr<models::Model> best;
  if (const auto stopping = replica.early_stopping(); stopping.has_value() && stopping->best_step() > 0) {
    ASSIGN_OR_RETURN(best, models::MakeModel(training_.shape, job.seed()));
    RETURN_IF_ERROR(best->MoveTo(training_.device));
    RETURN_IF_ERROR(models::SetParameters(replica.Best(), best.get()));
    spdlog::info("{}: ended at step {} of {}, keeps the weights of step {}", job.name(), replica.step(), job.steps(),
                 stopping->best_step());
  }
  const models::Model& model = best == nullptr ? replica.model() : *best;
  if (assignment.rank() == 0) {
    v1::Signature signature;
    signature.set_input(training_.tokenizer == nullptr ? v1::Signature::INPUT_IDS : v1::Signature::INPUT_TEXT);
    signature.set_vocab_size(static_cast<int32_t>(training_.shape.vocab_size));
    signature.set_max_length(job.tokenizer().max_length());
    *signature.mutable_labels() = job.labels();
    signature.set_task(training_.shape.task);
    ASSIGN_OR_RETURN(const std::optional<Masker> masker, Masker::Of(job, training_.tokenizer.get()));
    if (masker.has_value()) signature.set_mask_id(masker->mask_id());
    RETURN_IF_ERROR(models::SavePackage(job.package(), job.model_name(), model, training_.shape, signature,
                                        training_.tokenizer_file)
                        .status());
  }
  v1::WorkerMessage::Done done;
  *done.mutable_progress() = training_.progress;
  done.set_weights_digest(models::WeightsDigest(model));
  if (context_.trace != nullptr) RETURN_IF_ERROR(context_.trace->Done(replica.step(), done.weights_digest()));
  return done;
}

}  // namespace polystill::student_worker
