#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stop_token>
#include <thread>

#include "absl/strings/str_cat.h"
#include "benchmarks/members.h"
#include "runtime/random_id.h"
#include "runtime/rpc.h"
#include "runtime/status.h"

// The load of benchmarks/coordinator_scale.py on a real coordinator.

namespace polystill::benchmarks {
namespace {

using Stub = v1::CoordinatorService::Stub;

constexpr std::chrono::milliseconds kBeatEvery(5);
constexpr std::chrono::seconds kSettle(2);

struct Options {
  std::string address;
  int pid = 0;
  int workers = 1000;
  int teachers = 200;
  std::string teacher = "teacher";
  std::string digest;
  int streams_per_connection = 50;
  double seconds = 30;
  int probe_every_ms = 20;
  int kills = 3;
};

// Connections of their own, which streams use in turn.
class Connections {
 public:
  Connections(const std::string& address, int count) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    for (int i = 0; i < count; ++i) {
      stubs_.push_back(v1::CoordinatorService::NewStub(ConnectWith(address, arguments)));
    }
  }
  Stub* Next() { return stubs_[next_++ % stubs_.size()].get(); }

 private:
  std::vector<std::unique_ptr<Stub>> stubs_;
  size_t next_ = 0;
};

// Tells the ledger the run's status.
class Watcher {
 public:
  Watcher(Stub* stub, Ledger* ledger) : thread_([this, stub, ledger] { Watch(stub, ledger); }) {}
  ~Watcher() {
    context_.TryCancel();
    thread_.join();
  }

 private:
  void Watch(Stub* stub, Ledger* ledger) {
    v1::WatchRequest request;
    request.set_protocol_version(kProtocolVersion);
    const auto stream = stub->Watch(&context_, request);
    for (v1::RunStatus status; stream->Read(&status);) ledger->Watched(status);
    stream->Finish();
  }

  grpc::ClientContext context_;
  std::thread thread_;
};

// Lets every member beat once a second, evenly spread; one that comes late is made up for.
class Heart {
 public:
  Heart() : thread_([this](const std::stop_token& stop) { Run(stop); }) {}

  void Add(std::function<void()> beat) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    beats_.push_back(std::move(beat));
  }
  int64_t count() const { return count_; }

 private:
  void Run(const std::stop_token& stop) {
    const Clock::time_point start = Clock::now();
    for (double done = 0; !stop.stop_requested(); std::this_thread::sleep_for(kBeatEvery)) {
      const double now = SecondsSince(start);
      BeatThose(done, now);
      done = now;
    }
  }

  // Whose turn is between these two moments, in seconds.
  void BeatThose(double from, double to) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    const auto members = static_cast<double>(beats_.size());
    for (auto i = static_cast<int64_t>(from * members); i < static_cast<int64_t>(to * members); ++i, ++count_) {
      beats_[i % beats_.size()]();
    }
  }

  Mutex mutex_;
  std::vector<std::function<void()>> beats_ ABSL_GUARDED_BY(mutex_);
  std::atomic<int64_t> count_ = 0;
  std::jthread thread_;  // last: it uses the members
};

// What the coordinator's process has taken.
struct Usage {
  double cpu_seconds = 0;
  double resident_mib = 0;
};

Usage UsageOf(int pid) {
  std::ifstream stat(absl::StrCat("/proc/", pid, "/stat"));
  std::string line;
  std::getline(stat, line);
  // Behind the name, which may hold anything: state, and as the 12th and 13th word the ticks of user and system.
  std::istringstream words(line.substr(line.rfind(')') + 1));
  const std::vector<std::string> fields{std::istream_iterator<std::string>(words), {}};
  Usage usage;
  if (fields.size() < 22) return usage;
  usage.cpu_seconds = (std::stod(fields[11]) + std::stod(fields[12])) / static_cast<double>(sysconf(_SC_CLK_TCK));
  usage.resident_mib = std::stod(fields[21]) * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
  return usage;
}

// Everything that is simulated in one run of the coordinator.
class Load {
 public:
  explicit Load(const Options& options)
      : options_(options),
        connections_(options.address, 1 + (options.workers + options.teachers) / options.streams_per_connection),
        watcher_(connections_.Next(), &ledger_) {}
  ~Load();

  absl::StatusOr<nlohmann::ordered_json> Measure();

 private:
  template <typename Kind, typename Hello, typename... Arguments>
  void Add(std::vector<std::unique_ptr<Kind>>* members, Hello hello, Arguments... arguments) {
    members->push_back(std::make_unique<Kind>(&ledger_, arguments...));
    members->back()->Join(connections_.Next(), std::move(hello));
    heart_.Add([member = members->back().get()] { member->Beat(); });
  }

  absl::Status Join();
  absl::Status MeasureHeartbeats();
  absl::Status MeasureGenerations();

  const Options options_;
  Ledger ledger_;
  Connections connections_;
  Watcher watcher_;
  std::vector<std::unique_ptr<Teacher>> teachers_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::unique_ptr<Probe>> probes_;
  int64_t generation_ = 0;
  nlohmann::ordered_json told_;
  Heart heart_;  // last: it beats the members
};

Load::~Load() {
  const auto leave = [](const auto& members) {
    for (const auto& member : members) member->Leave();
    for (const auto& member : members) member->AwaitDone();
  };
  leave(probes_);
  leave(workers_);
  leave(teachers_);
}

absl::StatusOr<nlohmann::ordered_json> Load::Measure() {
  told_["workers"] = options_.workers;
  told_["teachers"] = options_.teachers;
  RETURN_IF_ERROR(Join());
  std::this_thread::sleep_for(kSettle);
  RETURN_IF_ERROR(MeasureHeartbeats());
  RETURN_IF_ERROR(MeasureGenerations());
  return told_;
}

absl::Status Load::Join() {
  for (int i = 0; i < options_.teachers; ++i) {
    Add(&teachers_, Teacher::Hello(options_.teacher, i), options_.digest);
  }
  RETURN_IF_ERROR(ledger_.AwaitReady(options_.teachers));
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < options_.workers; ++i) Add(&workers_, Worker::Hello(RandomId()));
  RETURN_IF_ERROR(ledger_.AwaitWelcomed(options_.workers));
  told_["join_seconds"] = SecondsSince(start);
  ASSIGN_OR_RETURN(generation_, ledger_.AwaitGeneration(0, options_.workers));
  told_["first_generation_seconds"] = SecondsSince(start);
  told_["assignment_bytes"] = ledger_.assignment().ByteSizeLong();
  told_["assignment_teachers"] = ledger_.assignment().teachers_size();
  return absl::OkStatus();
}

// Probes start when it is their time, whatever has become of those before.
absl::Status Load::MeasureHeartbeats() {
  const Clock::time_point start = Clock::now();
  const int64_t beats = heart_.count();
  const double cpu = UsageOf(options_.pid).cpu_seconds;
  const std::chrono::milliseconds every(options_.probe_every_ms);
  for (int i = 0; SecondsSince(start) < options_.seconds; ++i) {
    std::this_thread::sleep_until(start + i * every);
    probes_.push_back(std::make_unique<Probe>(&ledger_));
    probes_.back()->Join(connections_.Next(), Worker::Hello(absl::StrCat("probe-", i)));
  }
  const double seconds = SecondsSince(start);
  const Usage usage = UsageOf(options_.pid);
  told_["heartbeats_per_second"] = static_cast<double>(heart_.count() - beats) / seconds;
  RETURN_IF_ERROR(ledger_.AwaitProbes(probes_.size()));
  for (const auto& probe : probes_) probe->AwaitDone();
  std::vector<double> answers = ledger_.TakeProbes();
  std::sort(answers.begin(), answers.end());
  const auto quantile = [&](double share) {
    return 1e3 * answers[static_cast<size_t>(share * static_cast<double>(answers.size() - 1))];
  };
  told_["probes"] = answers.size();
  told_["answer_median_ms"] = quantile(0.5);
  told_["answer_p99_ms"] = quantile(0.99);
  told_["answer_worst_ms"] = quantile(1);
  told_["coordinator_cores"] = (usage.cpu_seconds - cpu) / seconds;
  told_["coordinator_resident_mib"] = usage.resident_mib;
  return absl::OkStatus();
}

// One worker is killed, and the others form a generation; another comes, and they form one with it.
absl::Status Load::MeasureGenerations() {
  const auto seconds_of = [this](int workers) -> absl::StatusOr<double> {
    const Clock::time_point start = Clock::now();
    ASSIGN_OR_RETURN(generation_, ledger_.AwaitGeneration(generation_, workers));
    return SecondsSince(start);
  };
  std::vector<double> after_death, after_arrival;
  for (int kill = 0; kill < options_.kills; ++kill) {
    std::this_thread::sleep_for(kSettle);
    // Ranks of which the first, the last and those between.
    workers_[static_cast<size_t>(kill) * (options_.workers - 1) / std::max(options_.kills - 1, 1)]->Leave();
    ASSIGN_OR_RETURN(after_death.emplace_back(), seconds_of(options_.workers - 1));
    std::this_thread::sleep_for(kSettle);
    Add(&workers_, Worker::Hello(RandomId()));
    ASSIGN_OR_RETURN(after_arrival.emplace_back(), seconds_of(options_.workers));
  }
  told_["after_death_seconds"] = after_death;
  told_["after_arrival_seconds"] = after_arrival;
  return absl::OkStatus();
}

absl::StatusOr<nlohmann::ordered_json> Run(const Options& options) { return Load(options).Measure(); }

}  // namespace
}  // namespace polystill::benchmarks

int main(int argc, char** argv) {
  polystill::benchmarks::Options options;
  CLI::App app("Puts workers and teachers without a model on a coordinator, and prints how it bears them, as JSON.");
  app.add_option("--address", options.address, "host:port of the coordinator")->required();
  app.add_option("--pid", options.pid, "of the coordinator")->required();
  app.add_option("--workers", options.workers, "as many as its run wants")->check(CLI::PositiveNumber);
  app.add_option("--teachers", options.teachers, "as many as its run wants")->check(CLI::PositiveNumber);
  app.add_option("--teacher", options.teacher, "the teacher's name in the run file")->capture_default_str();
  app.add_option("--digest", options.digest, "of its package")->required();
  app.add_option("--streams-per-connection", options.streams_per_connection, "at most")->check(CLI::PositiveNumber);
  app.add_option("--seconds", options.seconds, "for which heartbeats are measured")->check(CLI::PositiveNumber);
  app.add_option("--probe-every-ms", options.probe_every_ms, "between two measurements")->check(CLI::PositiveNumber);
  app.add_option("--kills", options.kills, "workers that die, one after another")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  const auto told = polystill::benchmarks::Run(options);
  if (!told.ok()) {
    std::fprintf(stderr, "coordinator-load: %s\n", told.status().ToString().c_str());
    return 1;
  }
  std::printf("%s\n", told->dump().c_str());
  return 0;
}
