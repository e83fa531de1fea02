#include "student_worker/teachers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "polystill/v1/teacher.grpc.pb.h"
#include "runtime/files.h"
#include "runtime/rpc.h"
#include "runtime/sha256.h"
#include "runtime/tenant.h"
#include "runtime/tokenizer_file.h"

namespace polystill::student_worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A teacher that describes itself, and answers the canary alone (with an error, which is an answer too).
class SilentTeacher : public v1::TeacherService::Service {
 public:
  explicit SilentTeacher(v1::DescribeReply description)
      : description_(std::move(description)), listening_(Listen("127.0.0.1:0", {this}).value()) {}
  ~SilentTeacher() override { listening_.server->Shutdown(std::chrono::system_clock::now()); }

  const std::string& address() const { return listening_.address; }

 private:
  grpc::Status LabelStream(grpc::ServerContext* context,
                           grpc::ServerReaderWriter<v1::LabelStreamReply, v1::LabelStreamRequest>* stream) override {
    const auto [first, last] = context->client_metadata().equal_range(kTenantKey);
    for (auto found = first; found != last; ++found) EXPECT_EQ(found->second, "my-run");
    EXPECT_NE(first, last);
    v1::LabelStreamRequest request;
    stream->Read(&request);
    v1::LabelStreamReply reply;
    *reply.mutable_opened() = description_;
    stream->Write(reply);
    while (stream->Read(&request)) {
      if (!request.has_request()) continue;
      reply.mutable_reply()->set_request_id(request.request().request_id());
      reply.mutable_reply()->set_code(static_cast<int>(absl::StatusCode::kInternal));
      stream->Write(reply);
    }
    return grpc::Status::OK;
  }

  const v1::DescribeReply description_;
  ListeningServer listening_;
};

// A student and a teacher of texts that share a tokeniser and the side that they read.
class TeachersTest : public testing::Test {
 protected:
  TeachersTest() {
    const std::string folder = testing::TempDir() + "teachers_test";
    EXPECT_TRUE(WriteFileAtomically(folder + "/" + kSentencePieceFile, "pieces").ok());
    assignment_.set_world_size(1);
    v1::Job& job = *assignment_.mutable_job();
    job.set_tokenizer_folder(folder);
    job.mutable_tokenizer()->set_kind(v1::Tokenizer::KIND_SENTENCEPIECE);
    job.mutable_tokenizer()->set_max_length(50);
    job.set_reads(v1::SIDE_TEXT);
    for (const char* label : {"a", "b"}) job.add_labels(label);
    description_.set_protocol_version(kProtocolVersion);
    description_.set_digest("d1");
    description_.mutable_signature()->set_input(v1::Signature::INPUT_TEXT);
    description_.mutable_signature()->set_vocab_size(100);
    description_.mutable_signature()->set_max_length(64);
    *description_.mutable_signature()->mutable_labels() = job.labels();
    description_.set_stream_credits(8);
    description_.set_max_records_per_request(4);
    description_.set_tokenizer_sha256(Sha256Hex("pieces"));
    for (const auto& [name, width] : {std::pair("embedding", 8), {"hidden.2", 4}}) {
      v1::Feature& feature = *description_.add_features();
      feature.set_name(name);
      feature.set_width(width);
    }
    Loss(v1::LOSS_KIND_SOFT_LABEL);
    Loss(v1::LOSS_KIND_TASK);
    Loss(v1::LOSS_KIND_EMBEDDING);
  }

  v1::Loss& Loss(v1::LossKind kind) {
    v1::Loss& loss = *assignment_.mutable_job()->add_losses();
    loss.set_kind(kind);
    loss.set_codec(v1::CODEC_DENSE_FP16);
    return loss;
  }

  absl::StatusOr<std::unique_ptr<Teachers>> Connect(v1::Side reads = v1::SIDE_TEXT) {
    teacher_ = std::make_unique<SilentTeacher>(description_);
    assignment_.clear_teachers();
    v1::TeacherEndpoint& endpoint = *assignment_.add_teachers();
    endpoint.set_name("english");
    endpoint.set_address(teacher_->address());
    endpoint.set_reads(reads);
    return Teachers::Connect(assignment_, LabelKindsOf(assignment_), "My run");
  }

  std::string Refusal(v1::Side reads = v1::SIDE_TEXT) {
    const absl::Status status = Connect(reads).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    return std::string(status.message());
  }

  v1::WorkerOrder::Assignment assignment_;
  v1::DescribeReply description_;
  std::unique_ptr<SilentTeacher> teacher_;
};

TEST_F(TeachersTest, OneRequestForAllOutputsOfACodec) {
  Loss(v1::LOSS_KIND_LOGIT_MSE).set_codec(v1::CODEC_DENSE_FP32);
  const auto teachers = Connect(v1::SIDE_SOURCE_TEXT);
  ASSERT_TRUE(teachers.ok()) << teachers.status();
  const auto sources = (*teachers)->Sources(LabelKindsOf(assignment_));
  ASSERT_EQ(sources.size(), 2u);
  EXPECT_THAT(sources[0].spec.outputs(), ElementsAre("logits"));
  EXPECT_EQ(sources[0].spec.codec(), v1::CODEC_DENSE_FP32);
  EXPECT_THAT(sources[1].spec.outputs(), ElementsAre("embedding", "logits"));
  EXPECT_FALSE(sources[1].sends_tokens);
  EXPECT_EQ(sources[1].reads, v1::SIDE_SOURCE_TEXT);
  EXPECT_EQ((*teachers)->WidthOf({"english", v1::CODEC_DENSE_FP16, "embedding"}), 8);
}

TEST_F(TeachersTest, RowsOfTokensNeedTheSameTokens) {
  Loss(v1::LOSS_KIND_HIDDEN).add_layers()->set_teacher(2);
  const auto teachers = Connect();
  ASSERT_TRUE(teachers.ok()) << teachers.status();
  EXPECT_TRUE((*teachers)->Sources(LabelKindsOf(assignment_))[0].sends_tokens);
  EXPECT_THAT(Refusal(v1::SIDE_SOURCE_TEXT), HasSubstr("it reads another side of the records than the student"));
  description_.mutable_signature()->set_max_length(49);
  EXPECT_THAT(Refusal(), HasSubstr("lower tokenizer.max_length"));
  description_.mutable_signature()->set_max_length(50);
  description_.set_tokenizer_sha256(Sha256Hex("other pieces"));
  EXPECT_THAT(Refusal(), HasSubstr("teacher 'english': 'hidden.2' is of tokens: its tokeniser"));
  description_.set_tokenizer_sha256("");
  EXPECT_THAT(Refusal(), HasSubstr("give tokenizer.path"));
}

TEST_F(TeachersTest, AnOutputThatTheTeacherLacksIsNamed) {
  Loss(v1::LOSS_KIND_HIDDEN).add_layers()->set_teacher(3);
  EXPECT_THAT(Refusal(), HasSubstr("'hidden.3' is not known; this teacher gives 'logits', 'embedding', 'hidden.2'"));
}

}  // namespace
}  // namespace polystill::student_worker
