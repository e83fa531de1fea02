#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/label_store.pb.h"
#include "polystill/v1/package.pb.h"

namespace polystill::soft_labels {

// Whether a label store may be written to `folder`, as far as can be told without a job: it is not there, empty, or
// holds one. ALREADY_EXISTS when it holds something else.
absl::Status CheckStoreFolder(const std::string& folder);

// The folder of a label store while its labels are asked for, so that a job that was killed at any moment goes on with
// the parts that were whole:
//
//   new ----Open----> job.yaml --NoteFinished, a part at a time--> finished.sha256 --Seal--> manifest.yaml
//
// finished.sha256 holds a line a part, `SHA256  labels/NAME`, as sha256sum writes and checks it. A part counts when its
// line is whole and the file has that digest. Not thread-safe; one process at a time, which a lock sees to.
class StoreFolder {
 public:
  // `job`: what the labels are, as their manifest will say it, without parts. ALREADY_EXISTS when the folder holds
  // something else, FAILED_PRECONDITION when it holds other labels (CheckSameLabels), ABORTED while another process
  // writes to it; RESOURCE_EXHAUSTED on a full disk and as the file system says.
  static absl::StatusOr<std::unique_ptr<StoreFolder>> Open(const std::string& folder,
                                                           const v1::LabelStoreManifest& job);
  ~StoreFolder();
  StoreFolder(const StoreFolder&) = delete;
  StoreFolder& operator=(const StoreFolder&) = delete;

  // Whether all is there, and whole: then there is nothing to do.
  bool sealed() const { return sealed_; }

  // The digest of a part that is whole; a digest without a name when it is not, or not there.
  v1::FileDigest FinishedPart(const std::string& name) const;
  std::string PathOfPart(const std::string& name) const;

  // A part that PartWriter has finished.
  absl::Status NoteFinished(const v1::FileDigest& part);

  // Once all parts are there. Call once, last.
  absl::Status Seal(const v1::LabelStoreManifest& manifest);

 private:
  explicit StoreFolder(std::string folder) : folder_(std::move(folder)) {}
  absl::Status Lock();
  absl::Status Begin(const v1::LabelStoreManifest& job);
  absl::Status TakeUp(const v1::LabelStoreManifest& began);
  absl::Status RewriteFinished() const;
  absl::Status RemoveJob() const;

  const std::string folder_;
  int lock_ = -1;
  bool sealed_ = false;
  std::map<std::string, v1::FileDigest> finished_;  // by name
};

}  // namespace polystill::soft_labels
