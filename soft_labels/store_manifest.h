#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/corpus.pb.h"
#include "polystill/v1/label_store.pb.h"
#include "soft_labels/codec.h"

namespace polystill::soft_labels {

// A label store is a folder (docs/formats.md) of
//
//   manifest.yaml       what it holds, written last
//   labels/             a Parquet file a part
//   head.safetensors    with codec hidden_head alone: the teacher's output head
//
// and, while labels are still being asked for, job.yaml and finished.sha256 in the manifest's place.
inline constexpr char kStoreManifestFile[] = "manifest.yaml";
inline constexpr char kStoreJobFile[] = "job.yaml";
inline constexpr char kStoreFinishedFile[] = "finished.sha256";
inline constexpr char kStoreLabelsFolder[] = "labels";
inline constexpr char kStoreHeadFile[] = "head.safetensors";

// YAML of either file, with its format, sealed (checkpoint/manifest.h).
std::string FormatStoreManifest(const v1::LabelStoreManifest& manifest);

// NOT_FOUND, DATA_LOSS (torn), INVALID_ARGUMENT (another format); names the file.
absl::StatusOr<v1::LabelStoreManifest> ReadStoreManifest(const std::string& path);

// The manifest of the store in `folder`. NOT_FOUND when it holds none, or one that is not finished.
absl::StatusOr<v1::LabelStoreManifest> ReadStore(const std::string& folder);

// Whether a job that began as `began` may go on as `now`: the same labels of the same records. FAILED_PRECONDITION
// names what differs, with its flag.
absl::Status CheckSameLabels(const v1::LabelStoreManifest& began, const v1::LabelStoreManifest& now);

// Whether a store holds `output` as a loss needs it. FAILED_PRECONDITION says what it holds, and what to write.
absl::Status CheckStored(const v1::LabelStoreManifest& store, const std::string& output, const CodecSettings& wanted);

// Whether a store's teacher read `reads`, and, of a task that judges tokens, could know them. FAILED_PRECONDITION.
absl::Status CheckStoredSide(const v1::LabelStoreManifest& store, v1::Side reads, v1::Task task);

// Whether a store has as many records as `index` in every unit of the corpus, which must be the same files; that they
// are those very records shows when they are read. FAILED_PRECONDITION names file and language.
absl::Status CheckHolds(const v1::LabelStoreManifest& store, const v1::CorpusIndex& index);

}  // namespace polystill::soft_labels
