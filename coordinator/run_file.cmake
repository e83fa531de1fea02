# polystill_run_file: the run file and the jobs that follow from it; without LibTorch, so that the command line has it.
polystill_library(run_file
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/address_file.cc ${CMAKE_CURRENT_LIST_DIR}/jobs.cc ${CMAKE_CURRENT_LIST_DIR}/kind_rules.cc
          ${CMAKE_CURRENT_LIST_DIR}/run_file.cc ${CMAKE_CURRENT_LIST_DIR}/run_file_rules.cc
          ${CMAKE_CURRENT_LIST_DIR}/spec_difference.cc ${CMAKE_CURRENT_LIST_DIR}/status_file.cc
          ${CMAKE_CURRENT_LIST_DIR}/store_rules.cc ${CMAKE_CURRENT_LIST_DIR}/task_rules.cc
  LINK polystill_proto polystill_codecs polystill_store_manifest polystill_runtime absl::status absl::statusor absl::strings spdlog::spdlog)
