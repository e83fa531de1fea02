#include "cli/status_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "cli/exit_codes.h"
#include "coordinator/run_folder.h"
#include "coordinator/status_file.h"
#include "polystill/v1/coordinator.grpc.pb.h"
#include "runtime/files.h"
#include "runtime/mutex.h"
#include "runtime/rpc.h"

namespace polystill::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

constexpr char kRunId[] = "7f3a";

v1::RunStatus StatusOf(v1::RunStatus::State state, const std::string& reason = "") {
  v1::RunStatus status;
  status.set_run("topics");
  status.set_state(state);
  status.set_reason(reason);
  auto& stage = *status.add_stages();
  stage.set_name("distilled");
  stage.set_done(25);
  stage.set_total(100);
  return status;
}

// Runs until it is stopped; then it takes its address away, as a coordinator does.
class FakeCoordinator : public v1::CoordinatorService::Service {
 public:
  explicit FakeCoordinator(std::string folder) : folder_(std::move(folder)) {}

  grpc::Status Watch(grpc::ServerContext*, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::RunStatus>* writer) override {
    if (request->run_id() != kRunId) return grpc::Status(grpc::StatusCode::NOT_FOUND, "another run");
    writer->Write(StatusOf(v1::RunStatus::STATE_RUNNING));
    return grpc::Status::OK;
  }
  grpc::Status Stop(grpc::ServerContext*, const v1::StopRequest* request, v1::StopReply*) override {
    EXPECT_EQ(request->protocol_version(), kProtocolVersion);
    EXPECT_EQ(request->run_id(), kRunId);
    coordinator::StatusFile(folder_ + "/status.json")
        .Observe(StatusOf(v1::RunStatus::STATE_STOPPED, request->reason()));
    fs::remove(folder_ + "/coordinator.address");
    return grpc::Status::OK;
  }

 private:
  const std::string folder_;
};

class StatusCommandTest : public testing::Test {
 protected:
  StatusCommandTest() {
    folder_ =
        testing::TempDir() + "status_command_test-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
  }
  ~StatusCommandTest() override { fs::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteFileAtomically(folder_ + "/" + name, text).ok());
  }
  int Show(bool json = false) { return ShowStatus(folder_, json, out_, err_); }
  int Stop() { return StopRun(folder_, out_, err_); }

  std::string folder_;
  std::ostringstream out_, err_;
};

TEST_F(StatusCommandTest, AFolderWithoutARunIsUsage) {
  EXPECT_EQ(Show(), kExitUsage);
  EXPECT_EQ(Stop(), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr(folder_ + ": holds no run"));
}

TEST_F(StatusCommandTest, TheFilesTellHowARunEnded) {
  Write("coordinator.sqlite", "x");
  Write("status.json", coordinator::StatusJson(StatusOf(v1::RunStatus::STATE_FAILED, "record r7 has no label")));
  EXPECT_EQ(Show(), kExitFine);
  EXPECT_THAT(out_.str(), StartsWith("run topics: failed: record r7 has no label\n  distilled"));
  EXPECT_THAT(out_.str(), HasSubstr("25/100 steps"));
  EXPECT_THAT(out_.str(), HasSubstr("go on with: polystill run " + folder_ + "/run.yaml --resume\n"));
  EXPECT_EQ(Stop(), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("no run is under way here"));
}

TEST_F(StatusCommandTest, ARunThatDiedDoesNotRun) {
  Write("coordinator.sqlite", "x");
  Write("coordinator.address", "127.0.0.1:1\n7f3a\n");
  Write("status.json", coordinator::StatusJson(StatusOf(v1::RunStatus::STATE_RUNNING)));
  EXPECT_EQ(Show(), kExitFine);
  EXPECT_THAT(out_.str(), StartsWith("run topics: failed: its coordinator is gone without a word\n"));
}

TEST_F(StatusCommandTest, TheCoordinatorIsAskedAndStopped) {
  Write("coordinator.sqlite", "x");
  FakeCoordinator service(folder_);
  auto listening = Listen("127.0.0.1:0", {&service});
  ASSERT_TRUE(listening.ok()) << listening.status();
  Write("coordinator.address", listening->address + "\n7f3a\n");
  EXPECT_EQ(Show(/*json=*/true), kExitFine);
  EXPECT_THAT(out_.str(), HasSubstr("\"state\":\"STATE_RUNNING\""));
  out_.str("");
  EXPECT_EQ(Stop(), kExitFine) << err_.str();
  EXPECT_THAT(out_.str(), StartsWith("run topics: stopped: stopped by polystill stop\n"));
  listening->server->Shutdown();
}

TEST_F(StatusCommandTest, AnotherRunThatListensThereIsNeitherShownNorStopped) {
  Write("coordinator.sqlite", "x");
  Write("status.json", coordinator::StatusJson(StatusOf(v1::RunStatus::STATE_RUNNING)));
  FakeCoordinator service(folder_);
  auto listening = Listen("127.0.0.1:0", {&service});
  ASSERT_TRUE(listening.ok()) << listening.status();
  Write("coordinator.address", listening->address + "\n0000\n");
  EXPECT_EQ(Show(), kExitFine);
  EXPECT_THAT(out_.str(), HasSubstr("its coordinator is gone without a word"));
  EXPECT_EQ(Stop(), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("no run is under way here"));
  EXPECT_TRUE(fs::exists(folder_ + "/coordinator.address"));
  listening->server->Shutdown();
}

TEST_F(StatusCommandTest, AnAddressWithoutAnIdIsNamed) {
  Write("coordinator.sqlite", "x");
  Write("coordinator.address", "127.0.0.1:1\n");
  EXPECT_EQ(Stop(), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr(folder_ + "/coordinator.address: is not host:port and, on a second line"));
}

}  // namespace
}  // namespace polystill::cli
