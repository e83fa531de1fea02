# SentencePiece built static from its source archive by ./polystill setup: SentencePiece::sentencepiece.
# Never Debian's shared library: it exports another protobuf-lite than the one in this process.
set(SENTENCEPIECE_ROOT ${CMAKE_SOURCE_DIR}/.deps/sentencepiece CACHE PATH "Folder of SentencePiece, with include/ and lib/")
find_library(SENTENCEPIECE_LIBRARY NAMES libsentencepiece.a PATHS ${SENTENCEPIECE_ROOT}/lib NO_DEFAULT_PATH)
find_library(SENTENCEPIECE_TRAIN_LIBRARY NAMES libsentencepiece_train.a PATHS ${SENTENCEPIECE_ROOT}/lib NO_DEFAULT_PATH)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(SentencePiece
  REQUIRED_VARS SENTENCEPIECE_LIBRARY SENTENCEPIECE_TRAIN_LIBRARY
  REASON_FAILURE_MESSAGE "run ./polystill setup")
if(SentencePiece_FOUND AND NOT TARGET SentencePiece::sentencepiece)
  add_library(SentencePiece::sentencepiece INTERFACE IMPORTED)
  target_include_directories(SentencePiece::sentencepiece SYSTEM INTERFACE ${SENTENCEPIECE_ROOT}/include)
  target_link_libraries(SentencePiece::sentencepiece INTERFACE
    ${SENTENCEPIECE_TRAIN_LIBRARY} ${SENTENCEPIECE_LIBRARY} protobuf::libprotobuf-lite Threads::Threads)
endif()
