#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "models/package.h"
#include "runtime/status.h"
#include "soft_labels/client.h"

// Both sides of benchmarks/teacher_server.py: the same batches to a model in this process, and to a teacher server.

namespace polystill {
namespace {

using Clock = std::chrono::steady_clock;
using models::Rows;

struct Options {
  std::string rows;     // file: a record a line, its token ids
  std::string package;  // direct
  std::string address;  // served
  int threads = 2;
  int batch = 64;  // records
  bool one_by_one = false;
  int padded_tokens = 0;  // not 0: direct, batches of so many tokens, padded
};

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

Rows ReadRows(const std::string& path) {
  Rows rows;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    rows.emplace_back(std::istream_iterator<int32_t>(words), std::istream_iterator<int32_t>());
  }
  return rows;
}

std::vector<Rows> Batches(const Rows& rows, size_t size) {
  std::vector<Rows> batches;
  for (size_t first = 0; first < rows.size(); first += size) {
    batches.emplace_back(rows.begin() + first, rows.begin() + std::min(rows.size(), first + size));
  }
  return batches;
}

// In their order, as many as fit `tokens` when each is filled up to the longest; filled up so.
std::vector<Rows> PaddedBatches(const Rows& rows, size_t tokens) {
  std::vector<Rows> batches;
  size_t longest = 0;
  for (const auto& row : rows) {
    const size_t length = std::max(longest, row.size());
    if (batches.empty() || length * (batches.back().size() + 1) > tokens) batches.emplace_back();
    longest = batches.back().empty() ? row.size() : length;
    batches.back().push_back(row);
  }
  for (Rows& batch : batches) {
    size_t width = 0;
    for (const auto& row : batch) width = std::max(width, row.size());
    for (auto& row : batch) row.resize(width, 0);
  }
  return batches;
}

class Direct {
 public:
  static absl::StatusOr<Direct> Open(const Options& options) {
    ASSIGN_OR_RETURN(models::Package package, models::LoadPackage(options.package));
    return Direct(std::move(package.model), options.threads, options.padded_tokens > 0);
  }

  absl::Status All(const std::vector<Rows>& batches) const {
    std::atomic<size_t> next = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < threads_; ++i) {
      threads.emplace_back([&] {
        for (size_t batch = next++; batch < batches.size(); batch = next++) Forward(batches[batch]);
      });
    }
    for (std::thread& thread : threads) thread.join();
    return absl::OkStatus();
  }

 private:
  Direct(std::unique_ptr<models::Model> model, int threads, bool as_they_are)
      : model_(std::move(model)), threads_(threads), as_they_are_(as_they_are) {}

  void Forward(const Rows& rows) const {
    at::set_num_threads(1);
    const at::NoGradGuard no_grad;
    if (as_they_are_) {
      model_->Forward(models::MakeBatch(rows, {}));
    } else {
      models::FixedShapeForward(*model_, rows);
    }
  }

  std::unique_ptr<models::Model> model_;
  int threads_;
  bool as_they_are_;  // one forward a batch, not packed anew
};

class Served {
 public:
  static absl::StatusOr<Served> Open(const Options& options) {
    ASSIGN_OR_RETURN(auto client, soft_labels::LabelClient::Connect({options.address}, {}));
    return Served(std::move(client));
  }

  // All in flight at once, as far as credits reach.
  absl::Status All(const std::vector<Rows>& batches) const {
    std::vector<std::future<absl::Status>> answers;
    for (const Rows& batch : batches) answers.push_back(Ask(batch));
    absl::Status status;
    for (auto& answer : answers) status.Update(answer.get());
    return status;
  }

 private:
  explicit Served(std::unique_ptr<soft_labels::LabelClient> client) : client_(std::move(client)) {}

  std::future<absl::Status> Ask(const Rows& rows) const {
    std::vector<v1::LabelInput> inputs(rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      inputs[i].mutable_ids()->mutable_ids()->Assign(rows[i].begin(), rows[i].end());
    }
    auto promise = std::make_shared<std::promise<absl::Status>>();
    client_->Label({}, std::move(inputs), [promise](const auto& labels) { promise->set_value(labels.status()); });
    return promise->get_future();
  }

  std::unique_ptr<soft_labels::LabelClient> client_;
};

// Seconds for all records, after some that warm up; one by one: the median of a record.
template <typename Side>
absl::StatusOr<double> Measure(const Side& side, const Options& options) {
  const Rows rows = ReadRows(options.rows);
  if (rows.empty()) return absl::NotFoundError(options.rows + ": no records");
  const std::vector<Rows> batches = options.padded_tokens > 0
                                        ? PaddedBatches(rows, static_cast<size_t>(options.padded_tokens))
                                        : Batches(rows, options.one_by_one ? 1 : options.batch);
  const std::vector<Rows> some(batches.begin(), batches.begin() + std::min<size_t>(batches.size(), 4));
  RETURN_IF_ERROR(side.All(some));
  std::vector<double> seconds;
  if (options.one_by_one) {
    for (const Rows& one : batches) {
      const Clock::time_point start = Clock::now();
      RETURN_IF_ERROR(side.All({one}));
      seconds.push_back(SecondsSince(start));
    }
    return Median(seconds);
  }
  const Clock::time_point start = Clock::now();
  RETURN_IF_ERROR(side.All(batches));
  return SecondsSince(start);
}

absl::StatusOr<double> Run(const Options& options) {
  if (!options.address.empty()) {
    ASSIGN_OR_RETURN(const Served served, Served::Open(options));
    return Measure(served, options);
  }
  ASSIGN_OR_RETURN(const Direct direct, Direct::Open(options));
  return Measure(direct, options);
}

}  // namespace
}  // namespace polystill

int main(int argc, char** argv) {
  polystill::Options options;
  CLI::App app("Labels records by a model in this process, or by a teacher server, and prints the seconds.");
  app.add_option("--rows", options.rows, "file with a record a line: token ids")->required();
  auto* package = app.add_option("--package", options.package, "the model in this process");
  app.add_option("--address", options.address, "host:port of the server")->excludes(package);
  app.add_option("--threads", options.threads, "of --package: batches at once")->capture_default_str();
  app.add_option("--batch", options.batch, "records of a batch, or a request")->capture_default_str();
  app.add_option("--padded-tokens", options.padded_tokens,
                 "of --package: batches in the rows' order, padded to so many tokens")
      ->needs(package);
  app.add_flag("--one-by-one", options.one_by_one, "a record at a time; prints the median");
  CLI11_PARSE(app, argc, argv);
  const auto seconds = polystill::Run(options);
  if (!seconds.ok()) {
    std::fprintf(stderr, "teacher_load: %s\n", seconds.status().ToString().c_str());
    return 1;
  }
  std::printf("%.9f\n", *seconds);
  return 0;
}
