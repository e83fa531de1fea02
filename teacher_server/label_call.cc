#include "teacher_server/label_call.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "runtime/rpc.h"
#include "teacher_server/call_tenant.h"
#include "teacher_server/validation.h"
#include "teacher_server/wire.h"

namespace polystill::teacher_server {
namespace {

// gRPC's deadline on the clock of the batcher; a day when there is none.
Time DeadlineOf(const grpc::CallbackServerContext& context) {
  using std::chrono::nanoseconds;
  const auto left =
      std::min<nanoseconds>(context.deadline() - std::chrono::system_clock::now(), std::chrono::hours(24));
  return std::chrono::steady_clock::now() + left;
}

}  // namespace

LabelCall::LabelCall(Engine* engine, grpc::CallbackServerContext* context, grpc::ByteBuffer bytes,
                     grpc::ByteBuffer* response, std::function<void()> gone)
    : engine_(engine), context_(context), gone_(std::move(gone)) {
  v1::LabelRequest request;
  absl::Status status = Parse(&bytes, &request);
  const absl::StatusOr<std::string> tenant = TenantOf(*context);
  if (!tenant.ok()) {
    status = tenant.status();
  } else if (status.ok()) {
    const uint64_t id = request.request_id();
    status = engine->Ask(std::move(request), {*tenant, DeadlineOf(*context), cancelled_},
                         [this, id, response](absl::StatusOr<Answer> answer) {
                           if (!answer.ok()) return Refuse(answer.status());
                           *response = Pack(engine_->Reply(id, std::move(answer)));
                           Finish(grpc::Status::OK);
                         });
  } else if (const absl::Status bad_text = FindBadText(request); !bad_text.ok()) {
    status = bad_text;
  }
  if (!status.ok()) Refuse(status);
}

void LabelCall::Refuse(const absl::Status& status) {
  const int64_t retry_after_ms = engine_->Reply(0, status).retry_after_ms();
  if (retry_after_ms > 0) AddRetryAfter(context_, retry_after_ms);
  Finish(ToGrpc(status));
}

void LabelCall::OnDone() {
  gone_();
  delete this;
}

}  // namespace polystill::teacher_server
