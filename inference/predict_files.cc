#include "inference/predict_files.h"

#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "inference/predict_formats.h"
#include "runtime/fault_point.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::inference {
namespace {

namespace fs = std::filesystem;

absl::Status CheckNames(const PredictFileOptions& options) {
  const std::string in = fs::path(options.input).extension();
  if (in != ".jsonl" && in != ".parquet" && in != ".txt") {
    return absl::InvalidArgumentError(
        absl::StrCat(options.input, ": the ending must be .jsonl, .parquet or .txt (a text a line)"));
  }
  const std::string out = in == ".txt" ? ".jsonl" : in;
  if (fs::path(options.output).extension() != out) {
    return absl::InvalidArgumentError(absl::StrCat(options.output, ": must end with ", out, " for ", in, " input"));
  }
  std::error_code error;
  if (!fs::exists(options.input, error)) {
    return absl::NotFoundError(absl::StrCat(options.input, ": there is no such file"));
  }
  if (fs::equivalent(options.input, options.output, error)) {
    return absl::InvalidArgumentError(absl::StrCat(options.output, ": is the input itself"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int64_t> PredictFile(const Predictor& predictor, const PredictFileOptions& options) {
  RETURN_IF_ERROR(CheckNames(options));
  const std::string temporary = TemporaryOf(options.output);
  const bool parquet = fs::path(options.input).extension() == ".parquet";
  absl::StatusOr<int64_t> rows =
      parquet ? PredictParquetFile(predictor, options, temporary) : PredictTextFile(predictor, options, temporary);
  absl::Status status = rows.status();
  FAULT_POINT("predicted file written");
  if (status.ok()) status = SyncPath(temporary);
  FAULT_POINT("predicted file synced");
  if (status.ok()) status = RenameDurably(temporary, options.output);
  if (status.ok()) return rows;
  ::unlink(temporary.c_str());
  return status;
}

}  // namespace polystill::inference
