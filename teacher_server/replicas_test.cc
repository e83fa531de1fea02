#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <future>
#include <random>

#include "absl/strings/str_cat.h"
#include "models/package.h"
#include "runtime/rpc.h"
#include "soft_labels/canary.h"
#include "soft_labels/client.h"
#include "teacher_server/label_cache.h"
#include "teacher_server/libtorch_backend.h"
#include "teacher_server/service.h"

// Several servers of one teacher and the client that asks them.
namespace polystill::teacher_server {
namespace {

namespace fs = std::filesystem;
using soft_labels::LabelClient;

constexpr int kVocab = 300;
constexpr int kRecords = 400;

// The teacher's own backend, counted; its numbers are changed by `error`.
class Watched final : public Backend {
 public:
  Watched(std::unique_ptr<Backend> backend, double error, std::atomic<int>* records)
      : backend_(std::move(backend)), error_(error), records_(records) {}

  absl::StatusOr<std::vector<at::Tensor>> Forward(const Question& question) override {
    *records_ += static_cast<int>(question.ids.size());
    auto tensors = backend_->Forward(question);
    for (size_t i = 0; tensors.ok() && error_ != 0 && i < tensors->size(); ++i) (*tensors)[i] = (*tensors)[i] + error_;
    return tensors;
  }

 private:
  const std::unique_ptr<Backend> backend_;
  const double error_;
  std::atomic<int>* const records_;
};

// A server of a package. `error`: as if its weights had been altered while it claims the same digest.
class Replica {
 public:
  explicit Replica(const std::string& package, double error = 0, const std::string& cache = "") {
    Teacher teacher = LoadTeacher(package).value();
    teacher.backend = std::make_unique<Watched>(std::move(teacher.backend), error, &computed_);
    if (!cache.empty()) {
      auto segments = LabelSegments::Open({.folder = cache, .max_bytes = int64_t{64} << 20}).value();
      cache_ = std::make_unique<LabelCache>(std::move(segments), nullptr);
    }
    const EngineOptions options = FitToTeacher({.max_records_per_request = 16}, teacher.signature);
    service_.Serve(
        std::make_unique<Engine>(std::move(teacher), options, std::chrono::steady_clock::now, nullptr, cache_.get()));
    listening_ = Listen("127.0.0.1:0", {&service_}).value();
  }
  ~Replica() {
    EXPECT_TRUE(service_.Drain(std::chrono::seconds(60)));
    listening_.server->Shutdown();
  }

  const std::string& address() const { return listening_.address; }
  // Records that went through the model.
  int computed() const { return computed_; }

 private:
  std::atomic<int> computed_ = 0;
  std::unique_ptr<LabelCache> cache_;
  TeacherService service_;
  ListeningServer listening_;
};

class ReplicasTest : public testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    folder_ = absl::StrCat(testing::TempDir(), "replicas_test-",
                           testing::UnitTest::GetInstance()->current_test_info()->name(), "-", getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    models::ModelShape shape;
    shape.spec.set_kind(v1::Model::KIND_SUBWORD_BAG);
    shape.spec.set_width(24);
    shape.vocab_size = kVocab;
    v1::Signature signature;
    signature.set_input(v1::Signature::INPUT_IDS);
    signature.set_vocab_size(kVocab);
    signature.set_max_length(40);
    for (const char* label : {"a", "b", "c"}) signature.add_labels(label);
    shape.classes = 3;
    const auto model = models::MakeModel(shape, 5).value();
    ASSERT_TRUE(models::SavePackage(PathOf("package"), "small", *model, shape, signature, "").ok());
    std::mt19937 random(3);
    inputs_.resize(kRecords);
    for (int i = 0; i < kRecords; ++i) {
      inputs_[i].set_id(absl::StrCat("r", i));
      inputs_[i].mutable_ids()->add_ids(i % kVocab);  // no two are equal
      inputs_[i].mutable_ids()->add_ids(i / kVocab);
      for (int k = random() % 30; k > 0; --k) inputs_[i].mutable_ids()->add_ids(static_cast<int>(random() % kVocab));
    }
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string PathOf(const std::string& name) const { return folder_ + "/" + name; }

  // Logits of all records, asked for in batches of 32 in another order each time.
  std::vector<float> Ask(LabelClient& client, int seed) {
    std::vector<int> order(kRecords);
    for (int i = 0; i < kRecords; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    std::vector<float> logits(3 * kRecords);
    for (int first = 0; first < kRecords; first += 32) {
      const std::vector<int> batch(order.begin() + first, order.begin() + std::min(first + 32, kRecords));
      std::vector<v1::LabelInput> asked;
      for (const int i : batch) asked.push_back(inputs_[i]);
      std::promise<absl::StatusOr<LabelClient::Labels>> promise;
      client.Label({}, asked, [&](auto labels) { promise.set_value(std::move(labels)); });
      const auto labels = promise.get_future().get();
      EXPECT_TRUE(labels.ok()) << labels.status();
      for (size_t k = 0; labels.ok() && k < batch.size(); ++k) {
        std::memcpy(&logits[3 * batch[k]], &labels->outputs[0].numbers[3 * k], 3 * sizeof(float));
      }
    }
    return logits;
  }

  std::string folder_;
  std::vector<v1::LabelInput> inputs_;
};

TEST_F(ReplicasTest, AlteredWeightsUnderTheSameDigestAreFoundOut) {
  Replica one(PathOf("package")), altered(PathOf("package"), 0.01), three(PathOf("package"));
  LabelClient::Options options;
  options.parity_patience_ms = 60'000;
  options.parity_tolerance = 1e-3;
  auto client = LabelClient::Connect({altered.address(), one.address(), three.address()}, options).value();
  const int canaries = altered.computed();
  EXPECT_GT(canaries, 0);
  const std::vector<float> logits = Ask(*client, 1);
  EXPECT_EQ(client->counts().refused_replicas, 1);
  EXPECT_EQ(altered.computed(), canaries);
  // Of two the first in the list is right.
  auto two = LabelClient::Connect({one.address(), altered.address()}, options).value();
  EXPECT_EQ(Ask(*two, 2), logits);
  // Within the tolerance it is taken.
  options.parity_tolerance = 0.02;
  auto lenient = LabelClient::Connect({one.address(), altered.address()}, options).value();
  EXPECT_NE(Ask(*lenient, 3), logits);
  EXPECT_EQ(lenient->counts().refused_replicas, 0);
}

// What a cache holds was right when it was computed; what the model gives now is what is compared.
TEST_F(ReplicasTest, AlteredWeightsBehindAWarmCacheAreFoundOut) {
  LabelClient::Options options;
  options.parity_patience_ms = 60'000;
  options.parity_tolerance = 1e-3;
  Replica one(PathOf("package"));
  {
    Replica was_right(PathOf("package"), 0, PathOf("cache"));
    v1::LabelRequest canary =
        soft_labels::CanaryRequest(LabelClient::Connect({was_right.address()}, {}).value()->description());
    canary.set_afresh(false);  // kept, as if somebody had asked about the same
    v1::LabelReply reply;
    grpc::ClientContext context;
    const auto stub = v1::TeacherService::NewStub(Connect(was_right.address()));
    ASSERT_TRUE(stub->Label(&context, canary, &reply).ok());
    auto client = LabelClient::Connect({one.address(), was_right.address()}, options).value();
    EXPECT_EQ(client->counts().refused_replicas, 0);
  }
  Replica lies(PathOf("package"), 0.01, PathOf("cache"));
  auto client = LabelClient::Connect({one.address(), lies.address()}, options).value();
  Ask(*client, 1);
  EXPECT_EQ(client->counts().refused_replicas, 1);
}

TEST_F(ReplicasTest, CompressedLabelsHaveTheSameBits) {
  Replica replica(PathOf("package"));
  auto plain = LabelClient::Connect({replica.address()}, {}).value();
  LabelClient::Options options;
  options.compression = v1::COMPRESSION_ZSTD;
  auto compressing = LabelClient::Connect({replica.address()}, options).value();
  EXPECT_EQ(Ask(*compressing, 1), Ask(*plain, 2));
  // Of equal records, whose labels can be compressed.
  const auto bytes_of = [&](LabelClient& client) {
    std::promise<absl::StatusOr<LabelClient::Labels>> promise;
    client.Label({}, std::vector<v1::LabelInput>(200, inputs_[0]),
                 [&](auto labels) { promise.set_value(std::move(labels)); });
    return promise.get_future().get().value().bytes;
  };
  EXPECT_EQ(bytes_of(*plain), 200 * 3 * 4);
  EXPECT_LT(bytes_of(*compressing), 1'000);
}

TEST_F(ReplicasTest, TheSecondPassComputesNothing) {
  Replica one(PathOf("package"), 0, PathOf("cache1")), two(PathOf("package"), 0, PathOf("cache2"));
  LabelClient::Options options;
  options.parity_patience_ms = 60'000;
  options.parity_tolerance = 0;
  options.hedging.share = 0;  // a hedge would compute elsewhere
  auto client = LabelClient::Connect({one.address(), two.address()}, options).value();
  EXPECT_TRUE(client->description().caches());
  const int before = one.computed() + two.computed();
  const std::vector<float> first = Ask(*client, 1);
  const int computed[] = {one.computed(), two.computed()};
  EXPECT_EQ(computed[0] + computed[1] - before, kRecords);
  for (const int records : computed) EXPECT_GT(records, kRecords / 3);
  EXPECT_EQ(Ask(*client, 2), first);
  EXPECT_EQ(one.computed(), computed[0]);
  EXPECT_EQ(two.computed(), computed[1]);
  // Nor does another worker, who knows the replicas in another order.
  auto other = LabelClient::Connect({two.address(), one.address()}, options).value();
  const int with_canaries = one.computed() + two.computed();
  EXPECT_EQ(Ask(*other, 3), first);
  EXPECT_EQ(one.computed() + two.computed(), with_canaries);
}

}  // namespace
}  // namespace polystill::teacher_server
