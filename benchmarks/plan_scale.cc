#include <malloc.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "corpus/index.h"
#include "corpus/permutation.h"
#include "corpus/plan.h"
#include "runtime/counter_rng.h"
#include "runtime/sha256.h"
#include "runtime/status.h"

// A part of benchmarks/coordinator_scale.py: a plan over a corpus that is too large to be written, made of its index
// alone.

namespace polystill {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kSeed = 7;
// Row groups of a file.
constexpr int64_t kFileBlocks = 64;

struct Options {
  int64_t records = 100'000'000'000;
  int languages = 400;
  int64_t block_records = 1'000'000;
  int batch = 4096;
  double epochs = 3;
  double tau = 2;
  int steps = 1000;  // that are sliced
};

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Of this process, in bytes, without what it has freed.
int64_t ResidentBytes() {
  malloc_trim(0);
  std::ifstream statm("/proc/self/statm");
  int64_t all = 0, resident = 0;
  statm >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// The most that this process ever held, in bytes.
int64_t PeakBytes() {
  std::ifstream status("/proc/self/status");
  int64_t kilobytes = 0;
  for (std::string word; status >> word;) {
    if (word == "VmHWM:") status >> kilobytes;
  }
  return kilobytes << 10;
}

// That this thread has computed: a slice takes as long where no other program wants the core.
double ComputedSeconds() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Of each language: as Zipf says, in proportion to 1, 1/2, 1/3 ...; they add up to `records`.
std::vector<int64_t> RecordsOfLanguages(int64_t records, int languages) {
  double weights = 0;
  for (int i = 1; i <= languages; ++i) weights += 1.0 / i;
  std::vector<int64_t> shares;
  int64_t left = records;
  for (int i = languages; i > 1; --i) {
    shares.push_back(std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(records) / (weights * i))));
    left -= shares.back();
  }
  shares.push_back(left);
  return shares;
}

// Sorted by language, as the corpus of a large run should be.
v1::CorpusIndex MakeIndex(const Options& options) {
  v1::CorpusIndex index;
  index.mutable_selection()->mutable_corpus()->set_path("corpus");
  int64_t blocks = 0;
  for (const int64_t records : RecordsOfLanguages(options.records, options.languages)) {
    v1::CorpusIndex::Language& language = *index.add_languages();
    language.set_name(absl::StrFormat("l%03d", index.languages_size()));
    language.set_records(records);
    for (int64_t first = 0; first < records; first += options.block_records, ++blocks) {
      v1::CorpusIndex::Block& block = *language.add_blocks();
      block.set_file(static_cast<int32_t>(blocks / kFileBlocks));
      block.set_row_group(static_cast<int32_t>(blocks % kFileBlocks));
      block.set_records(std::min(options.block_records, records - first));
    }
  }
  for (int64_t file = 0; file * kFileBlocks < blocks; ++file) {
    v1::CorpusIndex::File& entry = *index.add_files();
    entry.set_path(absl::StrFormat("part-%08d.parquet", file));
    entry.set_bytes(kFileBlocks * options.block_records * 100);
    entry.set_sha256(Sha256Hex(entry.path()));
  }
  return index;
}

v1::PlanSegment MakeSegment(const Options& options, const v1::CorpusIndex& index) {
  v1::PlanSegment segment;
  segment.set_algorithm(2);
  segment.set_seed(kSeed);
  segment.set_batch_size(options.batch);
  segment.mutable_mixture()->set_kind(v1::Mixture::KIND_TEMPERATURE);
  segment.mutable_mixture()->set_tau(options.tau);
  segment.set_index_digest(corpus::IndexDigest(index));
  return segment;
}

struct Times {
  std::vector<double> passed, computed;  // seconds, ascending
};

// Of whole global batches of `count` random steps. Any two of them may be of other passes: what a step needs of a pass
// is made anew for most.
Times TimeSlices(const corpus::Plan& plan, int64_t steps, int count) {
  Times times;
  for (int i = 0; i < count; ++i) {
    const auto step = static_cast<int64_t>(corpus::Below(CombineKey(kSeed, i), steps));
    const Clock::time_point start = Clock::now();
    const double computed = ComputedSeconds();
    const auto refs = plan.Slice(step, 0, plan.segment().batch_size());
    times.computed.push_back(ComputedSeconds() - computed);
    times.passed.push_back(SecondsSince(start));
  }
  std::sort(times.passed.begin(), times.passed.end());
  std::sort(times.computed.begin(), times.computed.end());
  return times;
}

absl::StatusOr<nlohmann::ordered_json> Measure(const Options& options) {
  nlohmann::ordered_json told;
  const int64_t before = ResidentBytes();
  auto index = std::make_shared<v1::CorpusIndex>(MakeIndex(options));
  const int64_t with_index = ResidentBytes();
  int64_t blocks = 0;
  for (const auto& language : index->languages()) blocks += language.blocks_size();
  told["records"] = options.records;
  told["languages"] = index->languages_size();
  told["block_records"] = options.block_records;
  told["blocks"] = blocks;
  told["index_bytes"] = index->ByteSizeLong();
  told["index_resident_bytes"] = with_index - before;

  const v1::PlanSegment segment = MakeSegment(options, *index);
  const Clock::time_point start = Clock::now();
  ASSIGN_OR_RETURN(const corpus::Plan plan, corpus::Plan::Create(segment, index));
  told["create_seconds"] = SecondsSince(start);
  ASSIGN_OR_RETURN(const int64_t steps, plan.StepsForEpochs(options.epochs));
  const Times slices = TimeSlices(plan, steps, options.steps);
  told["plan_resident_bytes"] = ResidentBytes() - with_index;
  told["peak_resident_bytes"] = PeakBytes();
  told["slice_median_ms"] = 1e3 * slices.passed[slices.passed.size() / 2];
  told["slice_worst_ms"] = 1e3 * slices.passed.back();
  told["computed_median_ms"] = 1e3 * slices.computed[slices.computed.size() / 2];
  told["computed_worst_ms"] = 1e3 * slices.computed.back();
  return told;
}

}  // namespace
}  // namespace polystill

int main(int argc, char** argv) {
  polystill::Options options;
  CLI::App app("Plans over the index of a made-up corpus, and prints what that costs, as JSON.");
  app.add_option("--records", options.records, "of the corpus")->check(CLI::PositiveNumber);
  app.add_option("--languages", options.languages, "whose sizes follow Zipf's law")->check(CLI::PositiveNumber);
  app.add_option("--block-records", options.block_records, "records of a row group")->check(CLI::PositiveNumber);
  app.add_option("--batch", options.batch, "records of a step")->check(CLI::PositiveNumber);
  app.add_option("--epochs", options.epochs, "of the training whose steps are sliced")->check(CLI::PositiveNumber);
  app.add_option("--tau", options.tau, "temperature of the mixture")->check(CLI::Range(1.0, 100.0));
  app.add_option("--steps", options.steps, "random steps that are sliced")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  const auto told = polystill::Measure(options);
  if (!told.ok()) {
    std::fprintf(stderr, "plan-scale: %s\n", told.status().ToString().c_str());
    return 1;
  }
  std::printf("%s\n", told->dump().c_str());
  return 0;
}
