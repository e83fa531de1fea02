#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "collectives/group.h"
#include "collectives/reducer.h"
#include "collectives/store_server.h"
#include "coordinator/run_file.h"
#include "coordinator/stages.h"
#include "corpus/plan.h"
#include "corpus/reader.h"
#include "models/model.h"
#include "models/package.h"
#include "models/signature.h"
#include "runtime/status.h"
#include "student_worker/data_loader.h"
#include "student_worker/optimizer.h"
#include "student_worker/training_step.h"

// The rival of benchmarks/elastic.py: data-parallel training as a script would have it. One group of ranks that nobody
// may leave, and in it our model, batches, step, Reducer and optimiser; no coordinator, no roll call, no heartbeat, no
// checkpoint, no digest of the weights.

namespace polystill {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kHost[] = "127.0.0.1";

struct Options {
  std::string spec;
  int rank = 0;
  int world_size = 1;
  int store_port = 0;  // rank 0 hosts the store
};

struct Workload {
  v1::Job job;
  std::shared_ptr<const v1::CorpusIndex> index;
};

// The run's student on gold labels, as its coordinator would have planned it.
absl::StatusOr<Workload> ReadWorkload(const std::string& spec) {
  ASSIGN_OR_RETURN(const coordinator::RunFile file, coordinator::ReadRunFile(spec, {}));
  const std::atomic<bool> stop = false;
  ASSIGN_OR_RETURN(const coordinator::Stages stages, coordinator::IndexJobs(
                                                         file.spec, [](const auto&) {}, stop));
  for (const coordinator::PlannedJob& planned : stages.prepared.jobs) {
    if (planned.job.name() != "distilled") continue;
    return Workload{planned.job, stages.indexes.at(planned.job.plan().index_digest())};
  }
  return absl::NotFoundError("the run trains no student");
}

student_worker::DataLoader::Options LoadingOf(const Workload& workload, const Options& options) {
  student_worker::DataLoader::Options loading;
  loading.steps = workload.job.steps();
  loading.rank = options.rank;
  loading.world_size = options.world_size;
  loading.prefetch = workload.job.prefetch();
  loading.reads = workload.job.reads();
  loading.needs_gold = true;
  return loading;
}

std::vector<std::string> LanguagesOf(const v1::CorpusIndex& index) {
  std::vector<std::string> names;
  for (const auto& language : index.languages()) names.push_back(language.name());
  return names;
}

// Seconds of all steps, from the first request for data on.
absl::StatusOr<double> Train(const Options& options) {
  ASSIGN_OR_RETURN(const Workload workload, ReadWorkload(options.spec));
  const v1::Job& job = workload.job;
  at::set_num_threads(job.threads());
  ASSIGN_OR_RETURN(const auto model, models::MakeModel(models::ShapeOf(job, job.tokenizer().vocab_size()), job.seed()));
  const auto named = model->NamedParameters();
  student_worker::Optimizer optimizer(job.optimizer(), job.steps(), named);

  std::unique_ptr<collectives::StoreServer> store;
  if (options.rank == 0) {
    ASSIGN_OR_RETURN(store, collectives::StoreServer::Start(kHost, options.store_port));
  }
  collectives::Group::Options joining;
  joining.rank = options.rank;
  joining.world_size = options.world_size;
  joining.store_host = kHost;
  joining.store_port = options.store_port;
  joining.host = kHost;
  ASSIGN_OR_RETURN(const auto group, collectives::Group::Create(joining));
  std::vector<at::Tensor> parameters, tables;
  for (const auto& [name, parameter] : named) {
    (model->tables().contains(name) ? tables : parameters).push_back(parameter);
  }
  ASSIGN_OR_RETURN(const auto reducer, collectives::Reducer::Create(parameters, tables, group.get()));
  student_worker::TrainingStep step(job, *model, {}, {},
                                    student_worker::StepTotals(job, LanguagesOf(*workload.index), group.get()),
                                    reducer.get(), [&optimizer](const v1::Counted&) { return optimizer.Step(); });

  ASSIGN_OR_RETURN(corpus::Plan plan, corpus::Plan::Create(job.plan(), workload.index));
  ASSIGN_OR_RETURN(auto reader, corpus::Reader::Open(workload.index));
  const Clock::time_point start = Clock::now();
  student_worker::DataLoader loader(LoadingOf(workload, options), std::make_shared<const corpus::Plan>(std::move(plan)),
                                    std::move(reader), nullptr);
  while (optimizer.step() < job.steps()) {
    ASSIGN_OR_RETURN(const student_worker::Batch batch, loader.Next(std::stop_token()));
    RETURN_IF_ERROR(step.Run(batch).status());
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  // The store must outlive the other ranks' last look at it, and a rank the others' last collective.
  RETURN_IF_ERROR(group->AllGather("").status());
  return seconds;
}

}  // namespace
}  // namespace polystill

int main(int argc, char** argv) {
  polystill::Options options;
  CLI::App app(
      "One rank of data-parallel training of a run's student, by c10d alone; prints the seconds of its steps.");
  app.add_option("--spec", options.spec, "run file: token ids, gold labels")->required();
  app.add_option("--rank", options.rank, "of this process")->required();
  app.add_option("--world-size", options.world_size, "ranks")->required();
  app.add_option("--store-port", options.store_port, "free port, at which rank 0 hosts the store")->required();
  CLI11_PARSE(app, argc, argv);
  const auto seconds = polystill::Train(options);
  if (!seconds.ok()) {
    std::fprintf(stderr, "plain-c10d: rank %d: %s\n", options.rank, seconds.status().ToString().c_str());
    return 1;
  }
  std::printf("%.9f\n", *seconds);
  return 0;
}
