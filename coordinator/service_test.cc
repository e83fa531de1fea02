// The service, the loop and the machine together, on a real port, with workers and teachers that speak the protocol.
#include "coordinator/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/index_stream.h"
#include "coordinator/run_loop.h"
#include "coordinator/state_store.h"
#include "runtime/rpc.h"
#include "runtime/status.h"

namespace polystill::coordinator {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

using Stub = v1::CoordinatorService::Stub;

// One end of a bidirectional stream, blocking.
template <typename Out, typename In>
class Peer {
 public:
  using Stream = grpc::ClientReaderWriter<Out, In>;
  template <typename Open>
  explicit Peer(const Open& open) : stream_(open(&context_)) {}
  ~Peer() {
    context_.TryCancel();
    if (!finished_) (void)stream_->Finish();
  }

  bool Say(const Out& message) { return stream_->Write(message); }
  // The next order; one that is empty when the stream has ended.
  In Hear() {
    In message;
    if (!stream_->Read(&message)) message.Clear();
    return message;
  }
  // Closes from this side as a process that ends well does.
  void Leave() { stream_->WritesDone(); }
  void Vanish() { context_.TryCancel(); }
  grpc::Status End() {
    In message;
    while (stream_->Read(&message)) {
    }
    finished_ = true;
    return stream_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<Stream> stream_;
  bool finished_ = false;
};

class FakeWorker : public Peer<v1::WorkerMessage, v1::WorkerOrder> {
 public:
  explicit FakeWorker(Stub* stub) : Peer([stub](auto* context) { return stub->Work(context); }) {}

  bool Hello(const std::string& id, int version = kProtocolVersion) {
    v1::WorkerMessage message;
    message.mutable_hello()->set_protocol_version(version);
    message.mutable_hello()->set_worker_id(id);
    return Say(message);
  }
  bool Interrupted(int64_t generation) {
    v1::WorkerMessage message;
    message.mutable_interrupted()->mutable_standing()->set_generation(generation);
    return Say(message);
  }
  bool Done(int64_t generation, const std::string& digest) {
    v1::WorkerMessage message;
    message.mutable_done()->mutable_progress()->set_generation(generation);
    message.mutable_done()->mutable_progress()->set_step(1);
    message.mutable_done()->set_weights_digest(digest);
    return Say(message);
  }
};

class FakeTeacher : public Peer<v1::TeacherMessage, v1::TeacherOrder> {
 public:
  explicit FakeTeacher(Stub* stub) : Peer([stub](auto* context) { return stub->Teach(context); }) {}

  bool Hello(const std::string& teacher) {
    v1::TeacherMessage message;
    message.mutable_hello()->set_protocol_version(kProtocolVersion);
    message.mutable_hello()->set_server_id("server");
    message.mutable_hello()->set_teacher(teacher);
    message.mutable_hello()->set_address("127.0.0.1:1");
    return Say(message);
  }
  bool Ready(const std::string& digest) {
    v1::TeacherMessage message;
    message.mutable_ready()->set_digest(digest);
    return Say(message);
  }
};

PlannedJob Job(const std::string& name, v1::Job::Kind kind, int workers) {
  PlannedJob planned;
  planned.job.set_name(name);
  planned.job.set_kind(kind);
  planned.job.set_steps(1);
  planned.job.set_checkpoints("checkpoints/" + name);
  planned.workers = workers;
  if (kind == v1::Job::KIND_TRAIN) planned.teachers = {"english"};
  return planned;
}

class ServiceTest : public testing::Test {
 protected:
  ServiceTest() {
    folder_ = fs::path(testing::TempDir()) /
              (std::string("service_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }

  void Start(Service::Options options = {}) {
    service_ = std::make_unique<Service>(&events_, options);
    auto store = StateStore::Open((folder_ / "coordinator.sqlite").string());
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = std::move(*store);
    auto listening = Listen("127.0.0.1:0", {service_.get()});
    ASSERT_TRUE(listening.ok()) << listening.status();
    listening_ = std::move(*listening);
    channel_ = Connect(listening_.address);
    stub_ = v1::CoordinatorService::NewStub(channel_);
    RunConfig config;
    config.run = "topics";
    config.term = store_->term();
    config.store_port = 4242;
    config.stages = {"index", "distilled", "evaluate"};
    config.teachers.emplace_back();
    config.teachers[0].set_name("english");
    config.teachers[0].set_package("packages/english");
    config.teachers[0].set_replicas(1);
    loop_ = std::make_unique<RunLoop>(config, &events_, service_.get(), store_.get(),
                                      [this](const WriteReport& order, const v1::RunStatus&) {
                                        reported_ = order;
                                        events_.Post(ReportFinished{std::string("report.json")});
                                      });
    ended_ = std::async(std::launch::async, [this] { return loop_->Run(); });
  }

  ~ServiceTest() override {
    events_.Post(StopAsked{"the test ends"});
    if (service_ != nullptr) {
      service_->CloseAll();
      listening_.server->Shutdown(std::chrono::system_clock::now());
      if (ended_.valid()) ended_.wait();
    }
    fs::remove_all(folder_);
  }

  void Prepared(int workers = 2) {
    events_.Post(StagesFinished{PreparedJobs{
        {Job("distilled", v1::Job::KIND_TRAIN, workers), Job("evaluate", v1::Job::KIND_EVALUATE, 1)}, {}}});
  }

  // The last status that a watcher gets.
  v1::RunStatus Final() {
    grpc::ClientContext context;
    v1::WatchRequest request;
    request.set_protocol_version(kProtocolVersion);
    const auto reader = stub_->Watch(&context, request);
    v1::RunStatus status, last;
    while (reader->Read(&status)) last = status;
    EXPECT_TRUE(reader->Finish().ok());
    return last;
  }

  absl::StatusOr<v1::GetJobReply> JobUnderWay() {
    grpc::ClientContext context;
    v1::GetJobRequest request;
    request.set_protocol_version(kProtocolVersion);
    v1::GetJobReply reply;
    RETURN_IF_ERROR(FromGrpc(stub_->GetJob(&context, request, &reply)));
    return reply;
  }

  // A worker that is welcome shows that the run still lives.
  void ExpectAlive() {
    FakeWorker worker(stub_.get());
    EXPECT_TRUE(worker.Hello("healthy"));
    EXPECT_TRUE(worker.Hear().has_welcome());
  }

  fs::path folder_;
  EventQueue events_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<StateStore> store_;
  ListeningServer listening_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Stub> stub_;
  std::unique_ptr<RunLoop> loop_;
  std::future<v1::RunStatus> ended_;
  WriteReport reported_;
};

TEST_F(ServiceTest, AWholeRunOverTheWire) {
  Start();
  Prepared();
  FakeTeacher teacher(stub_.get());
  teacher.Hello("english");
  EXPECT_EQ(teacher.Hear().welcome().term(), 1);
  EXPECT_EQ(teacher.Hear().load().package(), "packages/english");
  teacher.Ready("abc");
  FakeWorker one(stub_.get()), two(stub_.get());
  one.Hello("one");
  EXPECT_EQ(one.Hear().welcome().run(), "topics");
  two.Hello("two");
  EXPECT_TRUE(two.Hear().has_welcome());
  const auto assignment = one.Hear().assignment();
  EXPECT_EQ(assignment.job().name(), "distilled");
  EXPECT_EQ(JobUnderWay().value().run(), "topics");
  EXPECT_EQ(JobUnderWay()->job().name(), "distilled");
  EXPECT_EQ(JobUnderWay()->teachers(0).digest(), "abc");
  EXPECT_EQ(assignment.rank(), 0);
  EXPECT_EQ(assignment.world_size(), 2);
  EXPECT_EQ(assignment.store_prefix(), "gen/1");
  ASSERT_EQ(assignment.teachers_size(), 1);
  EXPECT_EQ(assignment.teachers(0).digest(), "abc");
  EXPECT_EQ(two.Hear().assignment().rank(), 1);
  one.Done(1, "w");
  two.Done(1, "w");
  EXPECT_EQ(one.Hear().assignment().job().name(), "evaluate");
  EXPECT_EQ(JobUnderWay().status().code(), absl::StatusCode::kNotFound);
  one.Done(2, "");
  EXPECT_EQ(one.Hear().stop().reason(), "the run is done");
  EXPECT_EQ(two.Hear().stop().state(), v1::RunStatus::STATE_DONE);
  EXPECT_TRUE(teacher.Hear().has_stop());
  const v1::RunStatus final = Final();
  EXPECT_EQ(final.state(), v1::RunStatus::STATE_DONE);
  EXPECT_EQ(final.report(), "report.json");
  one.Leave();
  two.Leave();
  teacher.Leave();
  EXPECT_TRUE(one.End().ok());
  EXPECT_EQ(ended_.get().state(), v1::RunStatus::STATE_DONE);
  EXPECT_EQ(reported_.teacher_digests.at("english"), "abc");
  EXPECT_EQ(store_->LastGeneration()->number, 2);
  EXPECT_EQ(store_->FinishedJobs()->size(), 2u);
  EXPECT_EQ(store_->Checkpoints("distilled")->at(0).path, "checkpoints/distilled/step-000000001-gen-1");
}

TEST_F(ServiceTest, AWorkerThatVanishesEndsItsGeneration) {
  Start();
  Prepared();
  FakeTeacher teacher(stub_.get());
  teacher.Hello("english");
  teacher.Hear();
  teacher.Hear();
  teacher.Ready("abc");
  FakeWorker one(stub_.get()), two(stub_.get());
  one.Hello("one");
  one.Hear();
  two.Hello("two");
  two.Hear();
  EXPECT_TRUE(one.Hear().has_assignment());
  EXPECT_TRUE(two.Hear().has_assignment());
  two.Vanish();
  const auto regroup = one.Hear().regroup();
  EXPECT_EQ(regroup.generation(), 1);
  EXPECT_THAT(regroup.reason(), HasSubstr("worker 1 (pid 0 on ) is gone"));
  one.Interrupted(1);
  FakeWorker three(stub_.get());
  three.Hello("three");
  EXPECT_TRUE(three.Hear().has_welcome());
  EXPECT_EQ(one.Hear().assignment().generation(), 2);
  EXPECT_EQ(three.Hear().assignment().rank(), 1);
}

TEST_F(ServiceTest, ScaleIsRefusedOutsideOfTheRunFilesBounds) {
  Start();
  const auto scale = [this](int workers, const std::string& run_id = "") {
    grpc::ClientContext context;
    v1::ScaleRequest request;
    request.set_protocol_version(kProtocolVersion);
    request.set_workers(workers);
    request.set_run_id(run_id);
    v1::ScaleReply reply;
    const grpc::Status status = stub_->Scale(&context, request, &reply);
    EXPECT_EQ(reply.workers(), 0);
    return status;
  };
  EXPECT_EQ(scale(2).error_code(), grpc::StatusCode::UNAVAILABLE) << "not known yet";
  service_->AllowScale(2, 4);
  for (const int workers : {2, 4}) EXPECT_TRUE(scale(workers).ok());
  for (const int workers : {-1, 0, 1, 5}) {
    const grpc::Status status = scale(workers);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("from 2 (student.min_workers) to 4"));
  }
  EXPECT_EQ(scale(2, "another").error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ServiceTest, ALaterCoordinatorEndsThisOneWithoutAWord) {
  Start();
  FakeWorker worker(stub_.get());
  worker.Hello("one");
  EXPECT_TRUE(worker.Hear().has_welcome());
  const auto later = StateStore::Open((folder_ / "coordinator.sqlite").string());
  ASSERT_TRUE(later.ok()) << later.status();
  EXPECT_THAT(ended_.get().reason(), HasSubstr("a later coordinator has taken over"));
  service_->CloseAll();
  EXPECT_EQ(worker.Hear().message_case(), v1::WorkerOrder::MESSAGE_NOT_SET);
}

TEST_F(ServiceTest, StopEndsTheRun) {
  Start();
  FakeWorker worker(stub_.get());
  worker.Hello("one");
  EXPECT_TRUE(worker.Hear().has_welcome());
  grpc::ClientContext context;
  v1::StopRequest request;
  request.set_protocol_version(kProtocolVersion);
  // Cut to 1 KiB, and between two characters.
  const std::string kept = "enough" + std::string(1017, '.');
  request.set_reason(kept + "ü");
  v1::StopReply reply;
  EXPECT_TRUE(stub_->Stop(&context, request, &reply).ok());
  const v1::WorkerOrder::Stop stop = worker.Hear().stop();
  EXPECT_EQ(stop.reason(), kept);
  EXPECT_EQ(stop.state(), v1::RunStatus::STATE_STOPPED);
  EXPECT_EQ(Final().state(), v1::RunStatus::STATE_STOPPED);
  worker.Leave();
  EXPECT_EQ(ended_.get().reason(), kept);
}

TEST_F(ServiceTest, WhoMeansAnotherRunIsRefused) {
  Service::Options options;
  options.run_id = "mine";
  Start(options);
  const auto watch = [this](const std::string& run_id, v1::RunStatus* status) {
    grpc::ClientContext context;
    v1::WatchRequest request;
    request.set_protocol_version(kProtocolVersion);
    request.set_run_id(run_id);
    const auto reader = stub_->Watch(&context, request);
    while (reader->Read(status) && status->run_id().empty()) {
    }
    if (!status->run_id().empty()) context.TryCancel();
    return reader->Finish();
  };
  const auto stop = [this](const std::string& run_id) {
    grpc::ClientContext context;
    v1::StopRequest request;
    request.set_protocol_version(kProtocolVersion);
    request.set_run_id(run_id);
    v1::StopReply reply;
    return stub_->Stop(&context, request, &reply);
  };
  v1::RunStatus status;
  const grpc::Status refused = watch("another", &status);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(refused.error_message(), HasSubstr("another"));
  EXPECT_EQ(stop("another").error_code(), grpc::StatusCode::NOT_FOUND);
  ExpectAlive();
  watch("mine", &status);
  EXPECT_EQ(status.run_id(), "mine");
  EXPECT_TRUE(stop("mine").ok());
  EXPECT_EQ(Final().state(), v1::RunStatus::STATE_STOPPED);
}

TEST_F(ServiceTest, RequestsOfAnotherVersionAreRefused) {
  Start();
  service_->PutIndexes({{"abc", std::make_shared<const std::string>("x")}});
  for (const int version : {0, kProtocolVersion + 1}) {
    grpc::ClientContext of_watch, of_stop, of_index;
    v1::WatchRequest watch;
    watch.set_protocol_version(version);
    EXPECT_EQ(stub_->Watch(&of_watch, watch)->Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    v1::StopRequest stop;
    stop.set_protocol_version(version);
    v1::StopReply reply;
    EXPECT_EQ(stub_->Stop(&of_stop, stop, &reply).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    v1::GetIndexRequest index;
    index.set_protocol_version(version);
    index.set_digest("abc");
    EXPECT_EQ(stub_->GetIndex(&of_index, index)->Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  }
  ExpectAlive();
}

TEST_F(ServiceTest, WatchersSeeTheRunAtOnceAndItsEnd) {
  Start();
  grpc::ClientContext context;
  v1::WatchRequest request;
  request.set_protocol_version(kProtocolVersion);
  const auto reader = stub_->Watch(&context, request);
  v1::RunStatus status;
  ASSERT_TRUE(reader->Read(&status));
  EXPECT_EQ(status.state(), v1::RunStatus::STATE_RUNNING);
  EXPECT_EQ(status.stages_size(), 3);
  events_.Post(StageProgress{"index", 7, 0, 7, {{"de", 7}}});
  while (status.stages(0).records() != 7) ASSERT_TRUE(reader->Read(&status));
  events_.Post(StagesFinished{absl::NotFoundError("data: no such folder")});
  v1::RunStatus last;
  while (reader->Read(&status)) last = status;
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(last.state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(last.reason(), HasSubstr("no such folder"));
}

TEST_F(ServiceTest, AnIndexComesInChunks) {
  Start();
  const auto bytes = std::make_shared<const std::string>((IndexStream::kChunkBytes * 2) + 5, 'x');
  const auto get = [this](const std::string& digest, std::vector<size_t>* sizes) {
    grpc::ClientContext context;
    v1::GetIndexRequest request;
    request.set_protocol_version(kProtocolVersion);
    request.set_digest(digest);
    const auto reader = stub_->GetIndex(&context, request);
    v1::IndexChunk chunk;
    while (reader->Read(&chunk)) sizes->push_back(chunk.data().size());
    return reader->Finish();
  };
  std::vector<size_t> sizes;
  EXPECT_EQ(get("abc", &sizes).error_code(), grpc::StatusCode::UNAVAILABLE) << "the corpus is not indexed yet";
  service_->PutIndexes({{"abc", bytes}});
  EXPECT_TRUE(get("abc", &sizes).ok());
  EXPECT_THAT(sizes, testing::ElementsAre(IndexStream::kChunkBytes, IndexStream::kChunkBytes, 5));
  const grpc::Status missing = get("xyz", &sizes);
  EXPECT_EQ(missing.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(missing.error_message(), HasSubstr("xyz"));
}

TEST_F(ServiceTest, HostileFirstMessagesEndTheirOwnStreamOnly) {
  Start();
  FakeWorker silent(stub_.get()), old(stub_.get()), one(stub_.get()), twin(stub_.get());
  v1::WorkerMessage progress;
  progress.mutable_progress();
  silent.Say(progress);
  EXPECT_EQ(silent.End().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  old.Hello("old", kProtocolVersion + 1);
  EXPECT_EQ(old.End().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  one.Hello("one");
  EXPECT_TRUE(one.Hear().has_welcome());
  twin.Hello("one");
  EXPECT_EQ(twin.End().error_code(), grpc::StatusCode::ALREADY_EXISTS);
  FakeTeacher unknown(stub_.get());
  unknown.Hello("klingon");
  const grpc::Status status = unknown.End();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("klingon"));
  ExpectAlive();
}

TEST_F(ServiceTest, AnOversizedMessageEndsItsOwnStreamOnly) {
  Start();
  grpc::ChannelArguments arguments;
  arguments.SetMaxSendMessageSize(-1);
  const auto channel = grpc::CreateCustomChannel(listening_.address, grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::CoordinatorService::NewStub(channel);
  FakeWorker worker(stub.get());
  worker.Hello(std::string(kMaxMessageBytes + 1, 'x'));
  EXPECT_EQ(worker.End().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  ExpectAlive();
}

TEST_F(ServiceTest, AnotherProtocolVersionCannotWatch) {
  Start();
  grpc::ClientContext context;
  v1::WatchRequest request;
  const auto reader = stub_->Watch(&context, request);
  v1::RunStatus status;
  EXPECT_FALSE(reader->Read(&status));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(ServiceTest, StreamsBeyondTheCapAreRefused) {
  Start({.max_members = 1, .max_watchers = 0, .max_index_calls = 1});
  FakeWorker first(stub_.get());
  first.Hello("first");
  EXPECT_TRUE(first.Hear().has_welcome());
  FakeWorker second(stub_.get());
  EXPECT_EQ(second.End().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  grpc::ClientContext context;
  v1::WatchRequest request;
  request.set_protocol_version(kProtocolVersion);
  EXPECT_EQ(stub_->Watch(&context, request)->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  // More than fits gRPC's buffers, so that a call that is not read goes on.
  service_->PutIndexes({{"abc", std::make_shared<const std::string>(size_t{64} << 20, 'x')}});
  const auto get = [this](grpc::ClientContext* of_call) {
    v1::GetIndexRequest index;
    index.set_protocol_version(kProtocolVersion);
    index.set_digest("abc");
    return stub_->GetIndex(of_call, index);
  };
  v1::IndexChunk chunk;
  grpc::ClientContext slow, more;
  const auto unread = get(&slow);
  ASSERT_TRUE(unread->Read(&chunk));
  EXPECT_EQ(get(&more)->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  while (unread->Read(&chunk)) {
  }
  EXPECT_TRUE(unread->Finish().ok());
}

}  // namespace
}  // namespace polystill::coordinator
