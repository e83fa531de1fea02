#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/package.pb.h"

namespace polystill::checkpoint {

// Reads a manifest whose key `format` must be `format`: that is looked at first, so that a file of a later version is
// refused as such and not for its unknown keys. INVALID_ARGUMENT names file, line and key.
absl::Status ReadManifest(const std::string& yaml, const std::string& file, const std::string& format,
                          google::protobuf::Message* message);

// What a manifest says of a file.
v1::FileDigest DigestOf(const std::string& name, std::string_view content);

// DATA_LOSS, naming `file`, unless `content` has the size and SHA-256 of `expected`.
absl::Status CheckDigest(const v1::FileDigest& expected, std::string_view content, const std::string& file);

// YAML whose last line is the SHA-256 of the lines before it, as `sha256: ...`.
std::string SealManifest(const std::string& yaml);

// DATA_LOSS, naming `file`, unless YAML is as SealManifest left it.
absl::Status CheckSeal(const std::string& yaml, const std::string& file);

// MANIFEST.yaml, sealed.
std::string FormatCheckpointManifest(const v1::CheckpointManifest& manifest);
absl::StatusOr<v1::CheckpointManifest> ParseCheckpointManifest(const std::string& yaml, const std::string& file);

}  // namespace polystill::checkpoint
