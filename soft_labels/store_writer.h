#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "polystill/v1/package.pb.h"
#include "soft_labels/store_columns.h"

namespace polystill::soft_labels {

// Writes one part of a label store under a temporary, hidden name and renames it in Finish; without Finish nothing
// stays. Rows are gathered to row groups of about kRowGroupBytes, so that a reader of single records reads little else.
// The same records give the same bytes. Not thread-safe.
class PartWriter {
 public:
  static constexpr int64_t kRowGroupBytes = int64_t{1} << 20;

  // `path`: of the part; its folder is there. RESOURCE_EXHAUSTED on a full disk, else as the file system says; the
  // message names the file.
  static absl::StatusOr<std::unique_ptr<PartWriter>> Create(const std::string& path, const v1::LabelSpec& spec,
                                                            const Outputs& outputs);
  ~PartWriter();

  absl::Status Append(LabelledRecord record);

  // Call once, last: the part is on the disk when it returns, with this digest.
  absl::StatusOr<v1::FileDigest> Finish();

 private:
  struct State;
  explicit PartWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace polystill::soft_labels
