#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include "absl/status/status.h"
#include "polystill/v1/teacher.pb.h"

namespace polystill::teacher_server {

// Requests are read as bytes and parsed here: gRPC shows a stream's message that does not parse as the end of the
// stream.

// INVALID_ARGUMENT when the bytes are no such message; the message then holds what was read until the error.
template <typename Message>
absl::Status Parse(grpc::ByteBuffer* bytes, Message* message) {
  if (grpc::SerializationTraits<Message>::Deserialize(bytes, message).ok()) return absl::OkStatus();
  return absl::InvalidArgumentError("the bytes received are not a " + message->GetTypeName());
}

template <typename Message>
grpc::ByteBuffer Pack(const Message& message) {
  grpc::ByteBuffer bytes;
  bool own = false;
  grpc::SerializationTraits<Message>::Serialize(message, &bytes, &own);
  return bytes;
}

// The LabelStreamReply that holds `reply`. Payloads of labels from 4 KiB on are not copied: each lies in a slice of its
// own, which gRPC hands to the kernel.
grpc::ByteBuffer PackReply(v1::LabelReply reply);

}  // namespace polystill::teacher_server
