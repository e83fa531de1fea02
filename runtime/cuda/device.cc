#include "runtime/cuda/device.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/cuda/library.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::cuda {
namespace {

absl::StatusOr<std::string> FindLibrary() {
  ASSIGN_OR_RETURN(const std::string programs, ProgramFolder());
  const std::string file = absl::StrCat(programs, "/../lib/", kLibraryFile);
  if (std::filesystem::exists(file)) return file;
  return absl::FailedPreconditionError(
      absl::StrCat("device: cuda needs ", file, "; run ./polystill setup --cuda and then ./polystill build"));
}

absl::StatusOr<const Library*> Load() {
  ASSIGN_OR_RETURN(const std::string file, FindLibrary());
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
  const void* symbol = handle == nullptr ? nullptr : dlsym(handle, kLibrarySymbol);
  if (symbol != nullptr) return static_cast<const Library*>(symbol);
  return absl::FailedPreconditionError(absl::StrCat("cannot load ", file, ": ", dlerror()));
}

// Once in a process.
const absl::StatusOr<const Library*>& Loaded() {
  static const auto* const loaded = new absl::StatusOr<const Library*>(Load());
  return *loaded;
}

}  // namespace

absl::StatusOr<at::Device> OpenDevice(v1::Device device, int gpu) {
  if (device != v1::DEVICE_CUDA) return at::Device(at::kCPU);
  RETURN_IF_ERROR(Loaded().status());
  int count = 0;
  try {
    count = (*Loaded())->count_devices();
  } catch (const c10::Error& error) {
    return absl::FailedPreconditionError(absl::StrCat("device: cuda: ", error.what_without_backtrace()));
  }
  if (gpu < count) return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(gpu));
  return absl::FailedPreconditionError(absl::StrCat("there is no GPU ", gpu, " here, only 0 to ", count - 1,
                                                    "; let each process have one: --gpu, student.workers"));
}

at::Tensor ToDevice(const at::Tensor& host, at::Device device) {
  if (device.is_cpu() || !host.defined()) return host;
  return host.pin_memory().to(device, /*non_blocking=*/true);
}

at::Tensor ToHost(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.is_cpu()) return tensor;
  at::Tensor host = at::empty(tensor.sizes(), tensor.options().device(at::kCPU).pinned_memory(true));
  return host.copy_(tensor);
}

c10::Stream NewStream(at::Device device) { return c10::impl::VirtualGuardImpl(device.type()).getNewStream(device); }

c10::intrusive_ptr<c10d::Backend> MakeNccl(const c10::intrusive_ptr<c10d::Store>& store, int rank, int world_size,
                                           std::chrono::milliseconds timeout) {
  TORCH_CHECK(Loaded().ok(), std::string(Loaded().status().message()));
  return (*Loaded())->make_nccl(store, rank, world_size, timeout);
}

}  // namespace polystill::cuda
