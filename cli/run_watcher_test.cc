#include "cli/run_watcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "runtime/rpc.h"

namespace polystill::cli {
namespace {

// Answers each Watch call with the next of `calls` and then ends it; the last waits for the caller to go.
class FakeCoordinator : public v1::CoordinatorService::Service {
 public:
  explicit FakeCoordinator(std::deque<std::vector<v1::RunStatus>> calls) : calls_(std::move(calls)) {}

  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::RunStatus>* writer) override {
    EXPECT_EQ(request->protocol_version(), kProtocolVersion);
    std::vector<v1::RunStatus> statuses;
    {
      MutexLock lock(&mutex_);
      asked_for_.push_back(request->run_id());
      if (!calls_.empty()) statuses = calls_.front();
      if (!calls_.empty()) calls_.pop_front();
    }
    for (const v1::RunStatus& status : statuses) writer->Write(status);
    if (!statuses.empty()) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "going");
    while (!context->IsCancelled()) std::this_thread::yield();
    return grpc::Status::CANCELLED;
  }

  grpc::Status Stop(grpc::ServerContext*, const v1::StopRequest* request, v1::StopReply*) override {
    MutexLock lock(&mutex_);
    EXPECT_EQ(request->protocol_version(), kProtocolVersion);
    reason_ = request->reason();
    asked_for_.push_back(request->run_id());
    return grpc::Status::OK;
  }

  std::string reason() {
    MutexLock lock(&mutex_);
    return reason_;
  }
  // The run ids of all requests.
  std::vector<std::string> asked_for() {
    MutexLock lock(&mutex_);
    return asked_for_;
  }

 private:
  Mutex mutex_;
  std::deque<std::vector<v1::RunStatus>> calls_ ABSL_GUARDED_BY(mutex_);
  std::string reason_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> asked_for_ ABSL_GUARDED_BY(mutex_);
};

v1::RunStatus State(v1::RunStatus::State state, const std::string& reason = "") {
  v1::RunStatus status;
  status.set_state(state);
  status.set_reason(reason);
  return status;
}

void Await(const RunWatcher& watcher, v1::RunStatus::State state) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (watcher.Latest().status.state() != state) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << watcher.Latest().status.ShortDebugString();
    std::this_thread::yield();
  }
}

TEST(RunWatcher, OpensABrokenStreamAgain) {
  FakeCoordinator service({{State(v1::RunStatus::STATE_RUNNING)}, {State(v1::RunStatus::STATE_FAILED, "why")}});
  auto listening = Listen("127.0.0.1:0", {&service});
  ASSERT_TRUE(listening.ok()) << listening.status();
  RunWatcher watcher(listening->address);
  Await(watcher, v1::RunStatus::STATE_FAILED);
  EXPECT_EQ(watcher.Latest().status.reason(), "why");
}

TEST(RunWatcher, StaysWithTheRunThatAnsweredFirst) {
  v1::RunStatus running = State(v1::RunStatus::STATE_RUNNING), failed = State(v1::RunStatus::STATE_FAILED);
  running.set_run_id("mine");
  failed.set_run_id("mine");
  FakeCoordinator service({{running}, {failed}});
  auto listening = Listen("127.0.0.1:0", {&service});
  ASSERT_TRUE(listening.ok()) << listening.status();
  RunWatcher watcher(listening->address);
  Await(watcher, v1::RunStatus::STATE_FAILED);
  EXPECT_TRUE(watcher.Stop("late").ok());
  EXPECT_THAT(service.asked_for(), testing::ElementsAre("", "mine", "mine"));
}

TEST(RunWatcher, StopsAndLeavesAnOpenStream) {
  FakeCoordinator service({});
  auto listening = Listen("127.0.0.1:0", {&service});
  ASSERT_TRUE(listening.ok()) << listening.status();
  {
    RunWatcher watcher(listening->address);
    EXPECT_TRUE(watcher.Stop("enough").ok());
    EXPECT_EQ(service.reason(), "enough");
    EXPECT_EQ(watcher.Latest().status.state(), v1::RunStatus::STATE_UNSPECIFIED);
  }
  listening->server->Shutdown();
}

TEST(RunWatcher, WithNobodyThereItOnlyWaits) {
  RunWatcher watcher("127.0.0.1:1");
  EXPECT_FALSE(watcher.Stop("enough").ok());
  EXPECT_FALSE(HasEnded(watcher.Latest().status));
}

}  // namespace
}  // namespace polystill::cli
