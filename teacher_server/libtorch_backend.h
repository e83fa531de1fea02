#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/status/statusor.h"
#include "teacher_server/backend.h"

namespace polystill::teacher_server {

// The teacher of a package folder (native checkpoint, TorchScript or AOTInductor), in this process. Forwards run at
// fixed shapes (models::FixedShapeForward), so that labels are bit-equal to in-process ones with the same number of
// `threads`. `device`: an open one (cuda::OpenDevice); on a GPU it computes on a stream of its own. Errors are those of
// models::LoadPackage and of loading the tokeniser.
absl::StatusOr<Teacher> LoadTeacher(const std::string& folder, int threads, at::Device device = at::kCPU);

}  // namespace polystill::teacher_server
