#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/allocator.h"
#include "runtime/files.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "soft_labels/client.h"
#include "teacher_server/engine.h"
#include "teacher_server/service.h"

// Sides of benchmarks/label_stream.py, a server and a client of each: dense fp32 labels from a model that costs
// nothing, through the teacher server's service and the label client; and the same bytes by a stream of gRPC's byte
// buffers.

namespace polystill {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kRows = 64;
constexpr int64_t kClasses = 4'096;
constexpr size_t kMessageBytes = kRows * kClasses * sizeof(float);
constexpr char kRawMethod[] = "/polystill.v1.TeacherService/LabelStream";

struct Options {
  std::string serve;  // "labels" or "raw"
  std::string address_file;
  std::string read;  // the same
  std::string address;
  int messages = 512;
  int window = 8;  // requests in flight
};

// Gives rows of numbers that are there already.
class ReadyBackend final : public teacher_server::Backend {
 public:
  absl::StatusOr<std::vector<at::Tensor>> Forward(const teacher_server::Question& question) override {
    at::set_num_threads(1);  // as every backend does
    const auto rows = static_cast<int64_t>(question.ids.size());
    if (rows > kRows) return absl::InternalError(absl::StrCat(rows, " rows in a batch"));
    return std::vector<at::Tensor>{numbers_.narrow(0, 0, rows)};
  }

 private:
  const at::Tensor numbers_ = at::randn({kRows, kClasses});
};

std::unique_ptr<teacher_server::Engine> MakeEngine() {
  teacher_server::Teacher teacher;
  teacher.name = "ready";
  teacher.digest = std::string(64, 'a');
  teacher.signature.set_input(v1::Signature::INPUT_IDS);
  teacher.signature.set_vocab_size(100);
  teacher.signature.set_max_length(8);
  for (int64_t label = 0; label < kClasses; ++label) teacher.signature.add_labels(absl::StrCat("label-", label));
  teacher.backend = std::make_unique<ReadyBackend>();
  teacher_server::EngineOptions options;
  options.batch.max_rows = kRows;
  const auto fitted = teacher_server::FitToTeacher(options, teacher.signature);
  return std::make_unique<teacher_server::Engine>(std::move(teacher), fitted);
}

// Answers each message of its caller with as many bytes as labels have, which are not copied; behind the same method,
// so that all settings of the server are the same.
class RawService final : public v1::TeacherService::WithRawCallbackMethod_LabelStream<v1::TeacherService::Service> {
 private:
  class Reactor final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
   public:
    explicit Reactor(const grpc::ByteBuffer& answer) : answer_(answer) { StartRead(&question_); }

   private:
    void OnReadDone(bool ok) override {
      if (!ok) {
        std::lock_guard lock(mutex_);
        closed_ = true;
        if (waiting_ == 0 && !finished_) Finish(grpc::Status::OK);
        return;
      }
      {
        std::lock_guard lock(mutex_);
        if (waiting_++ == 0) StartWrite(&answer_);
      }
      StartRead(&question_);
    }
    void OnWriteDone(bool ok) override {
      std::lock_guard lock(mutex_);
      if (--waiting_ > 0 && ok) return StartWrite(&answer_);
      finished_ = closed_ || !ok;
      if (finished_) Finish(grpc::Status::OK);
    }
    void OnDone() override { delete this; }

    const grpc::ByteBuffer& answer_;
    grpc::ByteBuffer question_;
    std::mutex mutex_;
    int waiting_ = 0;
    bool closed_ = false;
    bool finished_ = false;
  };

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* LabelStream(grpc::CallbackServerContext*) override {
    return new Reactor(answer_);
  }

  const grpc::Slice slice_{std::string(kMessageBytes, 'x')};
  const grpc::ByteBuffer answer_{&slice_, 1};
};

absl::Status Serve(const Options& options) {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  teacher_server::TeacherService service;
  RawService raw;
  const bool labels = options.serve == "labels";
  if (labels) service.Serve(MakeEngine());
  grpc::Service* const served = labels ? static_cast<grpc::Service*>(&service) : &raw;
  ASSIGN_OR_RETURN(const ListeningServer listening, Listen("127.0.0.1:0", {served}));
  RETURN_IF_ERROR(WriteFileAtomically(options.address_file, listening.address + "\n"));
  int received = 0;
  sigwait(&stop, &received);
  listening.server->Shutdown(std::chrono::system_clock::now());
  return absl::OkStatus();
}

// Waits for a number of answers.
class Countdown {
 public:
  explicit Countdown(int count) : left_(count) {}
  void Done(const absl::Status& status) {
    std::lock_guard lock(mutex_);
    status_.Update(status);
    if (--left_ == 0) ended_.notify_all();
  }
  absl::Status Wait() {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return left_ == 0; });
    return status_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  int left_;
  absl::Status status_;
};

absl::Status ReadLabels(soft_labels::LabelClient& client, int messages, int window) {
  std::vector<v1::LabelInput> inputs(kRows);
  for (v1::LabelInput& input : inputs) input.mutable_ids()->add_ids(1);
  Countdown countdown(messages);
  std::atomic<int> asked = 0;
  std::function<void()> ask = [&] {
    if (asked++ >= messages) return;
    client.Label({}, inputs, [&](absl::StatusOr<soft_labels::LabelClient::Labels> labels) {
      ask();
      countdown.Done(labels.status());
    });
  };
  for (int i = 0; i < window; ++i) ask();
  return countdown.Wait();
}

class RawReader final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  // `question`: as many bytes as a label request has.
  RawReader(grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>* stub, int messages, int window)
      : countdown_(messages), to_ask_(messages), may_ask_(window) {
    const grpc::Slice slice(std::string(1'024, 'q'));
    question_ = grpc::ByteBuffer(&slice, 1);
    stub->PrepareBidiStreamingCall(&context_, kRawMethod, grpc::StubOptions(), this);
    AddHold();
    StartRead(&answer_);
    {
      std::lock_guard lock(mutex_);
      Advance();
    }
    StartCall();
  }

  absl::Status Wait() {
    const absl::Status status = countdown_.Wait();
    StartWritesDone();
    RemoveHold();
    std::unique_lock lock(mutex_);
    gone_.wait(lock, [this] { return done_; });
    return status;
  }

 private:
  void Advance() {
    if (writing_ || may_ask_ == 0 || to_ask_ == 0) return;
    writing_ = true;
    --may_ask_;
    --to_ask_;
    StartWrite(&question_);
  }
  void OnWriteDone(bool) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    Advance();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    const bool whole = answer_.Length() == kMessageBytes;
    answer_.Clear();
    StartRead(&answer_);
    {
      std::lock_guard lock(mutex_);
      ++may_ask_;
      Advance();
    }
    countdown_.Done(whole ? absl::OkStatus() : absl::DataLossError("a message of another size"));
  }
  void OnDone(const grpc::Status&) override {
    std::lock_guard lock(mutex_);
    done_ = true;
    gone_.notify_all();
  }

  Countdown countdown_;
  grpc::ClientContext context_;
  grpc::ByteBuffer question_, answer_;
  std::mutex mutex_;
  std::condition_variable gone_;
  int to_ask_;
  int may_ask_;
  bool writing_ = false;
  bool done_ = false;
};

// Seconds for all messages, after some that warm up.
absl::StatusOr<double> Read(const Options& options) {
  constexpr int kWarmUp = 32;
  if (options.read == "labels") {
    ASSIGN_OR_RETURN(const auto client, soft_labels::LabelClient::Connect({options.address}, {}));
    RETURN_IF_ERROR(ReadLabels(*client, kWarmUp, options.window));
    const Clock::time_point start = Clock::now();
    RETURN_IF_ERROR(ReadLabels(*client, options.messages, options.window));
    return std::chrono::duration<double>(Clock::now() - start).count();
  }
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub(Connect(options.address));
  RETURN_IF_ERROR(RawReader(&stub, kWarmUp, options.window).Wait());
  const Clock::time_point start = Clock::now();
  RETURN_IF_ERROR(RawReader(&stub, options.messages, options.window).Wait());
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace
}  // namespace polystill

int main(int argc, char** argv) {
  polystill::KeepFreedMemory();  // as all of our programs through which labels go
  polystill::Options options;
  CLI::App app("Streams 1 MiB answers of dense fp32 labels, or the same bytes by gRPC alone, and prints the seconds.");
  app.require_option(1, 0);
  const CLI::IsMember kinds({"labels", "raw"});
  auto* serve = app.add_option("--serve", options.serve, "be a server, until SIGTERM: labels or raw")->check(kinds);
  app.add_option("--address-file", options.address_file, "file for its host:port")->needs(serve);
  auto* read = app.add_option("--read", options.read, "read from a server: labels or raw")->check(kinds);
  app.add_option("--address", options.address, "its host:port")->needs(read);
  app.add_option("--messages", options.messages, "answers that are timed")->capture_default_str();
  app.add_option("--window", options.window, "requests in flight")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (!options.serve.empty()) {
    const absl::Status served = polystill::Serve(options);
    if (!served.ok()) std::fprintf(stderr, "label-stream: %s\n", served.ToString().c_str());
    return served.ok() ? 0 : 1;
  }
  const auto seconds = polystill::Read(options);
  if (!seconds.ok()) {
    std::fprintf(stderr, "label-stream: %s\n", seconds.status().ToString().c_str());
    return 1;
  }
  std::printf("%.9f\n", *seconds);
  return 0;
}
