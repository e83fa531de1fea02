#include "checkpoint/manifest.h"

#include "runtime/sha256.h"
#include "runtime/status.h"
#include "runtime/yaml_proto.h"
#include "runtime/yaml_tree.h"

namespace polystill::checkpoint {
namespace {

constexpr char kFormat[] = "polystill.checkpoint/1";
constexpr char kDigestKey[] = "sha256: ";

}  // namespace

absl::Status ReadManifest(const std::string& yaml, const std::string& file, const std::string& format,
                          google::protobuf::Message* message) {
  ASSIGN_OR_RETURN(YamlTree tree, ParseYaml(yaml, file));
  const YamlTree* written = tree.Find("format");
  if (written == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": format: missing; write `format: ", format, "`"));
  }
  if (written->scalar != format) {
    return absl::InvalidArgumentError(absl::StrCat(file, ":", written->line, ": format: '", written->scalar,
                                                   "' is not known to this build, which reads ", format));
  }
  return ReadYaml(yaml, file, {}, message);
}

v1::FileDigest DigestOf(const std::string& name, std::string_view content) {
  v1::FileDigest digest;
  digest.set_name(name);
  digest.set_bytes(static_cast<int64_t>(content.size()));
  digest.set_sha256(Sha256Hex(content));
  return digest;
}

absl::Status CheckDigest(const v1::FileDigest& expected, std::string_view content, const std::string& file) {
  if (static_cast<int64_t>(content.size()) != expected.bytes()) {
    return absl::DataLossError(
        absl::StrCat(file, ": has ", content.size(), " bytes, its manifest says ", expected.bytes()));
  }
  if (Sha256Hex(content) != expected.sha256()) {
    return absl::DataLossError(absl::StrCat(file, ": its SHA-256 is not the one in its manifest"));
  }
  return absl::OkStatus();
}

std::string SealManifest(const std::string& yaml) { return absl::StrCat(yaml, kDigestKey, Sha256Hex(yaml), "\n"); }

absl::Status CheckSeal(const std::string& yaml, const std::string& file) {
  const size_t last_line = yaml.rfind(absl::StrCat("\n", kDigestKey)) + 1;
  if (yaml == SealManifest(yaml.substr(0, last_line))) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(file, ": its last line is not the SHA-256 of the lines before: it is torn"));
}

std::string FormatCheckpointManifest(const v1::CheckpointManifest& manifest) {
  v1::CheckpointManifest body = manifest;
  body.set_format(kFormat);
  body.clear_sha256();
  return SealManifest(WriteYaml(body));
}

absl::StatusOr<v1::CheckpointManifest> ParseCheckpointManifest(const std::string& yaml, const std::string& file) {
  RETURN_IF_ERROR(CheckSeal(yaml, file));
  v1::CheckpointManifest manifest;
  RETURN_IF_ERROR(ReadManifest(yaml, file, kFormat, &manifest));
  return manifest;
}

}  // namespace polystill::checkpoint
