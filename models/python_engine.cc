#include "models/python_engine.h"

#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "models/python_process.h"
#include "runtime/mutex.h"
#include "runtime/status.h"

namespace polystill::models {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kForever{-1};
// Between two looks whether a process that loads its model listens.
constexpr milliseconds kLook{50};
// For a process whose connection is lost to end.
constexpr milliseconds kMoment{200};

class PythonEngine final : public InferenceEngine {
 public:
  explicit PythonEngine(PythonOptions options) : options_(std::move(options)), places_(options_.processes) {}

  // RESOURCE_EXHAUSTED when no more files can be opened.
  absl::Status Start() {
    for (const Place& place : places_) {
      if (place.wake.get() < 0) return absl::ResourceExhaustedError("too many open files to start Python processes");
    }
    for (Place& place : places_) place.keeper = std::thread([this, &place] { Keep(&place); });
    return absl::OkStatus();
  }

  ~PythonEngine() override {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      for (const Place& place : places_) Wake(place);
      changed_.NotifyAll();
    }
    for (Place& place : places_) {
      if (place.keeper.joinable()) place.keeper.join();
    }
  }

  // Until every process has loaded the model, or why one could not.
  absl::Status WaitUntilLoaded() {
    MutexLock lock(&mutex_);
    while (true) {
      bool all_loaded = true;
      for (const Place& place : places_) {
        // Also of one that had loaded, and ended while another still does.
        if (!place.failure.ok()) return place.failure;
        all_loaded &= place.client != nullptr;
      }
      if (all_loaded) break;
      changed_.Wait(&mutex_);
    }
    loaded_ = true;
    return absl::OkStatus();
  }

  absl::StatusOr<inference::ModelMetadataResponse> Metadata() override {
    ASSIGN_OR_RETURN(const Loan loan, Borrow());
    inference::ModelMetadataResponse metadata;
    const grpc::Status status = loan.client->Metadata({}, options_.answer, &metadata);
    GiveBack(loan, /*answered=*/status.ok());
    if (status.ok()) return metadata;
    return absl::InternalError(status.error_message());
  }

  absl::StatusOr<inference::ModelInferResponse> Infer(const inference::ModelInferRequest& request) override {
    for (int attempt = 0; attempt < 2; ++attempt) {
      ASSIGN_OR_RETURN(const Loan loan, Borrow());
      inference::ModelInferResponse response;
      const grpc::Status status = loan.client->Infer(request, options_.answer, &response);
      switch (status.error_code()) {
        case grpc::StatusCode::OK:
          GiveBack(loan, /*answered=*/true);
          return response;
        case grpc::StatusCode::UNAVAILABLE:
          Discard(loan, "is not connected any more", kMoment);
          continue;
        case grpc::StatusCode::DEADLINE_EXCEEDED: {
          const std::string hung =
              absl::StrCat("gave no answer within ", options_.answer.count(), " s (python.answer_seconds)");
          Discard(loan, hung, milliseconds(0));
          return absl::UnavailableError(absl::StrCat("Python process ", loan.pid, " ", hung, " and is killed"));
        }
        default:
          GiveBack(loan, /*answered=*/true);
          return absl::InternalError(status.error_message());
      }
    }
    return absl::UnavailableError(
        "the Python process that computed the batch ended, and so did the one that it was tried again by; the log says "
        "how");
  }

 private:
  // Of one process, and those after it.
  struct Place {
    std::shared_ptr<InferenceClient> client;  // null unless it has loaded
    pid_t pid = 0;
    bool lent = false;
    // It waits to be started again.
    bool rests = false;
    // Not empty: it is to be killed, and why.
    std::string unwanted;
    milliseconds patience{0};
    // Without an answer in between.
    int failures = 0;
    // How the last one ended.
    absl::Status failure;
    const OpenFile wake{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    std::thread keeper;
  };

  // The use of a process.
  struct Loan {
    Place* place;
    pid_t pid;
    std::shared_ptr<InferenceClient> client;
  };

  static void Wake(const Place& place) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(place.wake.get(), &one, sizeof(one));
  }

  static void ClearWake(const Place& place) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(place.wake.get(), &count, sizeof(count));
  }

  // Waits for a process that is free, or loads the model; not for one that rests.
  absl::StatusOr<Loan> Borrow() {
    const Clock::time_point end = Clock::now() + options_.start + options_.answer;
    MutexLock lock(&mutex_);
    while (!stopping_) {
      for (Place& place : places_) {
        if (place.client == nullptr || place.lent) continue;
        place.lent = true;
        return Loan{&place, place.pid, place.client};
      }
      const bool all_rest = std::all_of(places_.begin(), places_.end(), [](const Place& place) { return place.rests; });
      if (all_rest || Clock::now() >= end) return absl::UnavailableError(WhyNone());
      changed_.WaitFor(&mutex_, end - Clock::now());
    }
    return absl::UnavailableError("the Python processes are being stopped");
  }

  // Why nobody can be asked.
  std::string WhyNone() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (const Place& place : places_) {
      if (place.client == nullptr) return absl::StrCat("no Python process is ready: ", place.failure.message());
    }
    return "no Python process became free";
  }

  void GiveBack(const Loan& loan, bool answered) {
    MutexLock lock(&mutex_);
    if (loan.place->client != loan.client) return;  // it has ended meanwhile
    loan.place->lent = false;
    if (answered) loan.place->failures = 0;
    changed_.NotifyAll();
  }

  // Lets nobody use the process any more, and kills it unless it ends by itself within `patience`.
  void Discard(const Loan& loan, std::string why, milliseconds patience) {
    MutexLock lock(&mutex_);
    if (loan.place->client != loan.client) return;
    loan.place->client = nullptr;
    loan.place->unwanted = std::move(why);
    loan.place->patience = patience;
    Wake(*loan.place);
  }

  // The keeper's thread: a process after the other.
  void Keep(Place* place) {
    while (true) {
      const absl::Status end = RunOne(place);
      milliseconds delay;
      {
        MutexLock lock(&mutex_);
        if (stopping_) return;
        delay = RestartDelay(place->failures++);
        place->client = nullptr;
        place->failure = end;
        place->rests = delay.count() > 0;
        changed_.NotifyAll();
        if (!loaded_) return;
      }
      spdlog::warn("{}; started again in {} ms", std::string(end.message()), delay.count());
      if (options_.restarted) options_.restarted();
      const Clock::time_point next = Clock::now() + delay;
      MutexLock lock(&mutex_);
      while (!stopping_ && Clock::now() < next) changed_.WaitFor(&mutex_, next - Clock::now());
      if (stopping_) return;
      place->rests = false;
    }
  }

  // From the start of a process to its end, and why it ended.
  absl::Status RunOne(Place* place) {
    {
      MutexLock lock(&mutex_);
      if (stopping_) return absl::OkStatus();
      place->unwanted.clear();
      ClearWake(*place);  // it was about the process before
    }
    ASSIGN_OR_RETURN(const std::unique_ptr<PythonProcess> process, PythonProcess::Start(options_));
    const auto client = std::make_shared<InferenceClient>(process->target());
    const Clock::time_point end = Clock::now() + options_.start;
    while (!client->Connected()) {
      if (process->Watch(place->wake.get(), kLook)) {
        return absl::FailedPreconditionError(process->Obituary(" before the model was loaded"));
      }
      if (IsStopping()) return absl::OkStatus();
      if (Clock::now() < end) continue;
      return absl::DeadlineExceededError(absl::StrCat("Python process ", process->pid(),
                                                      " did not load the model within ", options_.start.count(),
                                                      " s (python.start_seconds)"));
    }
    process->RemoveSocket();
    Publish(place, process->pid(), client);
    return WatchUntilEnd(place, process.get());
  }

  void Publish(Place* place, pid_t pid, std::shared_ptr<InferenceClient> client) {
    MutexLock lock(&mutex_);
    place->client = std::move(client);
    place->pid = pid;
    place->lent = false;
    changed_.NotifyAll();
  }

  absl::Status WatchUntilEnd(Place* place, PythonProcess* process) {
    std::string unwanted;
    milliseconds patience{0};
    while (unwanted.empty()) {
      if (process->Watch(place->wake.get(), kForever)) return absl::UnavailableError(process->Obituary());
      ClearWake(*place);
      MutexLock lock(&mutex_);
      if (stopping_) return absl::OkStatus();
      unwanted = place->unwanted;
      patience = place->patience;
    }
    // How it ended says more than that it is not connected any more, but comes a moment later.
    if (process->Watch(/*wake=*/-1, patience)) return absl::UnavailableError(process->Obituary());
    return absl::UnavailableError(absl::StrCat("Python process ", process->pid(), " ", unwanted, " and is killed"));
  }

  bool IsStopping() {
    MutexLock lock(&mutex_);
    return stopping_;
  }

  const PythonOptions options_;
  Mutex mutex_;
  CondVar changed_;
  // A place's members are guarded, but for `wake` and `keeper`.
  std::vector<Place> places_;
  bool loaded_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<InferenceEngine>> StartPythonEngine(PythonOptions options) {
  auto engine = std::make_unique<PythonEngine>(std::move(options));
  RETURN_IF_ERROR(engine->Start());
  RETURN_IF_ERROR(engine->WaitUntilLoaded());
  return engine;
}

milliseconds RestartDelay(int failures) {
  constexpr int kMost = 30;
  return failures == 0 ? milliseconds(0) : milliseconds(1'000 * std::min(1 << std::min(failures - 1, 5), kMost));
}

}  // namespace polystill::models
