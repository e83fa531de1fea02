#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "polystill/v1/package.pb.h"

namespace polystill::models {

// Names of a package's files.
inline constexpr char kManifestFile[] = "teacher.yaml";
inline constexpr char kWeightsFile[] = "model.safetensors";
inline constexpr char kScriptFile[] = "model.pt";
inline constexpr char kAotFile[] = "model.pt2";

inline constexpr char kPackageFormat[] = "polystill.package/1";

// Reads folder/teacher.yaml and checks every key, and size and SHA-256 of the files that it lists. NOT_FOUND,
// INVALID_ARGUMENT (names file and key), DATA_LOSS (names the torn file).
absl::StatusOr<v1::PackageManifest> ReadPackageManifest(const std::string& folder);

// PackageInfo::digest of a folder. INVALID_ARGUMENT when it holds something that is neither a file nor a folder.
absl::StatusOr<std::string> PackageDigest(const std::string& folder);

}  // namespace polystill::models
