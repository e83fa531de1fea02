# polystill_member: what a worker decides as a member of generations; without LibTorch, so that the simulation has it
# under every preset.
polystill_library(member
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/lineage.cc ${CMAKE_CURRENT_LIST_DIR}/member.cc
  LINK polystill_proto absl::status absl::statusor absl::strings)
polystill_test(member
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/lineage_test.cc ${CMAKE_CURRENT_LIST_DIR}/member_test.cc ${CMAKE_CURRENT_LIST_DIR}/phases_test.cc
  LINK polystill_member)
