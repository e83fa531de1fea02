#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "teacher_server/backend.h"

namespace polystill::teacher_server {

// The teacher of a package folder: native checkpoint, TorchScript or AOTInductor, in this process; or in Python
// processes of its own or behind an inference server (models/inference_model.h). Forwards run at fixed shapes
// (models::FixedShapeForward) and on one thread, whichever calls, so that labels are bit-equal to in-process ones of
// one thread. `device`: an open one (cuda::OpenDevice); on a GPU each thread computes on a stream of its own. Errors
// are those of models::LoadPackage and of loading the tokeniser.
// `restarted` is called whenever a Python process is started again, by any thread.
absl::StatusOr<Teacher> LoadTeacher(const std::string& folder, at::Device device = at::kCPU,
                                    std::function<void()> restarted = {});

}  // namespace polystill::teacher_server
