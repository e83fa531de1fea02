#pragma once

#include <grpcpp/channel.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/open_inference/grpc_service.grpc.pb.h"

namespace polystill::models {

// Bytes of the largest answer that an engine may give.
inline constexpr int kMaxEngineAnswerBytes = 1 << 30;

// A model in another process, or on another machine, asked by the Open Inference Protocol.
class InferenceEngine {
 public:
  virtual ~InferenceEngine() = default;
  // What the model takes and gives. Blocks.
  virtual absl::StatusOr<inference::ModelMetadataResponse> Metadata() = 0;
  // What the model makes of a batch. Blocks; thread-safe. UNAVAILABLE when asking again may succeed, INTERNAL when the
  // model fails.
  virtual absl::StatusOr<inference::ModelInferResponse> Infer(const inference::ModelInferRequest& request) = 0;
};

// Calls of one server of the protocol. Thread-safe.
class InferenceClient {
 public:
  // `target`: host:port or unix:/path. Connects lazily.
  explicit InferenceClient(const std::string& target);

  // Whether it is connected; begins to connect when it is not.
  bool Connected();
  // Waits for the server as long.
  grpc::Status Metadata(const inference::ModelMetadataRequest& request, std::chrono::seconds timeout,
                        inference::ModelMetadataResponse* metadata);
  // UNAVAILABLE at once where nobody listens.
  grpc::Status Infer(const inference::ModelInferRequest& request, std::chrono::seconds timeout,
                     inference::ModelInferResponse* response);

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<inference::GRPCInferenceService::Stub> stub_;
};

// An upstream server: what does not answer within `timeout` is UNAVAILABLE. Errors name model and address.
std::unique_ptr<InferenceEngine> MakeUpstreamEngine(const std::string& address, const std::string& model,
                                                    const std::string& version, std::chrono::seconds timeout);

}  // namespace polystill::models
