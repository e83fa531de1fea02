#include "evaluation/predictions.h"

#include <arrow/array.h>
#include <arrow/builder.h>
#include <arrow/io/file.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/util/key_value_metadata.h>
#include <parquet/arrow/writer.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/arrow_status.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::evaluation {
namespace {

std::shared_ptr<arrow::Schema> SchemaOf(const std::vector<std::string>& labels,
                                        const std::vector<std::string>& models) {
  arrow::FieldVector fields;
  for (const char* name : {"id", "language", "group", "gold"}) fields.push_back(arrow::field(name, arrow::utf8()));
  for (const std::string& model : models) {
    fields.push_back(arrow::field(model + kProbabilitiesSuffix, arrow::list(arrow::float32())));
  }
  return arrow::schema(fields, arrow::key_value_metadata({kLabelsKey, kModelsKey}, {nlohmann::json(labels).dump(),
                                                                                    nlohmann::json(models).dump()}));
}

absl::Status CheckRow(const Prediction& row, size_t labels, size_t models) {
  if (row.gold < 0 || row.gold >= static_cast<int>(labels)) {
    return absl::InvalidArgumentError(absl::StrCat("record ", row.id, ": gold class ", row.gold, " of ", labels));
  }
  if (row.probabilities.size() != models) {
    return absl::InvalidArgumentError(
        absl::StrCat("record ", row.id, ": predictions of ", row.probabilities.size(), " models, not ", models));
  }
  for (const auto& values : row.probabilities) {
    if (values.size() == labels) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("record ", row.id, ": ", values.size(), " probabilities for ", labels, " labels"));
  }
  return absl::OkStatus();
}

template <typename Value>
arrow::Result<std::shared_ptr<arrow::Array>> StringColumn(const std::vector<Prediction>& rows, const Value& value) {
  arrow::StringBuilder builder;
  for (const Prediction& row : rows) {
    ARROW_RETURN_NOT_OK(builder.Append(value(row)));
  }
  return builder.Finish();
}

arrow::Result<std::shared_ptr<arrow::Array>> ProbabilityColumn(const std::vector<Prediction>& rows, size_t model) {
  auto values = std::make_shared<arrow::FloatBuilder>();
  arrow::ListBuilder builder(arrow::default_memory_pool(), values);
  for (const Prediction& row : rows) {
    ARROW_RETURN_NOT_OK(builder.Append());
    ARROW_RETURN_NOT_OK(values->AppendValues(row.probabilities[model]));
  }
  return builder.Finish();
}

}  // namespace

struct PredictionsWriter::State {
  std::string path;
  std::string temporary;
  std::vector<std::string> labels;
  size_t models = 0;
  std::shared_ptr<arrow::Schema> schema;
  std::shared_ptr<arrow::io::FileOutputStream> file;
  std::unique_ptr<parquet::arrow::FileWriter> writer;

  arrow::Result<std::shared_ptr<arrow::RecordBatch>> BatchOf(const std::vector<Prediction>& rows) const {
    arrow::ArrayVector columns(4);
    ARROW_ASSIGN_OR_RAISE(columns[0], StringColumn(rows, [](const Prediction& row) { return row.id; }));
    ARROW_ASSIGN_OR_RAISE(columns[1], StringColumn(rows, [](const Prediction& row) { return row.language; }));
    ARROW_ASSIGN_OR_RAISE(columns[2], StringColumn(rows, [](const Prediction& row) { return row.group; }));
    ARROW_ASSIGN_OR_RAISE(columns[3], StringColumn(rows, [&](const Prediction& row) { return labels[row.gold]; }));
    for (size_t model = 0; model < models; ++model) {
      ARROW_ASSIGN_OR_RAISE(columns.emplace_back(), ProbabilityColumn(rows, model));
    }
    return arrow::RecordBatch::Make(schema, static_cast<int64_t>(rows.size()), columns);
  }

  arrow::Status Open() {
    ARROW_ASSIGN_OR_RAISE(file, arrow::io::FileOutputStream::Open(temporary));
    const auto arrow_properties = parquet::ArrowWriterProperties::Builder().store_schema()->build();
    ARROW_ASSIGN_OR_RAISE(writer,
                          parquet::arrow::FileWriter::Open(*schema, arrow::default_memory_pool(), file,
                                                           parquet::default_writer_properties(), arrow_properties));
    return arrow::Status::OK();
  }
};

PredictionsWriter::PredictionsWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}

PredictionsWriter::~PredictionsWriter() {
  if (state_->file == nullptr) return;
  // Not finished: what was written is of no use to anybody.
  state_->writer.reset();
  (void)state_->file->Close();
  ::unlink(state_->temporary.c_str());
}

absl::StatusOr<std::unique_ptr<PredictionsWriter>> PredictionsWriter::Create(const std::string& path,
                                                                             const std::vector<std::string>& labels,
                                                                             const std::vector<std::string>& models) {
  RETURN_IF_ERROR(MakeFolder(std::filesystem::absolute(path).parent_path().string()));
  auto state = std::make_unique<State>();
  state->path = path;
  state->temporary = absl::StrCat(path, ".tmp-", ::getpid());
  state->labels = labels;
  state->models = models.size();
  state->schema = SchemaOf(labels, models);
  RETURN_IF_ERROR(FromArrow(state->Open(), absl::StatusCode::kDataLoss, path));
  return std::unique_ptr<PredictionsWriter>(new PredictionsWriter(std::move(state)));
}

absl::Status PredictionsWriter::Append(const std::vector<Prediction>& rows) {
  for (const Prediction& row : rows) RETURN_IF_ERROR(CheckRow(row, state_->labels.size(), state_->models));
  const auto batch = state_->BatchOf(rows);
  RETURN_IF_ERROR(FromArrow(batch.status(), absl::StatusCode::kDataLoss, state_->path));
  RETURN_IF_ERROR(FromArrow(state_->writer->WriteRecordBatch(**batch), absl::StatusCode::kDataLoss, state_->path));
  return absl::OkStatus();
}

absl::Status PredictionsWriter::Finish() {
  RETURN_IF_ERROR(FromArrow(state_->writer->Close(), absl::StatusCode::kDataLoss, state_->path));
  RETURN_IF_ERROR(FromArrow(state_->file->Close(), absl::StatusCode::kDataLoss, state_->path));
  RETURN_IF_ERROR(SyncPath(state_->temporary));
  RETURN_IF_ERROR(RenameDurably(state_->temporary, state_->path));
  state_->file.reset();
  return absl::OkStatus();
}

}  // namespace polystill::evaluation
