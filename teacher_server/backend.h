#pragma once

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

// What a forward is to give.
struct Question {
  // Token ids of each record; none is empty.
  Rows ids;
  // "logits" or names of features, each once.
  std::vector<std::string> outputs;
  // For each record the places of the tokens whose logits are wanted, where logits are those of tokens; else unused.
  Rows positions;
};

// Where logits and features come from: the model behind a teacher server.
class Backend {
 public:
  virtual ~Backend() = default;
  // For each of the outputs its numbers, row-major [rows, width], record after record, all by one forward; a record's
  // numbers do not depend on the others. Thread-safe. INTERNAL when the model fails; numbers that
  // are not finite are the caller's matter.
  virtual absl::StatusOr<std::vector<std::vector<float>>> Forward(const Question& question) = 0;
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
  std::unique_ptr<Backend> backend = nullptr;
  Encode encode = {};  // empty when the input is ids
  // A row's logits have the same bits whatever rows come with it.
  bool repeatable = true;
};

}  // namespace polystill::teacher_server
