#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <future>
#include <random>

#include "absl/strings/str_cat.h"
#include "checkpoint/safetensors.h"
#include "losses/weighted.h"
#include "models/package.h"
#include "runtime/rpc.h"
#include "soft_labels/client.h"
#include "soft_labels/decode.h"
#include "soft_labels/head.h"
#include "teacher_server/engine.h"
#include "teacher_server/libtorch_backend.h"
#include "teacher_server/row_encoder.h"
#include "teacher_server/service.h"

// Labels of every codec, of a masked language model behind a real server: what the losses make of them has the same
// bits as what they make of labels that never left the process.

namespace polystill::teacher_server {
namespace {

namespace fs = std::filesystem;
using soft_labels::Array;
using testing::HasSubstr;

constexpr int64_t kVocab = 300;
constexpr int kRecords = 40;

class CodecsTest : public testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    folder_ = absl::StrCat(testing::TempDir(), "codecs_test-",
                           testing::UnitTest::GetInstance()->current_test_info()->name(), "-", getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    models::ModelShape shape;
    shape.spec.set_kind(v1::Model::KIND_TRANSFORMER);
    shape.spec.set_width(24);
    shape.spec.set_layers(1);
    shape.spec.set_heads(2);
    shape.max_length = 40;
    shape.task = v1::TASK_MASKED_LM;
    shape.vocab_size = shape.classes = kVocab;
    v1::Signature signature;
    signature.set_input(v1::Signature::INPUT_IDS);
    signature.set_task(v1::TASK_MASKED_LM);
    signature.set_vocab_size(kVocab);
    signature.set_max_length(40);
    const auto model = models::MakeModel(shape, 5).value();
    ASSERT_TRUE(models::SavePackage(folder_ + "/package", "small", *model, shape, signature, "").ok());
    Teacher teacher = LoadTeacher(folder_ + "/package").value();
    service_.Serve(std::make_unique<Engine>(std::move(teacher), FitToTeacher({}, signature)));
    listening_ = Listen("127.0.0.1:0", {&service_}).value();
    client_ = soft_labels::LabelClient::Connect({listening_.address}, {}).value();
    MakeInputs();
  }

  void TearDown() override {
    client_.reset();
    EXPECT_TRUE(service_.Drain(std::chrono::seconds(60)));
    listening_.server->Shutdown();
    fs::remove_all(folder_);
  }

  void MakeInputs() {
    std::mt19937 random(3);
    inputs_.resize(kRecords);
    for (int i = 0; i < kRecords; ++i) {
      inputs_[i].set_id(absl::StrCat("r", i));
      const int length = 1 + static_cast<int>(random() % 40);
      for (int k = 0; k < length; ++k) inputs_[i].mutable_ids()->add_ids(static_cast<int32_t>(random() % kVocab));
      for (int k = 0; k < length; k += 3) inputs_[i].add_positions(k);
      rows_ += inputs_[i].positions_size();
    }
  }

  soft_labels::Output Logits() const {
    v1::LabelSpec spec;
    return soft_labels::OutputsOf(spec, client_->description()).value()[0];
  }

  // By the server, in requests of random sizes, in random order of the records, and put back in their order.
  Array Remote(const v1::LabelSpec& spec, uint64_t seed) {
    std::mt19937 random(seed);
    std::vector<size_t> order(inputs_.size());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    std::vector<Array> of_records(inputs_.size());
    std::vector<std::future<void>> answers;
    for (const size_t i : order) {
      auto done = std::make_shared<std::promise<void>>();
      answers.push_back(done->get_future());
      client_->Label(spec, {inputs_[i]},
                     [done, i, &of_records](absl::StatusOr<soft_labels::LabelClient::Labels> labels) {
                       EXPECT_TRUE(labels.ok()) << labels.status();
                       if (labels.ok()) of_records[i] = std::move(labels->outputs[0]);
                       done->set_value();
                     });
    }
    for (auto& answer : answers) answer.get();
    Array all;
    for (Array& one : of_records) soft_labels::Append(std::move(one), &all);
    return all;
  }

  // In this process: all records by one forward, encoded, cut as a cache would keep them, and decoded.
  Array Local(const v1::LabelSpec& spec) {
    const at::NoGradGuard no_grad;
    const models::Package package = models::LoadPackage(folder_ + "/package").value();
    models::Rows ids;
    models::Wanted wanted;
    wanted.head_input = spec.codec() == v1::CODEC_HIDDEN_HEAD;
    v1::LabelRequest request;
    *request.mutable_spec() = spec;
    std::vector<soft_labels::RecordSize> sizes;
    for (const v1::LabelInput& input : inputs_) {
      ids.emplace_back(input.ids().ids().begin(), input.ids().ids().end());
      wanted.positions.emplace_back(input.positions().begin(), input.positions().end());
      *request.add_inputs() = input;
      sizes.push_back(SizeOf(spec, Logits(), input));
    }
    const at::Tensor numbers = models::FixedShapeForward(*package.model, ids, wanted).logits;
    const v1::SoftLabels labels = EncodeRows(client_->description(), request, Logits(), numbers).value();
    Array all;
    const std::vector<v1::SoftLabels> parts = soft_labels::Cut(labels, sizes).value();
    for (size_t i = 0; i < parts.size(); ++i) {
      soft_labels::Append(soft_labels::Decode(parts[i], spec, Logits(), {sizes[i]}).value(), &all);
    }
    return all;
  }

  // What a student makes of them: the loss, and the gradient of its logits.
  std::vector<float> LossOf(const v1::Loss& loss, const Array& array) {
    losses::Batch batch;
    batch.task = v1::TASK_MASKED_LM;
    batch.logits =
        (at::arange(static_cast<double>(rows_ * kVocab)) * 0.37).sin().view({rows_, kVocab}).set_requires_grad(true);
    losses::TeacherLabels& labels = batch.teachers[{"t", soft_labels::SettingsOf(loss), "logits"}];
    if (array.width > 0) labels.numbers = at::tensor(array.numbers).view({rows_, array.width});
    labels.ids = at::tensor(array.ids).to(at::kLong);
    if (loss.codec() == v1::CODEC_TOP_K) labels.ids = labels.ids.view({rows_, loss.k()});
    labels.counts = at::tensor(array.counts).to(at::kLong);
    labels.offsets = array.offsets;
    if (loss.codec() == v1::CODEC_HIDDEN_HEAD) batch.heads["t"] = FetchHead();
    if (soft_labels::IsDense(loss.codec()) || loss.codec() == v1::CODEC_HIDDEN_HEAD) labels.ids = at::Tensor();
    google::protobuf::RepeatedPtrField<v1::Loss> list;
    *list.Add() = loss;
    const auto sums = EvaluateLosses(list, batch);
    EXPECT_TRUE(sums.ok()) << sums.status();
    if (!sums.ok()) return {};
    sums->at(0).backward();
    std::vector<float> all = {sums->at(0).item<float>()};
    const at::Tensor gradient = batch.logits.grad().contiguous();
    all.insert(all.end(), gradient.const_data_ptr<float>(), gradient.const_data_ptr<float>() + gradient.numel());
    return all;
  }

  losses::Head FetchHead() {
    const auto bytes = soft_labels::FetchHead({"127.0.0.1:1", listening_.address}, client_->description().head());
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    losses::Head head;
    const checkpoint::NamedTensors tensors = checkpoint::ParseSafetensors(*bytes, "head").value();
    for (const auto& [name, tensor] : tensors) (name == "weight" ? head.weight : head.bias) = tensor;
    return head;
  }

  std::string folder_;
  TeacherService service_;
  ListeningServer listening_;
  std::unique_ptr<soft_labels::LabelClient> client_;
  std::vector<v1::LabelInput> inputs_;
  int64_t rows_ = 0;
};

TEST_F(CodecsTest, RemoteLabelsGiveTheLossesOfLocalOnes) {
  std::vector<float> dense;
  for (const v1::Codec codec : soft_labels::CodecsThatServe(v1::LOSS_KIND_SOFT_LABEL)) {
    for (const double temperature : {1.0, 2.0, 8.0}) {
      SCOPED_TRACE(absl::StrCat(soft_labels::CodecName(codec), " at ", temperature));
      v1::Loss loss;
      loss.set_kind(v1::LOSS_KIND_SOFT_LABEL);
      loss.set_codec(codec);
      loss.set_teacher("t");
      loss.set_weight(1);
      loss.set_temperature(temperature);
      loss.set_k(20);
      loss.set_draws_per_token(64);
      const v1::LabelSpec spec = soft_labels::SpecOf(soft_labels::SettingsOf(loss), 9);
      const Array local = Local(spec);
      for (const uint64_t seed : {1, 2}) {
        const Array remote = Remote(spec, seed);
        ASSERT_EQ(remote.numbers, local.numbers);
        ASSERT_EQ(remote.ids, local.ids);
        ASSERT_EQ(remote.counts, local.counts);
        EXPECT_EQ(LossOf(loss, remote), LossOf(loss, local));
      }
      // Every codec's loss is about that of dense labels; of the ghost it is less.
      const float value = LossOf(loss, local)[0];
      if (codec == v1::CODEC_DENSE_FP32) dense.push_back(value);
      const float of_dense = dense[temperature == 1 ? 0 : temperature == 2 ? 1 : 2];
      const bool ghost = codec == v1::CODEC_TOP_K;
      EXPECT_LE(value, of_dense * (codec == v1::CODEC_SAMPLED ? 1.2 : 1.01));
      EXPECT_GE(value, of_dense * (ghost ? 0.02 : codec == v1::CODEC_SAMPLED ? 0.8 : 0.99));
    }
  }
}

TEST_F(CodecsTest, ADrawIsTheSameUntilAnotherIsAskedFor) {
  v1::LabelSpec spec;
  spec.set_codec(v1::CODEC_SAMPLED);
  spec.set_draws(16);
  const Array first = Remote(spec, 1);
  EXPECT_EQ(Remote(spec, 2).ids, first.ids);
  for (v1::LabelInput& input : inputs_) input.set_draw(1);
  EXPECT_NE(Remote(spec, 3).ids, first.ids);
  for (v1::LabelInput& input : inputs_) input.set_draw(0);
  spec.set_seed(1);
  EXPECT_NE(Remote(spec, 4).ids, first.ids);
}

TEST_F(CodecsTest, ScoresAndClassesAreThoseOfTheLogits) {
  v1::LabelSpec spec;
  spec.set_codec(v1::CODEC_DENSE_FP32);
  const at::Tensor logits = at::tensor(Remote(spec, 1).numbers).view({rows_, kVocab});
  spec.set_codec(v1::CODEC_CLASSES);
  EXPECT_TRUE(at::equal(at::tensor(Remote(spec, 1).ids).to(at::kLong), logits.argmax(1)));
  for (v1::LabelInput& input : inputs_) {
    for (int i = 0; i < input.positions_size(); ++i) input.add_score_ids(7), input.add_score_ids(299 - i);
  }
  spec.set_codec(v1::CODEC_SCORES);
  spec.set_temperature(2);
  const Array scores = Remote(spec, 1);
  EXPECT_EQ(scores.offsets.back(), 2 * rows_);
  const at::Tensor log_p = at::log_softmax(logits / 2, 1);
  for (int64_t row = 0; row < rows_; ++row) EXPECT_NEAR(scores.numbers[2 * row], log_p[row][7].item<float>(), 1e-5);
}

TEST_F(CodecsTest, RefusesWhatACodecCannotHold) {
  const auto refusal = [&](const v1::LabelSpec& spec, const v1::LabelInput& input) {
    v1::LabelRequest request;
    request.set_protocol_version(kProtocolVersion);
    *request.mutable_spec() = spec;
    *request.add_inputs() = input;
    const auto stub = v1::TeacherService::NewStub(Connect(listening_.address));
    grpc::ClientContext context;
    v1::LabelReply reply;
    const grpc::Status status = stub->Label(&context, request, &reply);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    return status.error_message();
  };
  v1::LabelSpec spec;
  spec.set_codec(v1::CODEC_TOP_K);
  spec.set_k(301);
  EXPECT_THAT(refusal(spec, inputs_[0]), HasSubstr("spec.k is 301; write 1 to 300"));
  spec.set_k(3);
  spec.add_outputs("embedding");
  EXPECT_THAT(refusal(spec, inputs_[0]), HasSubstr("spec.codec top_k is of logits, but 'embedding' is a feature"));
  spec.Clear();
  v1::LabelInput input = inputs_[1];
  input.add_score_ids(3);
  EXPECT_THAT(refusal(spec, input), HasSubstr("record 'r1': has score_ids, which go with logits by codec scores only"));
  spec.set_codec(v1::CODEC_SCORES);
  input.clear_positions();
  for (const int place : {0, 1}) input.add_positions(place);
  EXPECT_THAT(refusal(spec, input), HasSubstr("record 'r1': has 1 score_ids for 2 rows of logits"));
  input.add_score_ids(300);
  EXPECT_THAT(refusal(spec, input), HasSubstr("score_id 300 is out of range; logits are [0, 300)"));
}

TEST_F(CodecsTest, AnotherHeadIsNotFound) {
  v1::Head other = client_->description().head();
  other.set_digest("another");
  EXPECT_EQ(soft_labels::FetchHead({listening_.address}, other).status().code(), absl::StatusCode::kNotFound);
  other = client_->description().head();
  other.set_bytes(100);
  EXPECT_EQ(soft_labels::FetchHead({listening_.address}, other).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace polystill::teacher_server
