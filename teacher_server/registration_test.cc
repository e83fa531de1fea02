#include "teacher_server/registration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <vector>

#include "runtime/rpc.h"

namespace polystill::teacher_server {
namespace {

using testing::HasSubstr;
using Stream = grpc::ServerReaderWriter<v1::TeacherOrder, v1::TeacherMessage>;
using Script = std::function<grpc::Status(Stream&)>;

// A coordinator on a free port whose Teach stream is played by a script.
class ScriptedCoordinator : public v1::CoordinatorService::Service {
 public:
  explicit ScriptedCoordinator(Script script)
      : script_(std::move(script)), listening_(Listen("127.0.0.1:0", {this}).value()) {}
  ~ScriptedCoordinator() override { listening_.server->Shutdown(std::chrono::system_clock::now()); }
  const std::string& address() const { return listening_.address; }

 private:
  grpc::Status Teach(grpc::ServerContext*, Stream* stream) override { return script_(*stream); }

  const Script script_;
  ListeningServer listening_;
};

// The next message that is not a heartbeat; empty when the server has gone.
v1::TeacherMessage Next(Stream& stream) {
  v1::TeacherMessage message;
  while (stream.Read(&message)) {
    if (!message.has_heartbeat()) return message;
  }
  return {};
}

void Welcome(Stream& stream, int version = kProtocolVersion, int64_t term = 1) {
  v1::TeacherOrder order;
  order.mutable_welcome()->set_protocol_version(version);
  order.mutable_welcome()->set_term(term);
  stream.Write(order);
}

void Load(Stream& stream) {
  v1::TeacherOrder order;
  order.mutable_load()->set_package("models/english");
  stream.Write(order);
}

void Stop(Stream& stream) {
  v1::TeacherOrder order;
  order.mutable_stop()->set_reason("done");
  stream.Write(order);
}

Registration::Options OptionsFor(const std::string& coordinator) {
  return {.coordinator = coordinator,
          .teacher = "english",
          .address = "127.0.0.1:7",
          .heartbeat_ms = 1,
          .connect_ms = 20'000,
          .greet_every_ms = 1};
}

absl::StatusOr<std::string> LoadOk(const v1::TeacherOrder::Load& order) { return "digest of " + order.package(); }

// How a registration ends under a script.
absl::Status EndUnder(const Script& script, Registration::Load load = LoadOk) {
  ScriptedCoordinator coordinator(script);
  std::promise<absl::Status> ended;
  Registration registration(OptionsFor(coordinator.address()), std::move(load),
                            [&](absl::Status why) { ended.set_value(std::move(why)); });
  return ended.get_future().get();
}

TEST(RegistrationTest, WholeRun) {
  std::vector<v1::TeacherMessage> seen;
  const absl::Status end = EndUnder([&](Stream& stream) {
    seen.push_back(Next(stream));
    Welcome(stream);
    v1::TeacherMessage heartbeat;
    for (int beats = 0; beats < 3 && stream.Read(&heartbeat); ++beats) EXPECT_TRUE(heartbeat.has_heartbeat());
    Load(stream);
    seen.push_back(Next(stream));
    Stop(stream);
    EXPECT_FALSE(Next(stream).has_failed());
    return grpc::Status::OK;
  });
  EXPECT_TRUE(end.ok()) << end;
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].hello().protocol_version(), kProtocolVersion);
  EXPECT_EQ(seen[0].hello().teacher(), "english");
  EXPECT_EQ(seen[0].hello().address(), "127.0.0.1:7");
  EXPECT_THAT(seen[0].hello().server_id(), HasSubstr("127.0.0.1:7"));
  EXPECT_EQ(seen[1].ready().digest(), "digest of models/english");
}

TEST(RegistrationTest, ItsNameIsTheOneThatItWasGiven) {
  std::string server_id;
  const Script script = [&](Stream& stream) {
    server_id = Next(stream).hello().server_id();
    return grpc::Status::OK;
  };
  ScriptedCoordinator coordinator(script);
  Registration::Options options = OptionsFor(coordinator.address());
  options.server_id = "english-0";
  std::promise<absl::Status> ended;
  Registration registration(options, LoadOk, [&](absl::Status why) { ended.set_value(std::move(why)); });
  ended.get_future().wait();
  EXPECT_EQ(server_id, "english-0");
}

TEST(RegistrationTest, AFailedLoadIsReportedAndEnds) {
  v1::TeacherMessage report;
  const absl::Status end = EndUnder(
      [&](Stream& stream) {
        Next(stream);
        Welcome(stream);
        Load(stream);
        report = Next(stream);
        return grpc::Status::OK;
      },
      [](const v1::TeacherOrder::Load&) { return absl::DataLossError("model.safetensors is torn"); });
  EXPECT_TRUE(absl::IsDataLoss(end)) << end;
  EXPECT_EQ(report.failed().code(), static_cast<int>(absl::StatusCode::kDataLoss));
  EXPECT_EQ(report.failed().message(), "model.safetensors is torn");
}

// What was said last arrives even when it is said in the moment of leaving.
TEST(RegistrationTest, TheReasonIsNeverLost) {
  for (int i = 0; i < 200; ++i) {
    v1::TeacherMessage report;
    const absl::Status end = EndUnder(
        [&](Stream& stream) {
          Next(stream);
          Load(stream);
          report = Next(stream);
          return grpc::Status::OK;
        },
        [](const v1::TeacherOrder::Load&) { return absl::DataLossError("torn"); });
    EXPECT_TRUE(absl::IsDataLoss(end)) << end;
    ASSERT_EQ(report.failed().message(), "torn") << i;
  }
}

TEST(RegistrationTest, ACoordinatorThatDoesNotCloseIsNotWaitedFor) {
  std::promise<void> over;
  ScriptedCoordinator coordinator([&](Stream& stream) {
    Stop(stream);
    over.get_future().wait();
    return grpc::Status::OK;
  });
  Registration::Options options = OptionsFor(coordinator.address());
  options.goodbye_ms = 10;
  std::promise<absl::Status> ended;
  Registration registration(options, LoadOk, [&](absl::Status why) { ended.set_value(std::move(why)); });
  EXPECT_TRUE(ended.get_future().get().ok());
  over.set_value();
}

TEST(RegistrationTest, ALostCoordinatorEnds) {
  struct Case {
    Script script;
    absl::StatusCode code;
    std::string message;
  };
  const Case cases[] = {
      {[](Stream&) { return grpc::Status::OK; }, absl::StatusCode::kUnavailable, "it closed the stream"},
      {[](Stream&) { return grpc::Status(grpc::StatusCode::INTERNAL, "crash"); }, absl::StatusCode::kUnavailable,
       "crash"},
      {[](Stream& stream) {
         Next(stream);
         Welcome(stream, 9);
         Next(stream);
         return grpc::Status::OK;
       },
       absl::StatusCode::kFailedPrecondition, "protocol version 9"},
      {[](Stream& stream) {
         stream.Write(v1::TeacherOrder());
         Next(stream);
         return grpc::Status::OK;
       },
       absl::StatusCode::kInternal, "does not know"},
  };
  for (const Case& c : cases) {
    const absl::Status end = EndUnder(c.script);
    EXPECT_EQ(end.code(), c.code) << end;
    EXPECT_THAT(std::string(end.message()), HasSubstr(c.message));
  }
}

// How a registration ends whose streams are played by one script after another, and what it says at the beginning of
// each.
std::vector<v1::TeacherMessage::Hello> HellosUnder(const std::vector<Script>& scripts, absl::Status* end,
                                                   int64_t lost_patience_ms = 20'000) {
  std::vector<v1::TeacherMessage::Hello> hellos;
  ScriptedCoordinator coordinator([&](Stream& stream) {
    hellos.push_back(Next(stream).hello());
    return scripts[std::min(hellos.size(), scripts.size()) - 1](stream);
  });
  Registration::Options options = OptionsFor(coordinator.address());
  options.lost_patience_ms = lost_patience_ms;
  std::promise<absl::Status> ended;
  Registration registration(options, LoadOk, [&](absl::Status why) { ended.set_value(std::move(why)); });
  *end = ended.get_future().get();
  return hellos;
}

grpc::Status LoadsAndDies(Stream& stream) {
  Welcome(stream, kProtocolVersion, 2);
  Load(stream);
  Next(stream);
  return {grpc::StatusCode::UNAVAILABLE, "killed"};
}

grpc::Status Stops(Stream& stream) {
  Welcome(stream, kProtocolVersion, 3);
  Stop(stream);
  Next(stream);
  return grpc::Status::OK;
}

TEST(RegistrationTest, ALostCoordinatorIsFoundAgainAndToldWhatIsServed) {
  absl::Status end;
  const Script forgets_slowly = [](Stream&) { return grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "taken"); };
  const auto hellos = HellosUnder({LoadsAndDies, forgets_slowly, Stops}, &end);
  EXPECT_TRUE(end.ok()) << end;
  ASSERT_EQ(hellos.size(), 3);
  EXPECT_EQ(hellos[0].digest(), "");
  EXPECT_EQ(hellos[1].digest(), "digest of models/english");
  EXPECT_EQ(hellos[2].digest(), "digest of models/english");
  EXPECT_EQ(hellos[2].server_id(), hellos[0].server_id());
}

TEST(RegistrationTest, ItsNameMayBeTakenByTheProcessBefore) {
  absl::Status end;
  const Script taken = [](Stream&) { return grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "taken"); };
  EXPECT_EQ(HellosUnder({taken, taken, Stops}, &end).size(), 3);
  EXPECT_TRUE(end.ok()) << end;
}

// As one that stands still and is killed before it has said welcome.
TEST(RegistrationTest, ACoordinatorThatDiesBeforeItsWelcomeIsLookedFor) {
  absl::Status end;
  const Script dies = [](Stream&) { return grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection reset"); };
  EXPECT_EQ(HellosUnder({dies, dies, Stops}, &end).size(), 3);
  EXPECT_TRUE(end.ok()) << end;
}

TEST(RegistrationTest, AnOlderCoordinatorIsNotObeyed) {
  absl::Status end;
  const Script older = [](Stream& stream) {
    Welcome(stream, kProtocolVersion, 1);
    Stop(stream);
    Next(stream);
    return grpc::Status::OK;
  };
  EXPECT_EQ(HellosUnder({LoadsAndDies, older, Stops}, &end).size(), 3);
  EXPECT_TRUE(end.ok()) << end;
}

TEST(RegistrationTest, ACoordinatorThatStaysAwayOrHasNoUseForItEndsIt) {
  absl::Status end;
  HellosUnder({LoadsAndDies}, &end, /*lost_patience_ms=*/0);
  EXPECT_TRUE(absl::IsUnavailable(end)) << end;
  EXPECT_THAT(std::string(end.message()), testing::AllOf(HasSubstr("is lost"), HasSubstr("killed")));
  const Script refuses = [](Stream&) { return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "no such teacher"); };
  EXPECT_EQ(HellosUnder({LoadsAndDies, refuses}, &end).size(), 2);
  EXPECT_TRUE(absl::IsFailedPrecondition(end)) << end;
  EXPECT_THAT(std::string(end.message()), HasSubstr("no such teacher"));
}

TEST(RegistrationTest, ACoordinatorThatIsNotThereIsNamed) {
  Registration::Options options = OptionsFor("127.0.0.1:1");
  options.connect_ms = 10;
  std::promise<absl::Status> ended;
  Registration registration(options, LoadOk, [&](absl::Status why) { ended.set_value(std::move(why)); });
  const absl::Status end = ended.get_future().get();
  EXPECT_TRUE(absl::IsUnavailable(end));
  EXPECT_THAT(std::string(end.message()), HasSubstr("127.0.0.1:1"));
}

TEST(RegistrationTest, CanLeaveAtAnyTime) {
  std::promise<void> registered;
  ScriptedCoordinator coordinator([&](Stream& stream) {
    Next(stream);
    registered.set_value();
    Next(stream);
    return grpc::Status::OK;
  });
  for (const std::string& address : {coordinator.address(), std::string("127.0.0.1:1")}) {
    absl::Status end;
    {
      Registration registration(OptionsFor(address), LoadOk, [&](absl::Status why) { end = std::move(why); });
      if (address == coordinator.address()) registered.get_future().get();
    }
    EXPECT_TRUE(absl::IsCancelled(end)) << end;
  }
}

}  // namespace
}  // namespace polystill::teacher_server
