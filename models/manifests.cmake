# polystill_manifests: the YAML beside weights on the disk, digests of packages, names of checkpoints; without LibTorch, so that the command
# line and the coordinator have them.
polystill_library(manifests
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/package_manifest.cc ${CMAKE_CURRENT_LIST_DIR}/../checkpoint/manifest.cc
          ${CMAKE_CURRENT_LIST_DIR}/../checkpoint/path.cc
  LINK polystill_proto polystill_runtime absl::status absl::statusor absl::strings)
