#include "student_worker/training_step.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "student_worker/optimizer.h"

namespace polystill::student_worker {
namespace {

using nlohmann::json;

constexpr char kTeacher[] = "teacher";

json Read(const std::string& path) { return json::parse(std::ifstream(path)); }

at::Tensor Flat(const json& numbers) { return at::tensor(numbers.get<std::vector<double>>(), at::kDouble); }

// The student of tests/references/transformer.py.
std::unique_ptr<models::Model> Student(const json& reference) {
  models::ModelShape shape;
  shape.spec.set_kind(v1::Model::KIND_TRANSFORMER);
  shape.spec.set_width(reference["width"]);
  shape.spec.set_heads(reference["heads"]);
  shape.spec.set_layers(reference["layers"]);
  shape.spec.set_feed_forward(reference["feed_forward"]);
  shape.vocab_size = reference["vocabulary"];
  shape.classes = reference["classes"];
  shape.max_length = reference["max_length"];
  shape.dtype = v1::Student::DTYPE_FLOAT64;
  auto model = models::MakeModel(shape, 0).value();
  int place = 0;
  for (const auto& [name, parameter] : model->NamedParameters()) {
    const at::NoGradGuard no_grad;
    const at::Tensor flat = at::arange(parameter.numel(), at::kDouble);
    const double center = name.ends_with("norm.weight") ? 1 : 0;
    parameter.copy_((at::sin(flat * 0.9 + 1.7 * place++) * 0.4 + center).reshape(parameter.sizes()));
  }
  return model;
}

v1::Job JobOf(const json& step, int64_t records) {
  v1::Job job;
  job.set_dtype(v1::Student::DTYPE_FLOAT64);
  job.mutable_plan()->set_batch_size(static_cast<int32_t>(records));
  const auto add = [&](v1::LossKind kind, const char* name) -> v1::Loss& {
    v1::Loss& loss = *job.add_losses();
    loss.set_kind(kind);
    loss.set_teacher(kTeacher);
    loss.set_codec(v1::CODEC_DENSE_FP32);
    loss.set_temperature(1);
    loss.set_weight(step["weights"][name]);
    return loss;
  };
  add(v1::LOSS_KIND_SOFT_LABEL, "soft_label").set_temperature(step["temperature"]);
  add(v1::LOSS_KIND_EMBEDDING, "embedding").set_distance(v1::Loss::DISTANCE_COSINE);
  v1::Loss& hidden = add(v1::LOSS_KIND_HIDDEN, "hidden");
  hidden.set_distance(v1::Loss::DISTANCE_MSE);
  for (const auto& pair : step["layers"]) {
    v1::Loss::Layers& layers = *hidden.add_layers();
    layers.set_student(pair[0]);
    layers.set_teacher(pair[1]);
  }
  add(v1::LOSS_KIND_TASK, "task").clear_teacher();
  job.mutable_optimizer()->set_kind(v1::Optimizer::KIND_SGD);
  return job;
}

Batch BatchOf(const json& student, const json& step) {
  Batch batch;
  batch.tokens = student["rows"].get<std::vector<std::vector<int32_t>>>();
  for (size_t i = 0; i < batch.tokens.size(); ++i) batch.ids.push_back("r" + std::to_string(i));
  batch.gold = step["gold"].get<std::vector<int64_t>>();
  for (const auto& [name, said] : step["teacher"].items()) {
    Labels& labels = batch.labels[{kTeacher, v1::CODEC_DENSE_FP32, name}];
    labels.rows = name == "logits" ? RowsOf::kJudged : models::IsOfTokens(name) ? RowsOf::kTokens : RowsOf::kRecords;
    labels.width = said["width"];
    labels.numbers = said["numbers"].get<std::vector<float>>();
  }
  return batch;
}

// tests/references/feature_step.py: PyTorch, float64. Losses of records and of tokens, each a mean over its own rows,
// whatever the micro-batches.
TEST(TrainingStepTest, GradientsOfFeatureLossesAreThoseOfPyTorch) {
  const json student = Read("models/testdata/transformer.json");
  const json step = Read("student_worker/testdata/feature_step.json");
  const Batch batch = BatchOf(student, step);
  for (const int micro_batch : {0, 1, 2, 4}) {
    SCOPED_TRACE(micro_batch);
    const auto model = Student(student);
    v1::Job job = JobOf(step, static_cast<int64_t>(batch.ids.size()));
    job.set_micro_batch(micro_batch);
    checkpoint::NamedTensors projections;
    for (const auto& [name, value] : step["projections"].items()) {
      projections.emplace_back(
          name, Flat(value["numbers"]).reshape(value["shape"].get<std::vector<int64_t>>()).set_requires_grad(true));
    }
    checkpoint::NamedTensors trained = model->NamedParameters();
    trained.insert(trained.end(), projections.begin(), projections.end());
    std::vector<at::Tensor> parameters;
    for (const auto& [name, parameter] : trained) parameters.push_back(parameter);
    const auto group = collectives::Group::Create({}).value();
    const auto reducer = collectives::Reducer::Create(parameters, {}, group.get()).value();
    Optimizer optimizer(job.optimizer(), 1, trained);
    TrainingStep training_step(job, *model, projections, {}, StepTotals(job, {}, group.get()), reducer.get(),
                               [&](const v1::Counted&) { return optimizer.Step(); });
    const auto loss = training_step.Run(batch);
    ASSERT_TRUE(loss.ok()) << loss.status();
    EXPECT_NEAR(*loss, step["loss"].get<double>(), 1e-10);
    for (const auto& [name, parameter] : trained) {
      const at::Tensor expected = Flat(step["gradients"][name]);
      const double scale = std::max(1.0, expected.abs().max().item<double>());
      EXPECT_LT((parameter.grad().flatten() - expected).abs().max().item<double>(), 1e-10 * scale) << name;
    }
  }
}

// The head, which no loss depends on then, gets a gradient of zeros; so does everything in a slice without records.
TEST(TrainingStepTest, FeaturesAloneTrainWhatTheyDependOn) {
  const json student = Read("models/testdata/transformer.json");
  const json step = Read("student_worker/testdata/feature_step.json");
  const auto model = Student(student);
  v1::Job job = JobOf(step, 6);
  v1::Loss hidden = job.losses(2);
  hidden.mutable_layers()->RemoveLast();
  job.clear_losses();
  *job.add_losses() = hidden;
  const checkpoint::NamedTensors projections = {
      {"projection.0.0.weight", at::ones({4, student["width"]}, at::kDouble).set_requires_grad(true)}};
  checkpoint::NamedTensors trained = model->NamedParameters();
  trained.push_back(projections[0]);
  std::vector<at::Tensor> parameters;
  for (const auto& [name, parameter] : trained) parameters.push_back(parameter);
  const auto group = collectives::Group::Create({}).value();
  const auto reducer = collectives::Reducer::Create(parameters, {}, group.get()).value();
  Optimizer optimizer(job.optimizer(), 2, trained);
  TrainingStep training_step(job, *model, projections, {}, StepTotals(job, {}, group.get()), reducer.get(),
                             [&](const v1::Counted&) { return optimizer.Step(); });
  const auto loss = training_step.Run(BatchOf(student, step));
  ASSERT_TRUE(loss.ok()) << loss.status();
  for (const auto& [name, parameter] : trained) {
    const bool reached = name.starts_with("projection") || name == "embedding.weight" || name == "position.weight";
    EXPECT_EQ(parameter.grad().any().item<bool>(), reached) << name;
  }
  Batch nothing;
  for (const auto& [kind, labels] : BatchOf(student, step).labels)
    nothing.labels[kind] = {labels.rows, labels.width, {}};
  const auto empty = training_step.Run(nothing);
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_EQ(*empty, 0);
  for (const auto& [name, parameter] : trained) EXPECT_FALSE(parameter.grad().any().item<bool>()) << name;
}

}  // namespace
}  // namespace polystill::student_worker
