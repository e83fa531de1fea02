#include "soft_labels/store_writer.h"

#include <arrow/io/file.h>
#include <arrow/table.h>
#include <arrow/util/compression.h>
#include <parquet/arrow/writer.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/arrow_status.h"
#include "runtime/fault_point.h"
#include "runtime/files.h"
#include "runtime/sha256.h"
#include "runtime/status.h"

namespace polystill::soft_labels {
namespace {

namespace fs = std::filesystem;

constexpr absl::StatusCode kTorn = absl::StatusCode::kDataLoss;
// Of a record beside its labels, in a row group's size: id, language, offsets.
constexpr int64_t kRecordBytes = 32;

std::shared_ptr<parquet::WriterProperties> Properties() {
  // Dictionaries of labels would only cost time: hardly any is there twice.
  return parquet::WriterProperties::Builder()
      .compression(arrow::Compression::ZSTD)
      ->disable_dictionary()
      ->enable_dictionary("language")
      ->build();
}

}  // namespace

struct PartWriter::State {
  std::string path;
  std::string temporary;
  v1::LabelSpec spec;
  Outputs outputs;
  std::vector<LabelledRecord> waiting;
  int64_t waiting_bytes = 0;
  bool finished = false;
  std::shared_ptr<arrow::io::FileOutputStream> file;
  std::unique_ptr<parquet::arrow::FileWriter> writer;

  arrow::Status Open() {
    ARROW_ASSIGN_OR_RAISE(file, arrow::io::FileOutputStream::Open(temporary));
    const auto arrow_properties = parquet::ArrowWriterProperties::Builder().store_schema()->build();
    ARROW_ASSIGN_OR_RAISE(
        writer, parquet::arrow::FileWriter::Open(*StoreSchema(spec, outputs), arrow::default_memory_pool(), file,
                                                 Properties(), arrow_properties));
    return arrow::Status::OK();
  }

  // As a row group.
  absl::Status Flush() {
    if (waiting.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::shared_ptr<arrow::Table> table, StoreTable(waiting, spec, outputs));
    RETURN_IF_ERROR(FromArrow(writer->WriteTable(*table, table->num_rows()), kTorn, path));
    waiting.clear();
    waiting_bytes = 0;
    return absl::OkStatus();
  }

  absl::Status Close() {
    RETURN_IF_ERROR(FromArrow(writer->Close(), kTorn, path));
    return FromArrow(file->Close(), kTorn, path);
  }
};

PartWriter::PartWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}

PartWriter::~PartWriter() {
  if (state_->finished) return;
  state_->writer.reset();
  if (state_->file != nullptr) (void)state_->file->Close();
  ::unlink(state_->temporary.c_str());
}

absl::StatusOr<std::unique_ptr<PartWriter>> PartWriter::Create(const std::string& path, const v1::LabelSpec& spec,
                                                               const Outputs& outputs) {
  auto state = std::make_unique<State>();
  state->path = path;
  const fs::path whole(path);
  // Hidden: readers of a folder of Parquet files pass it over.
  state->temporary = TemporaryOf((whole.parent_path() / absl::StrCat(".", whole.filename().string())).string());
  state->spec = spec;
  state->outputs = outputs;
  // From here on the temporary file is removed unless Finish is reached.
  std::unique_ptr<PartWriter> writer(new PartWriter(std::move(state)));
  RETURN_IF_ERROR(FromArrow(writer->state_->Open(), kTorn, path));
  return writer;
}

absl::Status PartWriter::Append(LabelledRecord record) {
  state_->waiting_bytes += record.bytes() + kRecordBytes;
  state_->waiting.push_back(std::move(record));
  return state_->waiting_bytes < kRowGroupBytes ? absl::OkStatus() : state_->Flush();
}

absl::StatusOr<v1::FileDigest> PartWriter::Finish() {
  RETURN_IF_ERROR(state_->Flush());
  RETURN_IF_ERROR(state_->Close());
  FAULT_POINT("part closed");
  RETURN_IF_ERROR(SyncPath(state_->temporary));
  v1::FileDigest digest;
  digest.set_name(fs::path(state_->path).filename().string());
  std::error_code error;
  digest.set_bytes(static_cast<int64_t>(fs::file_size(state_->temporary, error)));
  if (error) return FileError(error.value(), state_->temporary, "read");
  ASSIGN_OR_RETURN(*digest.mutable_sha256(), Sha256File(state_->temporary));
  FAULT_POINT("part synced");
  RETURN_IF_ERROR(RenameDurably(state_->temporary, state_->path));
  state_->finished = true;
  return digest;
}

}  // namespace polystill::soft_labels
