# Arrow and Parquet from the pyarrow wheel: Arrow::parquet. ARROW_ROOT: the folder that holds include/ and the libraries;
# the project's virtual environment when unset.
if(NOT ARROW_ROOT)
  file(GLOB _arrow ${CMAKE_SOURCE_DIR}/.venv/lib/python3.*/site-packages/pyarrow)
  set(ARROW_ROOT ${_arrow} CACHE PATH "Folder of Arrow, with include/ and the libraries" FORCE)
endif()
file(GLOB ARROW_LIBRARY ${ARROW_ROOT}/libarrow.so.[0-9]*00)
file(GLOB ARROW_PARQUET_LIBRARY ${ARROW_ROOT}/libparquet.so.[0-9]*00)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(ArrowWheel
  REQUIRED_VARS ARROW_LIBRARY ARROW_PARQUET_LIBRARY
  REASON_FAILURE_MESSAGE "run ./polystill setup, or give -DARROW_ROOT=/path/to/pyarrow")
if(ArrowWheel_FOUND AND NOT TARGET Arrow::parquet)
  add_library(Arrow::parquet INTERFACE IMPORTED)
  target_compile_options(Arrow::parquet INTERFACE "SHELL:-idirafter ${ARROW_ROOT}/include")
  target_link_libraries(Arrow::parquet INTERFACE ${ARROW_PARQUET_LIBRARY} ${ARROW_LIBRARY})
  target_link_options(Arrow::parquet INTERFACE -Wl,-rpath,${ARROW_ROOT})
endif()
