#include "losses/memory.h"

#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>

#include "losses/weighted.h"

namespace polystill::losses {
namespace {

using LossList = google::protobuf::RepeatedPtrField<v1::Loss>;

// Counts what tensors on the CPU take, of this thread and those that compute for it.
class Meter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t bytes, size_t, size_t, c10::Device) override {
    const int64_t now = held_ += bytes;
    int64_t peak = peak_;
    while (now > peak && !peak_.compare_exchange_weak(peak, now)) {
    }
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak() const { return peak_; }

 private:
  std::atomic<int64_t> held_ = 0, peak_ = 0;
};

v1::Loss LossOf(v1::LossKind kind, v1::Codec codec) {
  v1::Loss loss;
  loss.set_kind(kind);
  loss.set_codec(codec);
  loss.set_teacher("t");
  loss.set_temperature(2);
  loss.set_weight(1);
  loss.set_k(4);
  loss.set_draws_per_token(4);
  return loss;
}

// Labels as a worker holds them: dense ones count, as float32.
TeacherLabels LabelsFor(const v1::Loss& loss, int64_t rows, int64_t classes) {
  TeacherLabels labels;
  switch (loss.codec()) {
    case v1::CODEC_TOP_K:
      labels.numbers = at::full({rows, 5}, -2.0f);
      labels.ids = at::arange(4).repeat({rows, 1});
      break;
    case v1::CODEC_SAMPLED:
      labels.numbers = at::ones({rows, 1});
      labels.ids = at::arange(2).repeat({rows});
      labels.counts = at::full({2 * rows}, 2, at::kLong);
      for (int64_t row = 0; row <= rows; ++row) labels.offsets.push_back(2 * row);
      break;
    case v1::CODEC_HIDDEN_HEAD:
      labels.numbers = at::ones({rows, 8});
      break;
    default:
      labels.numbers = at::rand({rows, classes});
  }
  return labels;
}

// Peak bytes of one forward of a linear head, the losses on it, and the backward pass.
int64_t Measure(const LossList& losses, const LogitShape& shape) {
  const int64_t width = shape.head_width > 0 ? shape.head_width : 8;
  const at::Tensor states = at::rand({shape.rows, width}).set_requires_grad(true);
  const Head head{at::rand({shape.classes, width}).set_requires_grad(true),
                  at::rand({shape.classes}).set_requires_grad(true)};
  Batch batch;
  batch.heads["t"] = {at::rand({shape.classes, 8}), at::rand({shape.classes})};
  auto meter = std::make_shared<Meter>();
  {
    c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
    for (const v1::Loss& loss : losses) {
      TeacherLabels& labels = batch.teachers[{"t", soft_labels::SettingsOf(loss), "logits"}];
      if (loss.kind() != v1::LOSS_KIND_TASK) labels = LabelsFor(loss, shape.rows, shape.classes);
    }
    batch.gold = at::zeros({shape.rows}, at::kLong);
    if (shape.head_width > 0) batch.head = head;
    batch.logits = shape.head_width > 0 ? states : at::linear(states, head.weight, head.bias);
    const auto sums = EvaluateLosses(losses, batch);
    EXPECT_TRUE(sums.ok()) << sums.status();
    if (sums.ok()) (at::stack(*sums).sum() / 7).backward();
  }
  return meter->peak();
}

struct Case {
  const char* name;
  LossList losses;
  LogitShape shape;
};

TEST(MemoryTest, WhatIsForetoldIsEnoughAndNotMuchMore) {
  const auto list = [](std::initializer_list<v1::Loss> losses) { return LossList(losses.begin(), losses.end()); };
  const v1::Loss task = LossOf(v1::LOSS_KIND_TASK, v1::CODEC_UNSPECIFIED);
  const v1::Loss dense = LossOf(v1::LOSS_KIND_SOFT_LABEL, v1::CODEC_DENSE_FP16);
  const v1::Loss mse = LossOf(v1::LOSS_KIND_LOGIT_MSE, v1::CODEC_DENSE_FP16);
  const v1::Loss top = LossOf(v1::LOSS_KIND_SOFT_LABEL, v1::CODEC_TOP_K);
  const v1::Loss sampled = LossOf(v1::LOSS_KIND_SOFT_LABEL, v1::CODEC_SAMPLED);
  const v1::Loss hidden = LossOf(v1::LOSS_KIND_SOFT_LABEL, v1::CODEC_HIDDEN_HEAD);
  const LogitShape small{50, 20'000}, large{500, 20'000}, by_head{500, 20'000, 4, 8};
  for (const Case& c :
       {Case{"dense", list({dense}), small}, Case{"top_k", list({top}), small}, Case{"sampled", list({sampled}), small},
        Case{"hidden_head", list({hidden}), small}, Case{"three", list({task, dense, mse}), small},
        Case{"dense", list({dense}), large}, Case{"top_k", list({top}), large}, Case{"sampled", list({sampled}), large},
        Case{"hidden_head", list({hidden}), large}, Case{"three", list({task, dense, mse}), large},
        Case{"dense by a head", list({dense}), by_head}, Case{"top_k by a head", list({top}), by_head},
        Case{"sampled by a head", list({sampled}), by_head}, Case{"hidden_head by a head", list({hidden}), by_head}}) {
    const int64_t foretold = LogitBytes(c.losses, c.shape), measured = Measure(c.losses, c.shape);
    printf("%-22s %5ld rows: foretold %6.1f MiB, measured %6.1f MiB\n", c.name, static_cast<long>(c.shape.rows),
           static_cast<double>(foretold) / 1048576, static_cast<double>(measured) / 1048576);
    EXPECT_LE(measured, foretold * 1.02) << c.name;  // ids, counts, rows of width 8
    EXPECT_GE(3 * measured, foretold) << c.name;
  }
}

TEST(MemoryTest, LossesOfFeaturesAreNotCounted) {
  v1::Loss loss;
  loss.set_kind(v1::LOSS_KIND_EMBEDDING);
  EXPECT_EQ(LogitBytes(std::vector<v1::Loss>{loss}, {100, 100}), 0);
}

}  // namespace
}  // namespace polystill::losses
