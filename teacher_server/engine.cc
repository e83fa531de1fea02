#include "teacher_server/engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/outputs.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "soft_labels/compression.h"
#include "teacher_server/answer_parts.h"
#include "teacher_server/validation.h"

namespace polystill::teacher_server {
namespace {

constexpr int64_t kReplyOverheadBytes = 4'096;
constexpr int64_t kStreamAnswerBytes = 64 << 20;

v1::DescribeReply Describe(const Teacher& teacher, const EngineOptions& options, bool caches) {
  v1::DescribeReply description;
  description.set_protocol_version(kProtocolVersion);
  description.set_name(teacher.name);
  description.set_digest(teacher.digest);
  *description.mutable_signature() = teacher.signature;
  description.set_stream_credits(options.stream_credits);
  description.set_max_records_per_request(options.max_records_per_request);
  description.set_repeatable(teacher.repeatable);
  description.mutable_features()->Assign(teacher.features.begin(), teacher.features.end());
  description.set_tokenizer_sha256(teacher.tokenizer_sha256);
  if (teacher.head.description.width() > 0) *description.mutable_head() = teacher.head.description;
  description.set_backend(teacher.backend_name);
  description.set_caches(caches);
  return description;
}

// By the thread that computed the answer, or found it in the cache.
Engine::Done Compressing(Engine::Done done) {
  return [done = std::move(done)](absl::StatusOr<Answer> answer) {
    if (answer.ok()) {
      for (v1::SoftLabels& labels : *answer) soft_labels::Compress(&labels);
    }
    done(std::move(answer));
  };
}

}  // namespace

EngineOptions FitToTeacher(EngineOptions options, const v1::Signature& signature) {
  const int64_t classes = models::LogitCount(signature.task(), signature.labels_size(), signature.vocab_size());
  const int64_t row_bytes = sizeof(float) * std::max<int64_t>(1, classes);
  // Rows that do not fit one are for the packed codecs; requests are checked one by one (CheckAnswerSize).
  const int64_t rows_of_a_message = std::max<int64_t>(1, (kMaxMessageBytes - kReplyOverheadBytes) / row_bytes);
  const auto lower = [](auto& limit, int64_t most) { limit = std::max<int64_t>(1, std::min<int64_t>(limit, most)); };
  lower(options.max_records_per_request, rows_of_a_message);
  lower(options.stream_credits, std::max(rows_of_a_message, kStreamAnswerBytes / row_bytes));
  lower(options.max_records_per_request, options.stream_credits);
  return options;
}

Engine::Engine(Teacher teacher, EngineOptions options, Batcher::Now now, TeacherMetrics* metrics, LabelCache* cache)
    : options_(options),
      now_(now),
      metrics_(metrics),
      description_(Describe(teacher, options, cache != nullptr)),
      labeller_(std::move(teacher), description_, options.memo_bytes),
      batcher_(
          options.batch, options.queue, options.threads,
          [this](const std::vector<const v1::LabelRequest*>& requests) { return labeller_.Label(requests); },
          std::move(now), metrics) {
  if (cache == nullptr) return;
  cached_.emplace(cache, AnswerPartsOf(description_), [this](v1::LabelRequest request, Requester requester, Done done) {
    return Queue(std::move(request), std::move(requester), std::move(done));
  });
  cache_thread_.emplace(&*cached_);
}

absl::Status Engine::Ask(v1::LabelRequest request, Requester requester, Done done) {
  const bool compresses = request.compression() == v1::COMPRESSION_ZSTD;
  if (metrics_ == nullptr && compresses) done = Compressing(std::move(done));
  if (metrics_ == nullptr) return Check(std::move(request), std::move(requester), std::move(done));
  const v1::Priority priority = request.priority();
  Done counted = [metrics = metrics_, priority, tenant = requester.tenant, records = request.inputs_size(),
                  done = std::move(done)](absl::StatusOr<Answer> answer) {
    int64_t labels = 0, bytes = 0;
    if (answer.ok()) {
      labels = records * static_cast<int64_t>(answer->size());
      for (const v1::SoftLabels& of_output : *answer) bytes += static_cast<int64_t>(of_output.ByteSizeLong());
    }
    metrics->Answered(answer.status());
    metrics->Labelled(priority, tenant, labels, bytes);
    done(std::move(answer));
  };
  if (compresses) counted = Compressing(std::move(counted));
  const absl::Status status = Check(std::move(request), std::move(requester), std::move(counted));
  if (!status.ok()) metrics_->Answered(status);
  return status;
}

absl::Status Engine::Check(v1::LabelRequest request, Requester requester, Done done) {
  RETURN_IF_ERROR(CheckRequest(request, description_));
  RETURN_IF_ERROR(CheckAnswerSize(request, description_, options_.batch.max_bytes));
  if (request.spec().codec() == v1::CODEC_UNSPECIFIED) request.mutable_spec()->set_codec(v1::CODEC_DENSE_FP32);
  if (request.timeout_ms() > 0) {
    constexpr int64_t kDayMs = 86'400'000;
    const Time end = now_() + std::chrono::milliseconds(std::min(request.timeout_ms(), kDayMs));
    requester.deadline = std::min(requester.deadline, end);
  }
  if (!cache_thread_.has_value() || request.afresh())
    return Queue(std::move(request), std::move(requester), std::move(done));
  cache_thread_->Ask(std::move(request), std::move(requester), std::move(done));
  return absl::OkStatus();
}

absl::Status Engine::Queue(v1::LabelRequest request, Requester requester, Done done) {
  LabelTask task;
  task.tokens = TokensAtMost(request, description_);
  task.answer_bytes = AnswerBytesOf(request, description_).in_memory;
  task.request = std::move(request);
  task.requester = std::move(requester);
  task.done = std::move(done);
  return batcher_.Submit(std::move(task));
}

v1::LabelReply Engine::Reply(uint64_t request_id, absl::StatusOr<Answer> answer) const {
  v1::LabelReply reply;
  reply.set_request_id(request_id);
  reply.set_teacher_digest(description_.digest());
  if (answer.ok()) {
    for (v1::SoftLabels& labels : *answer) *reply.add_labels() = std::move(labels);
    return reply;
  }
  reply.set_code(static_cast<int>(answer.status().code()));
  reply.set_message(std::string(answer.status().message()));
  if (absl::IsResourceExhausted(answer.status()) || absl::IsUnavailable(answer.status())) {
    reply.set_retry_after_ms(options_.retry_after_ms);
  }
  return reply;
}

}  // namespace polystill::teacher_server
