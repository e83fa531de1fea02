#include "student_worker/coordinator_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <optional>
#include <vector>

#include "corpus/index.h"
#include "runtime/rpc.h"
#include "runtime/status.h"

namespace polystill::student_worker {
namespace {

using testing::HasSubstr;
using ServerStream = grpc::ServerReaderWriter<v1::WorkerOrder, v1::WorkerMessage>;

constexpr int64_t kTerm = 5;

// A coordinator that does to each stream what the test says.
class ScriptedCoordinator : public v1::CoordinatorService::Service {
 public:
  std::function<grpc::Status(ServerStream*)> script;
  std::string index_bytes;
  std::optional<v1::GetJobReply> job;

  grpc::Status GetJob(grpc::ServerContext*, const v1::GetJobRequest* request, v1::GetJobReply* reply) override {
    EXPECT_EQ(request->protocol_version(), kProtocolVersion);
    if (!job.has_value()) return {grpc::StatusCode::NOT_FOUND, "no training is under way"};
    *reply = *job;
    return grpc::Status::OK;
  }

  grpc::Status Work(grpc::ServerContext*, ServerStream* stream) override { return script(stream); }

  grpc::Status GetIndex(grpc::ServerContext*, const v1::GetIndexRequest* request,
                        grpc::ServerWriter<v1::IndexChunk>* writer) override {
    EXPECT_EQ(request->protocol_version(), kProtocolVersion);
    if (index_bytes.empty()) return {grpc::StatusCode::UNAVAILABLE, "not read yet"};
    for (size_t at = 0; at < index_bytes.size(); at += 3) {
      v1::IndexChunk chunk;
      chunk.set_data(index_bytes.substr(at, 3));
      writer->Write(chunk);
    }
    return grpc::Status::OK;
  }
};

void Welcome(ServerStream* stream, int version = kProtocolVersion, int64_t term = kTerm) {
  v1::WorkerOrder order;
  order.mutable_welcome()->set_protocol_version(version);
  order.mutable_welcome()->set_term(term);
  stream->Write(order);
}

void Assign(ServerStream* stream, int64_t term, int64_t generation) {
  v1::WorkerOrder order;
  order.mutable_assignment()->set_term(term);
  order.mutable_assignment()->set_generation(generation);
  stream->Write(order);
}

void Stop(ServerStream* stream) {
  v1::WorkerOrder order;
  order.mutable_stop()->set_reason("the run is done");
  order.mutable_stop()->set_state(v1::RunStatus::STATE_DONE);
  stream->Write(order);
}

class CoordinatorLinkTest : public testing::Test {
 protected:
  void SetUp() override {
    auto listening = Listen("127.0.0.1:0", {&service_});
    ASSERT_TRUE(listening.ok()) << listening.status();
    listening_ = *std::move(listening);
  }

  void TearDown() override { listening_.server->Shutdown(); }

  absl::StatusOr<std::unique_ptr<CoordinatorLink>> Open() {
    return Open({.coordinator = listening_.address,
                 .host = "some-host",
                 .patience = std::chrono::milliseconds(patience_ms_),
                 .lost_patience = std::chrono::milliseconds(lost_patience_ms_)});
  }
  absl::StatusOr<std::unique_ptr<CoordinatorLink>> Open(const CoordinatorLink::Options& options) {
    auto link = CoordinatorLink::Reach(options, &membership_, stop_);
    if (link.ok()) RETURN_IF_ERROR((*link)->Join());
    return link;
  }

  // Reads the stream to its end, heartbeats left out.
  void ReadAll(ServerStream* stream) {
    v1::WorkerMessage message;
    while (stream->Read(&message)) {
      if (!message.has_heartbeat()) messages_.push_back(message);
    }
  }

  ScriptedCoordinator service_;
  ListeningServer listening_;
  std::stop_source stop_;
  Membership membership_{stop_};
  int patience_ms_ = 60'000;
  int lost_patience_ms_ = 600'000;
  std::vector<v1::WorkerMessage> messages_;
};

TEST_F(CoordinatorLinkTest, SaysHelloTakesAssignmentsAndTellsWhatBecameOfThem) {
  service_.script = [&](ServerStream* stream) {
    v1::WorkerMessage hello;
    stream->Read(&hello);
    messages_.push_back(hello);
    Welcome(stream);
    Assign(stream, kTerm - 1, 1);  // refused
    Assign(stream, kTerm, 2);
    ReadAll(stream);
    return grpc::Status::OK;
  };
  {
    const auto link = Open();
    ASSERT_TRUE(link.ok()) << link.status();
    const auto assignment = membership_.NextAssignment();
    ASSERT_TRUE(assignment.has_value());
    EXPECT_EQ(assignment->generation(), 2);
    membership_.Failed(absl::DataLossError("a torn file"));
  }  // what is left is sent
  ASSERT_EQ(messages_.size(), 2);
  EXPECT_EQ(messages_[0].hello().protocol_version(), kProtocolVersion);
  EXPECT_EQ(messages_[0].hello().host(), "some-host");
  EXPECT_FALSE(messages_[0].hello().worker_id().empty());
  EXPECT_EQ(messages_[1].failed().generation(), 2);
  EXPECT_EQ(messages_[1].failed().code(), static_cast<int>(absl::StatusCode::kDataLoss));
}

TEST_F(CoordinatorLinkTest, SendsTheLatestProgressAndHeartbeats) {
  std::vector<int64_t> steps;
  bool heartbeat = false;
  service_.script = [&](ServerStream* stream) {
    v1::WorkerMessage message;
    stream->Read(&message);
    Welcome(stream);
    while (!heartbeat && stream->Read(&message)) {
      heartbeat = message.has_heartbeat();
      if (message.has_progress()) steps.push_back(message.progress().step());
    }
    Stop(stream);
    return grpc::Status::OK;
  };
  const auto link = Open();
  ASSERT_TRUE(link.ok()) << link.status();
  for (int64_t step = 1; step <= 10'000; ++step) {
    v1::WorkerMessage::Progress progress;
    progress.set_step(step);
    (*link)->Report(progress);
  }
  EXPECT_FALSE(membership_.NextAssignment().has_value());
  EXPECT_TRUE(heartbeat);
  ASSERT_FALSE(steps.empty());
  EXPECT_LE(steps.size(), 6);  // in about a second
  EXPECT_EQ(steps.back(), 10'000);
}

TEST_F(CoordinatorLinkTest, AStopOrderIsNoLoss) {
  service_.script = [&](ServerStream* stream) {
    v1::WorkerMessage hello;
    stream->Read(&hello);
    Welcome(stream);
    Stop(stream);
    return grpc::Status::OK;
  };
  const auto link = Open();
  ASSERT_TRUE(link.ok()) << link.status();
  EXPECT_FALSE(membership_.NextAssignment().has_value());
  EXPECT_TRUE(stop_.stop_requested());
  EXPECT_EQ((*link)->RunEnd(), v1::RunStatus::STATE_DONE);
}

TEST_F(CoordinatorLinkTest, ACoordinatorThatDoesNotComeBackIsLost) {
  service_.script = [&](ServerStream* stream) {
    v1::WorkerMessage hello;
    stream->Read(&hello);
    Welcome(stream);
    return grpc::Status(grpc::StatusCode::INTERNAL, "it fell over");
  };
  lost_patience_ms_ = 1;
  const auto link = Open();
  ASSERT_TRUE(link.ok()) << link.status();
  EXPECT_FALSE(membership_.NextAssignment().has_value());
  EXPECT_EQ((*link)->Lost().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string((*link)->Lost().message()), HasSubstr("it fell over"));
  EXPECT_TRUE(stop_.stop_requested());
}

TEST_F(CoordinatorLinkTest, ACoordinatorThatComesBackHearsWhatHasBecomeOfTheWorker) {
  int streams = 0;
  service_.script = [&](ServerStream* stream) {
    v1::WorkerMessage hello;
    stream->Read(&hello);
    messages_.push_back(hello);
    ++streams;
    if (streams == 1) {
      Welcome(stream);
      Assign(stream, kTerm, 2);
      v1::WorkerMessage message;
      while (stream->Read(&message) && !message.has_failed()) {
      }
      return grpc::Status(grpc::StatusCode::INTERNAL, "it fell over");
    }
    Welcome(stream, kProtocolVersion, streams == 2 ? kTerm - 1 : kTerm + 1);
    if (streams == 2) Assign(stream, kTerm - 1, 7);  // nobody obeys one whose time is over
    if (streams == 3) Stop(stream);
    ReadAll(stream);
    return grpc::Status::OK;
  };
  {
    const auto link = Open();
    ASSERT_TRUE(link.ok()) << link.status();
    ASSERT_TRUE(membership_.NextAssignment().has_value());
    v1::WorkerMessage::Checkpointed checkpoint;
    checkpoint.set_step(5);
    (*link)->TellCheckpoint(checkpoint);
    membership_.Failed(absl::DataLossError("a torn file"));
    EXPECT_FALSE(membership_.NextAssignment().has_value());
  }
  ASSERT_EQ(messages_.size(), 5);
  EXPECT_EQ(messages_[0].hello().worker_id(), messages_[2].hello().worker_id());
  EXPECT_EQ(messages_[2].hello().standing().generation(), 2);
  EXPECT_FALSE(messages_[2].hello().standing().working());
  EXPECT_EQ(messages_[3].checkpointed().step(), 5);
  EXPECT_TRUE(messages_[4].has_failed());
}

TEST_F(CoordinatorLinkTest, WhoCannotLeaveALostCoordinatorIsMadeTo) {
  service_.script = [&](ServerStream* stream) {
    v1::WorkerMessage hello;
    stream->Read(&hello);
    Welcome(stream);
    return grpc::Status(grpc::StatusCode::INTERNAL, "it fell over");
  };
  std::promise<void> gave_up;
  CoordinatorLink::Options options{.coordinator = listening_.address, .host = "some-host"};
  options.lost_patience = options.leave_within = std::chrono::milliseconds(1);
  options.give_up = [&] { gave_up.set_value(); };
  const auto link = Open(options);
  ASSERT_TRUE(link.ok()) << link.status();
  gave_up.get_future().wait();  // while this thread does not come to an end
}

TEST_F(CoordinatorLinkTest, RefusalsNameTheCoordinatorAndTheReason) {
  service_.script = [&](ServerStream*) { return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "too old"); };
  absl::Status status = Open().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("too old"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(listening_.address));
  service_.script = [&](ServerStream* stream) {
    v1::WorkerMessage hello;
    stream->Read(&hello);
    Welcome(stream, kProtocolVersion + 1);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kFailedPrecondition);
  service_.script = [&](ServerStream*) { return grpc::Status::OK; };
  patience_ms_ = 300;
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(CoordinatorLinkTest, ACoordinatorThatDiesBeforeItsWelcomeIsGreetedAgain) {
  int greeted = 0;
  service_.script = [&](ServerStream* stream) {
    if (++greeted < 3) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "it dies");
    v1::WorkerMessage hello;
    stream->Read(&hello);
    Welcome(stream);
    ReadAll(stream);
    return grpc::Status::OK;
  };
  EXPECT_TRUE(Open().ok());
  EXPECT_EQ(greeted, 3);
}

TEST(CoordinatorLink, SaysThatNothingAnswers) {
  std::stop_source stop;
  Membership membership(stop);
  const auto link = CoordinatorLink::Reach(
      {.coordinator = "127.0.0.1:1", .host = "h", .patience = std::chrono::milliseconds(300)}, &membership, stop);
  EXPECT_EQ(link.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(link.status().message()), HasSubstr("127.0.0.1:1"));
}

TEST_F(CoordinatorLinkTest, TellsOfTheTrainingUnderWayBeforeItHasJoined) {
  const auto link = CoordinatorLink::Reach({.coordinator = listening_.address, .host = "h"}, &membership_, stop_);
  ASSERT_TRUE(link.ok()) << link.status();
  EXPECT_EQ((*link)->GetJob().status().code(), absl::StatusCode::kNotFound);
  service_.job.emplace().set_run("topics");
  EXPECT_EQ((*link)->GetJob().value().run(), "topics");
  EXPECT_EQ((*link)->GetIndex("some digest").status().code(), absl::StatusCode::kUnavailable) << "nobody waits here";
  v1::CorpusIndex index;
  index.add_languages()->set_name("de");
  service_.index_bytes = index.SerializeAsString();
  EXPECT_TRUE((*link)->GetIndex(corpus::IndexDigest(index)).ok());
}

TEST_F(CoordinatorLinkTest, FetchesTheIndexAndVerifiesIt) {
  service_.script = [&](ServerStream* stream) {
    v1::WorkerMessage hello;
    stream->Read(&hello);
    Welcome(stream);
    ReadAll(stream);
    return grpc::Status::OK;
  };
  v1::CorpusIndex index;
  index.add_languages()->set_name("de");
  service_.index_bytes = index.SerializeAsString();
  const auto link = Open();
  ASSERT_TRUE(link.ok()) << link.status();
  const auto fetched = (*link)->GetIndex(corpus::IndexDigest(index));
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_EQ(fetched->languages(0).name(), "de");
  EXPECT_EQ((*link)->GetIndex(std::string(64, '0')).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace polystill::student_worker
