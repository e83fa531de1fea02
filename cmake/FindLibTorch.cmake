# LibTorch without a CUDA toolkit (the wheel's own find_package wants one): LibTorch::cpu is torch_cpu and c10 alone.
# LibTorch::cuda, where the wheels of CUDA and NCCL lie beside it: what libpolystill_cuda.so is made of.
# LIBTORCH_ROOT: the folder that holds include/ and lib/; the project's virtual environment when unset.
if(NOT LIBTORCH_ROOT)
  file(GLOB _torch ${CMAKE_SOURCE_DIR}/.venv/lib/python3.*/site-packages/torch)
  set(LIBTORCH_ROOT ${_torch} CACHE PATH "Folder of LibTorch, with include/ and lib/" FORCE)
endif()
find_library(LIBTORCH_CPU torch_cpu PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
find_library(LIBTORCH_C10 c10 PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
# The wheel's torch_cpu needs these two of its neighbours to load.
file(GLOB _cuda_dirs ${LIBTORCH_ROOT}/../nvidia/cu13/lib ${LIBTORCH_ROOT}/../nvidia/*/lib)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LIBTORCH_CPU LIBTORCH_C10
  REASON_FAILURE_MESSAGE "run ./polystill setup, or give -DLIBTORCH_ROOT=/path/to/libtorch")
if(LibTorch_FOUND AND NOT TARGET LibTorch::cpu)
  add_library(LibTorch::cpu INTERFACE IMPORTED)
  # -idirafter: the wheel carries an old google/protobuf that must not hide the system's.
  target_compile_options(LibTorch::cpu INTERFACE
    "SHELL:-idirafter ${LIBTORCH_ROOT}/include" "SHELL:-idirafter ${LIBTORCH_ROOT}/include/torch/csrc/api/include")
  target_compile_definitions(LibTorch::cpu INTERFACE USE_DISTRIBUTED USE_C10D_GLOO _GLIBCXX_USE_CXX11_ABI=1)
  target_link_libraries(LibTorch::cpu INTERFACE ${LIBTORCH_CPU} ${LIBTORCH_C10})
  target_link_options(LibTorch::cpu INTERFACE -Wl,-rpath,${LIBTORCH_ROOT}/lib -Wl,--allow-shlib-undefined)
  foreach(_dir ${_cuda_dirs})
    target_link_options(LibTorch::cpu INTERFACE -Wl,-rpath,${_dir})
  endforeach()
  find_library(LIBTORCH_CUDA torch_cuda PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
  find_library(LIBTORCH_C10_CUDA c10_cuda PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
  find_path(LIBTORCH_CUDA_INCLUDE cuda_runtime_api.h PATHS ${LIBTORCH_ROOT}/../nvidia/cu13/include NO_DEFAULT_PATH)
  find_path(LIBTORCH_NCCL_INCLUDE nccl.h PATHS ${LIBTORCH_ROOT}/../nvidia/nccl/include NO_DEFAULT_PATH)
  if(LIBTORCH_CUDA AND LIBTORCH_C10_CUDA AND LIBTORCH_CUDA_INCLUDE AND LIBTORCH_NCCL_INCLUDE)
    add_library(LibTorch::cuda INTERFACE IMPORTED)
    target_compile_options(LibTorch::cuda INTERFACE
      "SHELL:-idirafter ${LIBTORCH_CUDA_INCLUDE}" "SHELL:-idirafter ${LIBTORCH_NCCL_INCLUDE}")
    target_compile_definitions(LibTorch::cuda INTERFACE USE_C10D_NCCL)
    target_link_libraries(LibTorch::cuda INTERFACE LibTorch::cpu ${LIBTORCH_CUDA} ${LIBTORCH_C10_CUDA})
  endif()
endif()
