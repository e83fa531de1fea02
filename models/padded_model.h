#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "models/model.h"

namespace polystill::models {

// A model that somebody else wrote, as a file or behind an engine: forward(ids [rows, length] int64, mask [rows,
// length] bool). A batch is padded with id 0 (PadToBucket, at most max_length); the mask is true where a token is. It
// gives "logits" of a floating type, [rows, classes], or [rows, length, classes] when its task judges tokens, and
// features, "embedding" [rows, width] and "hidden.N" [rows, length, width]; features alone when the shape has no
// classes.
class PaddedModel : public Model {
 public:
  // What forward gives, before it is brought into rows of tokens.
  struct Answer {
    at::Tensor logits;
    std::map<std::string, at::Tensor> features;
  };

  Outputs Forward(const TokenBatch& batch) const final;
  Takes takes() const override { return Takes::kPaddedRows; }
  bool judges_tokens() const final { return judges_tokens_; }
  const std::map<std::string, int64_t>& feature_widths() const final { return feature_widths_; }

  // Tries a batch of `rows`: INVALID_ARGUMENT unless its answer is as above and finite. The model knows its features
  // afterwards. Throws what Run throws.
  absl::Status Try(const Rows& rows);

 protected:
  // Task, classes and max_length count.
  explicit PaddedModel(const ModelShape& shape);

  // One forward; throws c10::Error when it fails. `batch` is what `padded` was made from.
  virtual Answer Run(const TokenBatch& batch, const PaddedBatch& padded) const = 0;

 private:
  absl::Status Check(const Answer& answer, const PaddedBatch& padded) const;

  // Longest row, in tokens.
  const int64_t max_length_;
  const int64_t classes_;
  const bool judges_tokens_;
  std::map<std::string, int64_t> feature_widths_;
};

}  // namespace polystill::models
