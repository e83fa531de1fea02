#include "teacher_server/server.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <torch/csrc/jit/api/module.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <future>
#include <numeric>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "corpus/tokenizer.h"
#include "models/package.h"
#include "polystill/v1/coordinator.grpc.pb.h"
#include "runtime/files.h"
#include "runtime/rpc.h"
#include "runtime/tokenizer_file.h"
#include "soft_labels/client.h"
#include "teacher_server/libtorch_backend.h"
#include "teacher_server/service.h"

namespace polystill::teacher_server {
namespace {

namespace fs = std::filesystem;
using soft_labels::LabelClient;
using testing::HasSubstr;
using Rows = std::vector<std::vector<int32_t>>;

constexpr int64_t kVocab = 300;
constexpr int64_t kClasses = 5;
constexpr int64_t kMaxLength = 40;

v1::Signature MakeSignature(v1::Signature::Input input) {
  v1::Signature signature;
  signature.set_input(input);
  signature.set_vocab_size(kVocab);
  signature.set_max_length(kMaxLength);
  for (int i = 0; i < kClasses; ++i) signature.add_labels(absl::StrCat("class", i));
  return signature;
}

// Words made of letters, as many as differ enough to train a tokeniser.
std::string RandomText(std::mt19937& random) {
  std::string text;
  for (int words = 1 + random() % 30; words > 0; --words) {
    for (int letters = 1 + random() % 8; letters > 0; --letters) text += static_cast<char>('a' + random() % 26);
    text += ' ';
  }
  return text;
}

class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    folder_ = absl::StrCat(testing::TempDir(), "server_test-",
                           testing::UnitTest::GetInstance()->current_test_info()->name(), "-", getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }

  std::string PathOf(const std::string& name) const { return folder_ + "/" + name; }

  // Writes a package of a small native model.
  std::string NativePackage(v1::Signature::Input input, const std::string& tokenizer = "", double scale = 1) {
    models::ModelShape shape;
    shape.spec.set_kind(v1::Model::KIND_SUBWORD_BAG);
    shape.spec.set_width(48);
    shape.spec.set_hidden_layers(1);
    return PackageOf(shape, MakeSignature(input), tokenizer, scale);
  }

  // Of a transformer of two layers.
  std::string TransformerPackage(v1::Signature signature) {
    models::ModelShape shape;
    shape.spec.set_kind(v1::Model::KIND_TRANSFORMER);
    shape.spec.set_width(24);
    shape.spec.set_layers(2);
    shape.spec.set_heads(2);
    shape.max_length = kMaxLength;
    shape.task = signature.task();
    return PackageOf(shape, signature, "", 1);
  }

  std::string PackageOf(models::ModelShape shape, const v1::Signature& signature, const std::string& tokenizer,
                        double scale) {
    shape.vocab_size = kVocab;
    shape.classes = models::LogitCount(shape.task, kClasses, kVocab);
    const auto model = models::MakeModel(shape, 11).value();
    for (const auto& [name, value] : model->NamedParameters()) {
      const at::NoGradGuard no_grad;
      if (name == "norm.weight" || name == "head.weight") value.mul_(scale);
    }
    const auto saved = models::SavePackage(PathOf("package"), "small", *model, shape, signature, tokenizer);
    EXPECT_TRUE(saved.ok()) << saved.status();
    return PathOf("package");
  }

  // Writes a package of a TorchScript module: the masked mean of embeddings, and a linear head. It never answers a
  // record of thirty sevens.
  std::string ScriptPackage(const std::string& linear) {
    fs::create_directories(PathOf("script"));
    torch::jit::Module module("teacher");
    const auto numbers = [](int64_t rows, int64_t columns) {
      return at::arange(rows * columns, at::kFloat).mul(0.37).sin().view({rows, columns});
    };
    module.register_parameter("embedding", numbers(kVocab, 24), false);
    module.register_parameter("head", numbers(kClasses, 24), false);
    module.define(absl::StrCat(R"(
def forward(self, ids, mask):
    weights = mask.to(self.embedding.dtype).unsqueeze(2)
    mean = (self.embedding[ids] * weights).sum(1) / weights.sum(1)
    while bool(((ids == 7).sum(1) == 30).any()):
        mean = mean * 1
    return )",
                               linear, "\n"));
    module.save(PathOf("script/model.pt"));
    const std::string yaml =
        absl::StrCat("format: polystill.package/1\nname: scripted\nbackend: torchscript\n",
                     "signature:\n  input: ids\n  vocab_size: ", kVocab, "\n  max_length: ", kMaxLength,
                     "\n  labels: [class0, class1, class2, class3, class4]\n");
    EXPECT_TRUE(WriteFileAtomically(PathOf("script/teacher.yaml"), yaml).ok());
    return PathOf("script");
  }

  // Trains a tokeniser on random texts; its model file.
  std::string TrainTokenizer() {
    std::mt19937 random(5);
    std::string lines;
    for (int i = 0; i < 500; ++i) {
      absl::StrAppend(&lines, R"({"id":")", i, R"(","language":"en","text":")", RandomText(random), "\"}\n");
    }
    EXPECT_TRUE(WriteFileAtomically(PathOf("corpus/a.jsonl"), lines).ok());
    v1::Selection selection;
    FillCorpus(*selection.mutable_corpus());
    selection.set_reads_text(true);
    v1::Tokenizer spec;
    spec.set_kind(v1::Tokenizer::KIND_SENTENCEPIECE);
    spec.set_vocab_size(kVocab);
    spec.set_max_length(kMaxLength);
    spec.set_training_sentences(500);
    const absl::Status trained =
        corpus::TrainTokenizer(spec, {selection}, 1, false, PathOf("tokenizer"), [](int64_t, int64_t) {});
    EXPECT_TRUE(trained.ok()) << trained;
    return PathOf("tokenizer/") + kSentencePieceFile;
  }

  void FillCorpus(v1::Corpus& corpus) {
    corpus.set_path(PathOf("corpus"));
    corpus.mutable_columns()->set_id("id");
    corpus.mutable_columns()->set_language("language");
    corpus.mutable_columns()->set_text("text");
  }

  std::string folder_;
};

// A server of a package without flags, signals or a coordinator.
struct RunningService {
  explicit RunningService(const std::string& package, EngineOptions options = {}) {
    Teacher teacher = LoadTeacher(package).value();
    options.threads = 3;
    const EngineOptions fitted = FitToTeacher(options, teacher.signature);
    service.Serve(std::make_unique<Engine>(std::move(teacher), fitted));
    listening = Listen("127.0.0.1:0", {&service}).value();
  }
  ~RunningService() {
    EXPECT_TRUE(service.Drain(std::chrono::seconds(60)));
    listening.server->Shutdown();
  }
  TeacherService service;
  ListeningServer listening;
};

// Logits of all inputs, asked for in groups of random sizes and in random order, all in flight at once.
std::vector<float> AskInGroups(LabelClient& client, const std::vector<v1::LabelInput>& inputs, uint64_t seed) {
  std::mt19937 random(seed);
  std::vector<size_t> order(inputs.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random);
  std::vector<float> logits(inputs.size() * kClasses, 0);
  std::vector<std::future<void>> answers;
  for (size_t first = 0; first < order.size();) {
    const size_t count = std::min<size_t>(1 + random() % 50, order.size() - first);
    std::vector<size_t> group(order.begin() + first, order.begin() + first + count);
    std::vector<v1::LabelInput> asked;
    for (const size_t i : group) asked.push_back(inputs[i]);
    v1::LabelSpec spec;
    spec.set_codec(v1::CODEC_DENSE_FP32);
    auto done = std::make_shared<std::promise<void>>();
    answers.push_back(done->get_future());
    client.Label(spec, asked, [done, group, &logits](absl::StatusOr<LabelClient::Labels> labels) {
      EXPECT_TRUE(labels.ok()) << labels.status();
      for (size_t i = 0; labels.ok() && i < group.size(); ++i) {
        std::memcpy(&logits[group[i] * kClasses], &labels->outputs[0].numbers[i * kClasses], kClasses * sizeof(float));
      }
      done->set_value();
    });
    first += count;
  }
  for (auto& answer : answers) answer.get();
  return logits;
}

// Three callers at once get, bit for bit, what an in-process forward of all rows gives.
void ExpectBitEqual(const std::string& package, const std::vector<v1::LabelInput>& inputs, const Rows& rows) {
  const models::Package loaded = models::LoadPackage(package).value();
  const at::NoGradGuard no_grad;
  const at::Tensor local = models::FixedShapeForward(*loaded.model, rows).logits.contiguous();
  RunningService server(package);
  std::vector<std::thread> callers;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    callers.emplace_back([&, seed] {
      auto client = LabelClient::Connect({server.listening.address}, {.teacher_digest = loaded.info.digest}).value();
      for (int repeat = 0; repeat < 3; ++repeat) {
        const std::vector<float> remote = AskInGroups(*client, inputs, 10 * seed + repeat);
        EXPECT_EQ(std::memcmp(remote.data(), local.const_data_ptr<float>(), remote.size() * sizeof(float)), 0);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

std::vector<v1::LabelInput> IdInputs(const Rows& rows) {
  std::vector<v1::LabelInput> inputs(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    inputs[i].set_id(absl::StrCat("record-", i));
    inputs[i].mutable_ids()->mutable_ids()->Add(rows[i].begin(), rows[i].end());
  }
  return inputs;
}

Rows RandomRows(int count) {
  std::mt19937 random(7);
  Rows rows(count);
  for (auto& row : rows) {
    row.resize(1 + random() % kMaxLength);
    for (int32_t& id : row) id = random() % kVocab;
  }
  return rows;
}

TEST_F(ServerTest, NativeIdsAreBitEqual) {
  const Rows rows = RandomRows(200);
  ExpectBitEqual(NativePackage(v1::Signature::INPUT_IDS), IdInputs(rows), rows);
}

TEST_F(ServerTest, TorchScriptIdsAreBitEqual) {
  const Rows rows = RandomRows(200);
  ExpectBitEqual(ScriptPackage("torch.matmul(mean, self.head.t())"), IdInputs(rows), rows);
}

// Every output of a transformer, asked for in requests of two kinds: with hidden states come the logits, of records or
// of some of their tokens; and the embedding alone.
TEST_F(ServerTest, FeaturesAreBitEqual) {
  const Rows rows = RandomRows(150);
  for (const v1::Task task : {v1::TASK_CLASSIFICATION, v1::TASK_TOKEN_CLASSIFICATION, v1::TASK_MASKED_LM}) {
    v1::Signature signature = MakeSignature(v1::Signature::INPUT_IDS);
    signature.set_task(task);
    if (task == v1::TASK_MASKED_LM) {
      signature.clear_labels();
      signature.set_mask_id(3);
    }
    const std::string package = TransformerPackage(signature);
    const models::Package loaded = models::LoadPackage(package).value();
    std::vector<v1::LabelInput> inputs = IdInputs(rows);
    models::Wanted wanted{{}, {"embedding", "hidden.0", "hidden.2"}};
    if (models::JudgesTokens(task)) {
      for (size_t i = 0; i < rows.size(); ++i) {
        for (int32_t place = i % 3; place < static_cast<int32_t>(rows[i].size()); place += 2) {
          inputs[i].add_positions(place);
        }
        wanted.positions.emplace_back(inputs[i].positions().begin(), inputs[i].positions().end());
        if (!inputs[i].positions().empty()) continue;  // none named: every token
        wanted.positions.back().resize(rows[i].size());
        std::iota(wanted.positions.back().begin(), wanted.positions.back().end(), 0);
      }
    }
    const at::NoGradGuard no_grad;
    models::Outputs local = models::FixedShapeForward(*loaded.model, rows, wanted);
    local.features["logits"] = local.logits;
    RunningService server(package);
    auto client = LabelClient::Connect({server.listening.address}, {.teacher_digest = loaded.info.digest}).value();
    EXPECT_TRUE(client->description().repeatable());
    EXPECT_EQ(client->description().features_size(), 4);
    for (const std::vector<std::string>& names :
         {std::vector<std::string>{"hidden.2", "logits", "hidden.0"}, {"embedding"}}) {
      v1::LabelSpec spec;
      spec.mutable_outputs()->Add(names.begin(), names.end());
      std::vector<v1::LabelInput> asked = inputs;
      for (auto& input : asked) {
        if (names.size() == 1) input.clear_positions();
      }
      std::promise<absl::StatusOr<LabelClient::Labels>> promise;
      client->Label(spec, asked, [&](auto labels) { promise.set_value(std::move(labels)); });
      const auto labels = promise.get_future().get();
      ASSERT_TRUE(labels.ok()) << labels.status();
      for (size_t k = 0; k < names.size(); ++k) {
        const at::Tensor expected = local.features.at(names[k]).contiguous();
        const std::vector<float>& numbers = labels->outputs[k].numbers;
        ASSERT_EQ(static_cast<int64_t>(numbers.size()), expected.numel()) << names[k];
        EXPECT_EQ(std::memcmp(numbers.data(), expected.const_data_ptr<float>(), expected.nbytes()), 0) << names[k];
      }
    }
  }
}

// Bits that depend on a row's place in its batch are found out. (Products with a
// matrix that is not stored as a linear layer's weight do that on some CPUs.)
TEST_F(ServerTest, ATeacherThatIsNotRepeatableSaysSo) {
  EXPECT_TRUE(LoadTeacher(NativePackage(v1::Signature::INPUT_IDS))->repeatable);
  EXPECT_TRUE(LoadTeacher(ScriptPackage("torch.matmul(mean, self.head.t())"))->repeatable);
  const std::string by_place =
      "torch.matmul(mean, self.head.t()) * (1 + torch.arange(mean.size(0)).unsqueeze(1) * 1e-6)";
  EXPECT_FALSE(LoadTeacher(ScriptPackage(by_place))->repeatable);
}

// A server told to stop while a forward hangs. Does not come back.
void StopWhileAForwardHangs(const std::string& package, const std::string& address_file) {
  std::thread caller([address_file] {
    absl::StatusOr<std::string> address = ReadFile(address_file);
    while (!address.ok()) address = ReadFile(address_file);
    const auto stub = v1::TeacherService::NewStub(Connect(address->substr(0, address->size() - 1)));
    grpc::ClientContext context;
    const auto stream = stub->LabelStream(&context);
    v1::LabelStreamRequest message;
    message.mutable_open()->set_protocol_version(kProtocolVersion);
    stream->Write(message);
    auto& request = *message.mutable_request();
    request.set_protocol_version(kProtocolVersion);
    request.set_request_id(1);
    request.add_inputs()->mutable_ids()->mutable_ids()->Resize(30, 7);
    stream->Write(message);
    request.set_request_id(2);
    request.clear_inputs();
    stream->Write(message);
    v1::LabelStreamReply reply;
    while (reply.reply().request_id() != 2 && stream->Read(&reply)) {
    }
    raise(SIGTERM);  // the bad request was answered, so the one before it is in the teacher's hands
    while (stream->Read(&reply)) {
    }
  });
  spdlog::set_default_logger(spdlog::stderr_color_mt("hanging"));  // the test reads stderr
  StopSignal stop;
  (void)RunTeacherServer({.package = package, .address_file = address_file, .drain_ms = 200}, &stop);
}

TEST_F(ServerTest, AForwardThatHangsDoesNotKeepTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::string package = ScriptPackage("torch.matmul(mean, self.head.t())");
  EXPECT_EXIT(StopWhileAForwardHangs(package, PathOf("address")), testing::ExitedWithCode(1), "gave up on work");
}

TEST_F(ServerTest, ALoopbackAddressIsOfNoUseToARunElsewhere) {
  StopSignal stop;
  const absl::Status status = RunTeacherServer({.coordinator = "head:7000", .teacher = "small"}, &stop);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--listen"));
}

TEST_F(ServerTest, TextsAreBitEqual) {
  const std::string tokenizer_file = TrainTokenizer();
  const auto tokenizer = corpus::Tokenizer::Load(tokenizer_file, kMaxLength).value();
  std::mt19937 random(9);
  std::vector<v1::LabelInput> inputs(200);
  Rows rows;
  for (auto& input : inputs) {
    input.set_text(RandomText(random));
    rows.push_back(tokenizer->Encode(input.text()));
  }
  ExpectBitEqual(NativePackage(v1::Signature::INPUT_TEXT, tokenizer_file), inputs, rows);
}

TEST_F(ServerTest, LogitsThatAreNotFiniteNameTheRecord) {
  RunningService server(NativePackage(v1::Signature::INPUT_IDS, "", 1e30));
  auto client = LabelClient::Connect({server.listening.address}, {}).value();
  std::promise<absl::Status> status;
  client->Label({}, IdInputs({{1, 2, 3}}),
                [&](absl::StatusOr<LabelClient::Labels> labels) { status.set_value(labels.status()); });
  const absl::Status got = status.get_future().get();
  EXPECT_TRUE(absl::IsInternal(got)) << got;
  EXPECT_THAT(std::string(got.message()), HasSubstr("record 'record-0', logits: number"));
  EXPECT_THAT(std::string(got.message()), HasSubstr("not a finite number"));
}

// What gRPC's health service says: 1 serving, 2 not.
int HealthOf(const std::string& address) {
  grpc::GenericStub stub(Connect(address));
  grpc::ClientContext context;
  const grpc::Slice empty;
  const grpc::ByteBuffer request(&empty, 1);
  grpc::ByteBuffer reply;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request, &reply,
                 [&](grpc::Status status) { done.set_value(status); });
  EXPECT_TRUE(done.get_future().get().ok());
  grpc::Slice bytes;  // HealthCheckResponse{status}: field 1, varint
  EXPECT_TRUE(reply.DumpToSingleSlice(&bytes).ok());
  EXPECT_EQ(bytes.size(), 2u);
  return bytes.begin()[1];
}

using TeachStream = grpc::ServerReaderWriter<v1::TeacherOrder, v1::TeacherMessage>;

// A coordinator whose Teach stream is played by a script.
class ScriptedCoordinator : public v1::CoordinatorService::Service {
 public:
  explicit ScriptedCoordinator(std::function<void(TeachStream&)> script) : script_(std::move(script)) {
    listening_ = Listen("127.0.0.1:0", {this}).value();
  }
  ~ScriptedCoordinator() override { listening_.server->Shutdown(std::chrono::system_clock::now()); }
  const std::string& address() const { return listening_.address; }

 private:
  grpc::Status Teach(grpc::ServerContext*, TeachStream* stream) override {
    script_(*stream);
    return grpc::Status::OK;
  }
  const std::function<void(TeachStream&)> script_;
  ListeningServer listening_;
};

v1::TeacherMessage NextMessage(TeachStream& stream) {
  v1::TeacherMessage message;
  while (stream.Read(&message) && message.has_heartbeat()) {
  }
  return message;
}

void OrderLoad(TeachStream& stream, const std::string& package) {
  v1::TeacherOrder order;
  order.mutable_load()->set_package(package);
  stream.Write(order);
}

// Two ways to the end: the coordinator's stop, and SIGTERM.
TEST_F(ServerTest, JoinsARunAndServesUntilItIsToldToStop) {
  const std::string package = NativePackage(v1::Signature::INPUT_IDS);
  for (const bool by_signal : {false, true}) {
    ScriptedCoordinator coordinator([&](TeachStream& stream) {
      const std::string address = NextMessage(stream).hello().address();
      EXPECT_EQ(HealthOf(address), 2);
      OrderLoad(stream, package);
      const std::string digest = NextMessage(stream).ready().digest();
      EXPECT_EQ(digest, models::LoadPackage(package)->info.digest);
      EXPECT_EQ(HealthOf(address), 1);
      auto client = LabelClient::Connect({address}, {.teacher_digest = digest}).value();
      EXPECT_EQ(AskInGroups(*client, IdInputs({{1, 2}, {3}}), 1).size(), 2u * kClasses);
      if (by_signal) {
        raise(SIGTERM);
      } else {
        v1::TeacherOrder order;
        order.mutable_stop()->set_reason("the run is done");
        stream.Write(order);
      }
      EXPECT_FALSE(NextMessage(stream).has_failed());
    });
    StopSignal stop;
    const absl::Status end = RunTeacherServer({.coordinator = coordinator.address(), .teacher = "small"}, &stop);
    EXPECT_TRUE(end.ok()) << end;
  }
}

TEST_F(ServerTest, ALostCoordinatorOrABadPackageEndsIt) {
  ScriptedCoordinator leaves([](TeachStream& stream) { NextMessage(stream); });
  ScriptedCoordinator wrong([&](TeachStream& stream) {
    NextMessage(stream);
    OrderLoad(stream, PathOf("nothing"));
    EXPECT_THAT(NextMessage(stream).failed().message(), HasSubstr("nothing"));
  });
  ScriptedCoordinator twice([&](TeachStream& stream) {
    NextMessage(stream);
    OrderLoad(stream, NativePackage(v1::Signature::INPUT_IDS));
    EXPECT_TRUE(NextMessage(stream).has_ready());
    OrderLoad(stream, PathOf("other"));
    EXPECT_THAT(NextMessage(stream).failed().message(), HasSubstr("cannot load"));
  });
  const std::pair<ScriptedCoordinator*, absl::StatusCode> cases[] = {{&leaves, absl::StatusCode::kUnavailable},
                                                                     {&wrong, absl::StatusCode::kNotFound},
                                                                     {&twice, absl::StatusCode::kFailedPrecondition}};
  for (const auto& [coordinator, code] : cases) {
    StopSignal stop;
    const absl::Status end = RunTeacherServer({.coordinator = coordinator->address(), .teacher = "small"}, &stop);
    EXPECT_EQ(end.code(), code) << end;
  }
}

TEST_F(ServerTest, OnItsOwnItWritesItsAddress) {
  ServerOptions options;
  options.package = NativePackage(v1::Signature::INPUT_IDS);
  options.address_file = PathOf("address");
  StopSignal stop;
  stop.Notify(absl::OkStatus());
  EXPECT_TRUE(RunTeacherServer(options, &stop).ok());
  EXPECT_THAT(ReadFile(options.address_file).value(), testing::MatchesRegex("127\\.0\\.0\\.1:[0-9]+\n"));
}

TEST_F(ServerTest, ACacheThatCannotBeOpenedIsToldAtOnce) {
  ASSERT_TRUE(WriteFileAtomically(PathOf("mine/notes.txt"), "notes").ok());
  StopSignal stop;
  const absl::Status status = RunTeacherServer({.package = PathOf("none"), .cache = PathOf("mine")}, &stop);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr(PathOf("mine")));
}

TEST_F(ServerTest, FlagsThatDoNotFitAreNamed) {
  StopSignal stop;
  TeacherService service;
  const ListeningServer other = Listen("127.0.0.1:0", {&service}).value();
  const std::pair<ServerOptions, std::string> cases[] = {
      {{.coordinator = {}, .teacher = {}}, "give either --package"},
      {{.coordinator = "127.0.0.1:1"}, "give either --package"},
      {{.package = PathOf("nothing")}, "nothing"},
      {{.package = "p", .listen = other.address}, "in use"},
      {{.package = "p", .listen = "0.0.0.0:0"}, "--insecure"},
  };
  for (const auto& [options, message] : cases) {
    EXPECT_THAT(std::string(RunTeacherServer(options, &stop).message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace polystill::teacher_server
