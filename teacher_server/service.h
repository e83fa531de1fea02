#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <set>

#include "absl/status/status.h"
#include "polystill/v1/teacher.grpc.pb.h"
#include "runtime/mutex.h"
#include "teacher_server/engine.h"
#include "teacher_server/label_call.h"
#include "teacher_server/label_stream.h"

namespace polystill::teacher_server {

// TeacherService on gRPC's callback API; Label and LabelStream take and give bytes (wire.h).
//
//   loading --Serve()--> serving --Drain()--> draining
//
// While loading and draining every new call is refused with UNAVAILABLE. Thread-safe.
class TeacherService final
    : public v1::TeacherService::WithCallbackMethod_Describe<
          v1::TeacherService::WithCallbackMethod_GetHead<v1::TeacherService::WithRawCallbackMethod_Label<
              v1::TeacherService::WithRawCallbackMethod_LabelStream<v1::TeacherService::Service>>>> {
 public:
  // Streams open at once; more are refused with RESOURCE_EXHAUSTED.
  static constexpr size_t kMaxStreams = 4'096;
  // Unary calls open at once; more are refused with RESOURCE_EXHAUSTED.
  static constexpr int kMaxCalls = 16'384;

  TeacherService() = default;
  // All calls have ended by then: the server is down.
  ~TeacherService() override = default;

  // Begins to answer. Once.
  void Serve(std::unique_ptr<Engine> engine);
  // Takes no more work, and waits at most `patience` until what was taken is answered. False when some is not.
  bool Drain(std::chrono::milliseconds patience);

  // Streams open now.
  size_t streams() {
    MutexLock lock(&mutex_);
    return streams_.size();
  }

 private:
  enum class State { kLoading, kServing, kDraining };

  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context, const v1::DescribeRequest* request,
                                     v1::DescribeReply* reply) override;
  grpc::ServerWriteReactor<v1::HeadChunk>* GetHead(grpc::CallbackServerContext* context,
                                                   const v1::GetHeadRequest* request) override;
  grpc::ServerUnaryReactor* Label(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* reply) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* LabelStream(
      grpc::CallbackServerContext* context) override;

  // Why no call may begin now, or OK.
  absl::Status Admit() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The same of a call that CallGone ends; counts it.
  absl::Status AdmitCall();
  void CallGone();
  void StreamGone(teacher_server::LabelStream* stream);

  std::unique_ptr<Engine> engine_;  // set once, before State::kServing; destroyed last

  Mutex mutex_;
  CondVar idle_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kLoading;
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;
  std::set<std::shared_ptr<teacher_server::LabelStream>> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace polystill::teacher_server
