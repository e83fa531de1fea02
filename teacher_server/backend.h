#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"

namespace polystill::teacher_server {

// Lists of numbers, one a record: token ids, or places among them.
using Rows = std::vector<std::vector<int32_t>>;

// The layer that makes logits, as those get it who ask for what it reads (codec hidden_head).
struct HeadFile {
  // What DescribeReply says of it; unset where the teacher has none.
  v1::Head description = {};
  // The safetensors file.
  std::string bytes = {};
};

// An output's name in a question, in place of the logits: what the teacher's head reads.
inline constexpr char kHeadInput[] = "head_input";

// What a forward is to give.
struct Question {
  // Token ids of each record; none is empty.
  Rows ids;
  // "logits" or kHeadInput, and names of features, each once.
  std::vector<std::string> outputs;
  // For each record the places of the tokens whose logits are wanted, where logits are those of tokens; else unused.
  Rows positions;
};

// Where logits and features come from: the model behind a teacher server.
class Backend {
 public:
  virtual ~Backend() = default;
  // For each of the outputs its numbers, float32 [rows, width], record after record, all by one forward, on whichever
  // device they are; a record's numbers do not depend on the others. Thread-safe. INTERNAL when the model fails,
  // UNAVAILABLE when it is elsewhere and does not answer; numbers that are not finite are the caller's matter.
  virtual absl::StatusOr<std::vector<at::Tensor>> Forward(const Question& question) = 0;
};

// Text to token ids: at most max_length of them, at least one.
using Encode = std::function<std::vector<int32_t>(std::string_view text)>;

// A teacher in memory.
struct Teacher {
  std::string name;
  // Lower-case hex SHA-256 of its package.
  std::string digest;
  v1::Signature signature = {};
  // What it gives beside logits.
  std::vector<v1::Feature> features = {};
  // Lower-case hex SHA-256 of the tokeniser's file; empty when the input is ids.
  std::string tokenizer_sha256 = {};
  HeadFile head = {};
  // As in DescribeReply. The number is raised when the last bits of labels change.
  std::string backend_name = "libtorch/cpu/2";
  // Batches that its engine takes at once; 0: as many as the server has threads for (EngineOptions::threads).
  int batches_at_once = 0;
  std::unique_ptr<Backend> backend = nullptr;
  Encode encode = {};  // empty when the input is ids
  // A row's logits have the same bits whatever rows come with it.
  bool repeatable = true;
};

}  // namespace polystill::teacher_server
