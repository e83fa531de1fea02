#include "student_worker/agreement.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "collectives/rank_processes.h"
#include "models/signature.h"
#include "runtime/status.h"
#include "student_worker/step_totals.h"

namespace polystill::student_worker {
namespace {

int Exit(const absl::Status& status) {
  if (!status.ok()) std::printf("%s\n", std::string(status.message()).c_str());
  std::fflush(stdout);
  return status.ok() ? 0 : 10 + static_cast<int>(status.code());
}

v1::Job SmallJob() {
  v1::Job job;
  job.set_name("small");
  job.set_kind(v1::Job::KIND_TRAIN);
  job.set_steps(10);
  job.mutable_model()->set_kind(v1::Model::KIND_SUBWORD_BAG);
  job.mutable_model()->set_width(4);
  job.mutable_model()->set_hidden_layers(1);
  job.set_dtype(v1::Student::DTYPE_FLOAT32);
  job.mutable_tokenizer()->set_vocab_size(8);
  job.add_labels("a");
  job.add_labels("b");
  job.mutable_optimizer()->set_kind(v1::Optimizer::KIND_ADAM);
  job.mutable_optimizer()->set_lr(0.1);
  job.mutable_optimizer()->set_beta1(0.9);
  job.mutable_optimizer()->set_beta2(0.999);
  job.mutable_optimizer()->set_eps(1e-8);
  return job;
}

// More than a chunk, and no whole number of them.
constexpr int64_t kNumbers = 5'000'001;

std::unique_ptr<Replica> MakeReplica(const v1::Job& job) {
  checkpoint::NamedTensors projections = {{"large", at::zeros({kNumbers}).set_requires_grad(true)}};
  return std::make_unique<Replica>(job, models::MakeModel(models::ShapeOf(job, 8), 7).value(), std::move(projections));
}

// A worker, and what it holds.
struct Worker {
  Membership membership{std::stop_source()};
  std::unique_ptr<Replica> replica = MakeReplica(SmallJob());
  std::unique_ptr<collectives::Group> group;

  absl::StatusOr<Source> Form(collectives::Group::Options options, int64_t generation) {
    v1::WorkerOrder order;
    auto& assignment = *order.mutable_assignment();
    assignment.set_generation(generation);
    assignment.set_rank(options.rank);
    assignment.set_world_size(options.world_size);
    *assignment.mutable_job() = SmallJob();
    membership.Obey(order);
    const auto begun = membership.NextAssignment();
    options.store_prefix = absl::StrCat("gen/", generation);
    options.interrupt = membership.leave();
    group.reset();
    ASSIGN_OR_RETURN(group, collectives::Group::Create(options));
    membership.Joined();
    const auto anew = [this] { return replica->Take(MakeReplica(SmallJob())->State()); };
    return AgreeOnState(*begun, group.get(), &membership, replica.get(), anew);
  }

  absl::Status Step() {
    for (auto& [name, parameter] : replica->Trained()) {
      parameter.mutable_grad() = at::full_like(parameter, 1 + static_cast<double>(replica->step()));
    }
    v1::Counted counted;
    (*counted.mutable_records())["de"] = 3;
    membership.Applying();
    RETURN_IF_ERROR(replica->Apply(counted));
    membership.Applied();
    return absl::OkStatus();
  }
};

// What all of them hold after three steps.
std::string DigestAfterThree() {
  Worker alone;
  if (!alone.Form({}, 1).ok()) return "";
  for (int step = 0; step < 3; ++step) {
    if (!alone.Step().ok()) return "";
  }
  return alone.replica->Digest();
}

// Of four ranks the second and the third are one step ahead, the first is behind, the last is new.
absl::Status GoOnFromTheGreatest(const collectives::Group::Options& options) {
  Worker worker;
  auto source = worker.Form(options, 1);
  RETURN_IF_ERROR(source.status());
  const bool ahead = options.rank == 1 || options.rank == 2;
  for (int step = 0; step < (ahead ? 3 : 2); ++step) RETURN_IF_ERROR(worker.Step());
  worker.membership.Leave(absl::OkStatus());
  Worker fresh;
  Worker& next = options.rank == 3 ? fresh : worker;
  worker.group.reset();
  source = next.Form(options, 2);
  RETURN_IF_ERROR(source.status());
  if (source->rank != 1 || source->receivers != std::vector<int>{0, 3}) return absl::InternalError("another source");
  if (next.replica->step() != 3) return absl::InternalError("another step");
  if (next.replica->Digest() != DigestAfterThree()) return absl::InternalError("another state");
  return next.Step();
}

// All were interrupted while they applied a step.
absl::Status BeginAnewWhenNobodyHoldsAny(const collectives::Group::Options& options) {
  Worker worker;
  RETURN_IF_ERROR(worker.Form(options, 1).status());
  const std::string initial = worker.replica->Digest();
  RETURN_IF_ERROR(worker.Step());
  worker.membership.Applying();
  worker.membership.Leave(absl::OkStatus());
  const auto source = worker.Form(options, 2);
  RETURN_IF_ERROR(source.status());
  if (source->kind != Source::Kind::kInitial) return absl::InternalError("another source");
  return worker.replica->Digest() == initial ? absl::OkStatus() : absl::InternalError("another state");
}

absl::Status CountTogether(const collectives::Group::Options& options) {
  const auto group = collectives::Group::Create(options).value();
  v1::Job job = SmallJob();
  job.set_task(v1::TASK_TOKEN_CLASSIFICATION);
  job.add_losses()->set_kind(v1::LOSS_KIND_TASK);
  StepTotals totals(job, {"de", "fr", "ja"}, group.get());
  for (int step = 1; step <= 3; ++step) {
    Batch slice;
    slice.judges_tokens = true;
    slice.gold.assign(step * (options.rank + 1), 0);
    slice.languages = {{options.rank == 0 ? "de" : "ja", step}};
    slice.label_count = options.rank;
    slice.label_bytes = 10;
    RETURN_IF_ERROR(totals.Begin(slice));
    const int n = options.world_size;
    ASSIGN_OR_RETURN(const LossRows rows, totals.Rows());
    if (rows != LossRows{step * n * (n + 1) / 2}) return absl::InternalError("wrong rows");
    ASSIGN_OR_RETURN(const v1::Counted counted, totals.Counted());
    if (counted.labels() != n * (n - 1) / 2 || counted.label_bytes() != 10 * n || counted.records().contains("fr") ||
        counted.records().at("de") != step || (n > 1 && counted.records().at("ja") != step * (n - 1))) {
      return absl::InternalError("wrong counts");
    }
  }
  return absl::OkStatus();
}

void ExpectAllPass(const std::string& function, int world_size) {
  collectives::RankProcesses ranks(function, world_size);
  for (int rank = 0; rank < world_size; ++rank) {
    std::string said;
    for (std::string line; !(line = ranks.ReadLine(rank)).empty();) said = line;
    EXPECT_EQ(ranks.Wait(rank), 0) << "rank " << rank << ": " << said;
  }
}

TEST(AgreementTest, EverybodyGoesOnFromTheGreatestState) { ExpectAllPass("greatest", 4); }
TEST(AgreementTest, BeginsAnewWhenNobodyHoldsAny) { ExpectAllPass("anew", 2); }
TEST(StepTotalsTest, RanksCountTogether) {
  for (const int world_size : {1, 3}) ExpectAllPass("count", world_size);
}

}  // namespace
}  // namespace polystill::student_worker

int main(int argc, char** argv) {
  using namespace polystill::student_worker;
  using polystill::collectives::Group;
  return polystill::collectives::RankTestMain(
      argc, argv,
      {{"greatest", [](const Group::Options& options, const auto&) { return Exit(GoOnFromTheGreatest(options)); }},
       {"anew", [](const Group::Options& options, const auto&) { return Exit(BeginAnewWhenNobodyHoldsAny(options)); }},
       {"count", [](const Group::Options& options, const auto&) { return Exit(CountTogether(options)); }}});
}
