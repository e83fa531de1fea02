#include "student_worker/replica.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "models/signature.h"

namespace polystill::student_worker {
namespace {

v1::Job SmallJob() {
  v1::Job job;
  job.set_steps(10);
  job.mutable_model()->set_kind(v1::Model::KIND_SUBWORD_BAG);
  job.mutable_model()->set_width(4);
  job.mutable_model()->set_hidden_layers(1);
  job.mutable_tokenizer()->set_vocab_size(8);
  job.add_labels("a");
  job.add_labels("b");
  job.set_dtype(v1::Student::DTYPE_FLOAT64);
  job.mutable_optimizer()->set_kind(v1::Optimizer::KIND_ADAMW);
  job.mutable_optimizer()->set_lr(0.1);
  job.mutable_optimizer()->set_beta1(0.9);
  job.mutable_optimizer()->set_beta2(0.999);
  job.mutable_optimizer()->set_eps(1e-8);
  return job;
}

Replica MakeReplica(const v1::Job& job) {
  return Replica(job, models::MakeModel(models::ShapeOf(job, 8), 7).value(), {});
}

void ApplyOne(Replica* replica, double gradient = 1) {
  for (auto& [name, parameter] : replica->Trained()) parameter.mutable_grad() = at::full_like(parameter, gradient);
  v1::Counted counted;
  (*counted.mutable_records())["de"] = 3;
  counted.set_labels(2);
  ASSERT_TRUE(replica->Apply(counted).ok());
}

TEST(ReplicaTest, AStateThatWasTakenGoesOnAsItsOriginal) {
  const v1::Job job = SmallJob();
  Replica one = MakeReplica(job), other = MakeReplica(job);
  EXPECT_EQ(one.Digest(), other.Digest());
  ApplyOne(&one);
  ApplyOne(&one, -0.5);
  EXPECT_NE(one.Digest(), other.Digest());
  ASSERT_TRUE(other.Take(one.Checkpoint(3)).ok());
  EXPECT_EQ(other.step(), 2);
  EXPECT_EQ(other.counted().records().at("de"), 6);
  EXPECT_EQ(one.Digest(), other.Digest());
  one.Waited(5);  // each worker's own
  EXPECT_EQ(one.Digest(), other.Digest());
  ApplyOne(&one);
  ApplyOne(&other);
  EXPECT_EQ(one.Digest(), other.Digest());
}

// Each part by itself: the weights alone would not show it.
TEST(ReplicaTest, TheDigestSeesEveryPartOfTheState) {
  const v1::Job job = SmallJob();
  Replica replica = MakeReplica(job);
  ApplyOne(&replica);
  const std::string before = replica.Digest();
  const auto changed = [&](const std::function<void(checkpoint::CheckpointState*)>& change) {
    checkpoint::CheckpointState state = replica.State();
    for (auto* tensors : {&state.model, &state.optimizer}) {
      for (auto& [name, tensor] : *tensors) tensor = tensor.detach().clone();
    }
    change(&state);
    return checkpoint::StateDigest(state);
  };
  EXPECT_EQ(changed([](auto*) {}), before);
  EXPECT_EQ(changed([](auto* state) { state->counted.set_data_wait_seconds(9); }), before);
  EXPECT_NE(changed([](auto* state) { state->optimizer[0].second.view(-1)[0] += 1e-9; }), before);
  EXPECT_NE(changed([](auto* state) { state->model[0].second.view(-1)[0] += 1e-9; }), before);
  EXPECT_NE(changed([](auto* state) { state->counted.set_labels(7); }), before);
  EXPECT_NE(changed([](auto* state) { state->step = 7; }), before);
  EXPECT_NE(changed([](auto* state) { state->best = state->model; }), before);
}

TEST(ReplicaTest, AMeasurementBelongsToTheStateFromTheNextStepOn) {
  v1::Job job = SmallJob();
  job.mutable_early_stopping()->set_metric(v1::EarlyStopping::METRIC_LOSS);
  job.mutable_early_stopping()->set_every(2);
  job.mutable_early_stopping()->set_patience(1);
  Replica measured = MakeReplica(job), torn_out = MakeReplica(job);
  for (Replica* replica : {&measured, &torn_out}) {
    EXPECT_FALSE(replica->MeasureIsDue());
    ApplyOne(replica);
    ApplyOne(replica);
    EXPECT_TRUE(replica->MeasureIsDue());
  }
  measured.NoteMeasured(0.5);
  EXPECT_FALSE(measured.MeasureIsDue());
  EXPECT_EQ(measured.early_stopping()->best_step(), 2);
  EXPECT_EQ(measured.Digest(), torn_out.Digest());
  EXPECT_EQ(measured.Checkpoint(1).early_stopping->best_step(), 2);
  // Whoever goes on from there measures again, whoever goes on from the checkpoint does not.
  measured.ForgetMeasured();
  EXPECT_TRUE(measured.MeasureIsDue());
  measured.NoteMeasured(0.5);
  Replica resumed = MakeReplica(job);
  ASSERT_TRUE(resumed.Take(measured.Checkpoint(1)).ok());
  EXPECT_FALSE(resumed.MeasureIsDue());

  const at::Tensor best = measured.Trained()[0].second.detach().clone();
  for (Replica* replica : {&measured, &resumed}) {
    ApplyOne(replica);
    ApplyOne(replica);
    EXPECT_TRUE(replica->MeasureIsDue());
    EXPECT_FALSE(replica->ended());
    replica->NoteMeasured(0.7);
    EXPECT_TRUE(replica->ended());
    EXPECT_TRUE(at::equal(replica->Best()[0].second, best));
    EXPECT_FALSE(at::equal(replica->Trained()[0].second, best));
  }
  EXPECT_EQ(measured.Digest(), resumed.Digest());
}

}  // namespace
}  // namespace polystill::student_worker
