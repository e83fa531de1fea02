#include "teacher_server/label_call.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "runtime/rpc.h"
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

LabelCall::LabelCall(Engine* engine, const grpc::CallbackServerContext& context, grpc::ByteBuffer bytes,
                     grpc::ByteBuffer* response, std::function<void()> gone)
    : gone_(std::move(gone)) {
  v1::LabelRequest request;
  absl::Status status = Parse(&bytes, &request);
  if (status.ok()) {
    const uint64_t id = request.request_id();
    status = engine->Ask(std::move(request), DeadlineOf(context), cancelled_,
                         [this, engine, id, response](absl::StatusOr<Answer> answer) {
                           if (!answer.ok()) return Finish(ToGrpc(answer.status()));
                           *response = Pack(engine->Reply(id, std::move(answer)));
                           Finish(grpc::Status::OK);
                         });
  } else if (const absl::Status bad_text = FindBadText(request); !bad_text.ok()) {
    status = bad_text;
  }
  if (!status.ok()) Finish(ToGrpc(status));
}

void LabelCall::OnDone() {
  gone_();
  delete this;
}

}  // namespace polystill::teacher_server
