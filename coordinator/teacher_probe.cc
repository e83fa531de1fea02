#include "coordinator/teacher_probe.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "polystill/v1/teacher.grpc.pb.h"
#include "runtime/rpc.h"

namespace polystill::coordinator {

struct TeacherProbe::Call {
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::TeacherService::Stub> stub;
  grpc::ClientContext context;
  v1::DescribeRequest request;
  v1::DescribeReply reply;
};

namespace {

absl::StatusOr<v1::DescribeReply> ReplyOf(const grpc::Status& status, const v1::DescribeReply& reply) {
  if (status.ok()) return reply;
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return absl::DeadlineExceededError(
        absl::StrCat("no teacher server answered there within ", TeacherProbe::kPatience.count(), " s"));
  }
  return FromGrpc(status);
}

}  // namespace

TeacherProbe::TeacherProbe(EventQueue* events) : events_(events) {}

void TeacherProbe::Describe(const std::string& teacher, const std::string& address) {
  auto owned = std::make_unique<Call>();
  Call* const call = owned.get();
  call->channel = Connect(address);
  call->stub = v1::TeacherService::NewStub(call->channel);
  call->context.set_wait_for_ready(true);
  call->context.set_deadline(std::chrono::system_clock::now() + kPatience);
  call->request.set_protocol_version(kProtocolVersion);
  {
    MutexLock lock(&mutex_);
    calls_.push_back(std::move(owned));
    ++under_way_;
  }
  call->stub->async()->Describe(&call->context, &call->request, &call->reply,
                                [this, call, teacher](grpc::Status status) {
                                  events_->Post(TeacherDescribed{teacher, ReplyOf(status, call->reply)});
                                  MutexLock lock(&mutex_);
                                  --under_way_;
                                  idle_.NotifyAll();
                                });
}

TeacherProbe::~TeacherProbe() {
  MutexLock lock(&mutex_);
  for (const auto& call : calls_) call->context.TryCancel();
  while (under_way_ > 0) idle_.Wait(&mutex_);
}

}  // namespace polystill::coordinator
