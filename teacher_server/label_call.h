#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>

#include "teacher_server/engine.h"

namespace polystill::teacher_server {

// One unary Label call: parse, ask the engine, finish. Destroys itself when gRPC is done with it.
class LabelCall final : public grpc::ServerUnaryReactor {
 public:
  // `gone` is called last.
  LabelCall(Engine* engine, grpc::CallbackServerContext* context, grpc::ByteBuffer request, grpc::ByteBuffer* response,
            std::function<void()> gone);

 private:
  void OnCancel() override { *cancelled_ = true; }
  void OnDone() override;
  // With the engine's hint when to ask again, where that may help.
  void Refuse(const absl::Status& status);

  Engine* const engine_;
  grpc::CallbackServerContext* const context_;
  const std::function<void()> gone_;
  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace polystill::teacher_server
