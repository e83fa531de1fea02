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

// Where logits come from: the model behind a teacher server.
class Backend {
 public:
  virtual ~Backend() = default;
  // Logits of `rows` of token ids (none is empty), row-major [rows, classes]; a row's logits do not depend on the
  // others. Called by one thread at a time. INTERNAL when the model fails; values that are not finite are the caller's
  // matter.
  virtual absl::StatusOr<std::vector<float>> Forward(const std::vector<std::vector<int32_t>>& rows) = 0;
};

// Text to token ids: at most max_length of them, at least one.
using Encode = std::function<std::vector<int32_t>(std::string_view text)>;

// A teacher in memory.
struct Teacher {
  std::string name;
  // Lower-case hex SHA-256 of its package.
  std::string digest;
  v1::Signature signature = {};
  std::unique_ptr<Backend> backend = nullptr;
  Encode encode = {};  // empty when the input is ids
  // A row's logits have the same bits whatever rows come with it.
  bool repeatable = true;
};

}  // namespace polystill::teacher_server
