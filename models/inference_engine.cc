#include "models/inference_engine.h"

#include <climits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/rpc.h"

namespace polystill::models {
namespace {

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxEngineAnswerBytes);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // A Python process's socket has no name any more once it is connected: it must stay so.
  arguments.SetInt(GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS, INT_MAX);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  return arguments;
}

// Whether asking again may help, by gRPC's code. An answer that is too large stays so.
bool MayPass(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return true;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return !absl::StrContains(status.error_message(), "message larger than max");
    default:
      return false;
  }
}

class UpstreamEngine final : public InferenceEngine {
 public:
  UpstreamEngine(const std::string& address, const std::string& model, const std::string& version,
                 std::chrono::seconds timeout)
      : client_(address),
        model_(model),
        version_(version),
        where_(absl::StrCat("model '", model, "' of the inference server at ", address)),
        timeout_(timeout) {}

  absl::StatusOr<inference::ModelMetadataResponse> Metadata() override {
    inference::ModelMetadataRequest request;
    request.set_name(model_);
    request.set_version(version_);
    inference::ModelMetadataResponse metadata;
    const grpc::Status status = client_.Metadata(request, timeout_, &metadata);
    if (status.ok()) return metadata;
    return Error(status);
  }

  absl::StatusOr<inference::ModelInferResponse> Infer(const inference::ModelInferRequest& request) override {
    inference::ModelInferResponse response;
    const grpc::Status status = client_.Infer(request, timeout_, &response);
    if (status.ok()) return response;
    return Error(status);
  }

 private:
  absl::Status Error(const grpc::Status& status) const {
    if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      return absl::UnavailableError(
          absl::StrCat(where_, " gave no answer within ", timeout_.count(), " s (upstream.answer_seconds)"));
    }
    const std::string message = absl::StrCat(where_, ": ", status.error_message());
    return MayPass(status) ? absl::UnavailableError(message) : absl::InternalError(message);
  }

  InferenceClient client_;
  const std::string model_, version_;
  const std::string where_;
  const std::chrono::seconds timeout_;
};

}  // namespace

InferenceClient::InferenceClient(const std::string& target)
    : channel_(ConnectWith(target, Arguments())), stub_(inference::GRPCInferenceService::NewStub(channel_)) {}

bool InferenceClient::Connected() { return channel_->GetState(/*try_to_connect=*/true) == GRPC_CHANNEL_READY; }

grpc::Status InferenceClient::Metadata(const inference::ModelMetadataRequest& request, std::chrono::seconds timeout,
                                       inference::ModelMetadataResponse* metadata) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  context.set_wait_for_ready(true);
  return stub_->ModelMetadata(&context, request, metadata);
}

grpc::Status InferenceClient::Infer(const inference::ModelInferRequest& request, std::chrono::seconds timeout,
                                    inference::ModelInferResponse* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  return stub_->ModelInfer(&context, request, response);
}

std::unique_ptr<InferenceEngine> MakeUpstreamEngine(const std::string& address, const std::string& model,
                                                    const std::string& version, std::chrono::seconds timeout) {
  return std::make_unique<UpstreamEngine>(address, model, version, timeout);
}

}  // namespace polystill::models
