# One target a folder. polystill_library(NAME SOURCES ... LINK ...) makes the static library polystill_NAME;
# polystill_binary(NAME SOURCES ... LINK ...) makes an installed program; polystill_test(NAME SOURCES ... LINK ...) makes
# the GoogleTest program NAME_test, whose cases ctest knows one by one. Each build folder has a folder of its own for their
# files, so that the tests of two trees do not meet; outside the tree, whose files they must not find.

add_library(polystill_options INTERFACE)
target_include_directories(polystill_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(polystill_options INTERFACE -Wall -Wextra -Werror)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(polystill_options INTERFACE -Wthread-safety)
endif()

function(polystill_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_library(polystill_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(polystill_${name} PUBLIC ${ARG_LINK} PRIVATE polystill_options)
  target_include_directories(polystill_${name} PUBLIC ${CMAKE_SOURCE_DIR})
endfunction()

function(polystill_binary name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} polystill_options)
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

string(MD5 POLYSTILL_TREE ${CMAKE_BINARY_DIR})
set(POLYSTILL_TEST_FILES /tmp/polystill-test-${POLYSTILL_TREE})
file(WRITE ${CMAKE_BINARY_DIR}/test_files.cmake "file(MAKE_DIRECTORY ${POLYSTILL_TEST_FILES})")
set_property(DIRECTORY ${CMAKE_SOURCE_DIR} APPEND PROPERTY TEST_INCLUDE_FILES ${CMAKE_BINARY_DIR}/test_files.cmake)
function(polystill_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name}_test ${ARG_SOURCES})
  target_link_libraries(${name}_test PRIVATE ${ARG_LINK} polystill_options GTest::gmock GTest::gtest GTest::gtest_main)
  set_target_properties(${name}_test PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test)
  gtest_discover_tests(${name}_test WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} DISCOVERY_TIMEOUT 60
                       PROPERTIES TIMEOUT 300 ENVIRONMENT TEST_TMPDIR=${POLYSTILL_TEST_FILES})
endfunction()
