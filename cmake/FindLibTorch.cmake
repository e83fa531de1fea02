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
  # A compiled model (.pt2) asks for libtorch.so by name; the wheel's brings CUDA with it. This one of the same name is
  # empty and needs what is linked anyway. Programs find it before the wheel's, beside bin/ in the build and installed.
  file(WRITE ${CMAKE_BINARY_DIR}/torch_soname.cc "// Empty: cmake/FindLibTorch.cmake says why.\n")
  add_library(torch_soname SHARED ${CMAKE_BINARY_DIR}/torch_soname.cc)
  set_target_properties(torch_soname PROPERTIES OUTPUT_NAME torch LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib/polystill)
  target_link_options(torch_soname PRIVATE -Wl,--no-as-needed -Wl,--allow-shlib-undefined)
  target_link_libraries(torch_soname PRIVATE ${LIBTORCH_CPU} ${LIBTORCH_C10})
  install(TARGETS torch_soname LIBRARY DESTINATION lib/polystill)
  add_library(LibTorch::cpu INTERFACE IMPORTED)
  # In a file, since CMake has no way of writing $ORIGIN into a link option; first, so that it is searched before the wheel.
  file(WRITE ${CMAKE_BINARY_DIR}/torch_soname.rpath "-rpath $ORIGIN/../lib/polystill")
  target_link_options(LibTorch::cpu INTERFACE -Wl,@${CMAKE_BINARY_DIR}/torch_soname.rpath)
  # -idirafter: the wheel carries an old google/protobuf that must not hide the system's.
  target_compile_options(LibTorch::cpu INTERFACE
    "SHELL:-idirafter ${LIBTORCH_ROOT}/include" "SHELL:-idirafter ${LIBTORCH_ROOT}/include/torch/csrc/api/include")
  target_compile_definitions(LibTorch::cpu INTERFACE USE_DISTRIBUTED USE_C10D_GLOO _GLIBCXX_USE_CXX11_ABI=1)
  # One word, which CMake keeps together: the linker would leave out a library without a symbol that anything needs.
  add_dependencies(LibTorch::cpu torch_soname)
  target_link_libraries(LibTorch::cpu INTERFACE
    -Wl,--push-state,--no-as-needed,$<TARGET_FILE:torch_soname>,--pop-state ${LIBTORCH_CPU} ${LIBTORCH_C10})
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
  else()
    message(STATUS "No libpolystill_cuda.so without CUDA and NCCL: ./polystill setup --cuda installs them")
  endif()
endif()
