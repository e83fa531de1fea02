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
#include "models/outputs.h"
#include "runtime/arrow_status.h"
#include "runtime/fault_point.h"
#include "runtime/files.h"
#include "runtime/status.h"
#include "runtime/yaml_proto.h"

namespace polystill::evaluation {
namespace {

std::shared_ptr<arrow::DataType> GoldType(v1::Task task) {
  if (task == v1::TASK_MASKED_LM) return arrow::int32();
  return task == v1::TASK_MULTI_LABEL ? arrow::list(arrow::utf8()) : arrow::utf8();
}

std::shared_ptr<arrow::Schema> SchemaOf(const std::vector<std::string>& labels, const std::vector<std::string>& models,
                                        v1::Task task) {
  arrow::FieldVector fields;
  for (const char* name : {"id", "language", "group"}) fields.push_back(arrow::field(name, arrow::utf8()));
  fields.push_back(arrow::field("gold", GoldType(task)));
  if (polystill::models::JudgesTokens(task)) fields.push_back(arrow::field("position", arrow::int32()));
  for (const std::string& model : models) {
    if (task == v1::TASK_MASKED_LM) {
      fields.push_back(arrow::field(model + kTokenSuffix, arrow::int32()));
      fields.push_back(arrow::field(model + kRankSuffix, arrow::int32()));
      fields.push_back(arrow::field(model + kLogProbabilitySuffix, arrow::float32()));
    } else {
      fields.push_back(arrow::field(model + kProbabilitiesSuffix, arrow::list(arrow::float32())));
    }
  }
  const std::string name = EnumName(v1::Task_descriptor()->FindValueByNumber(task));
  return arrow::schema(fields,
                       arrow::key_value_metadata({kTaskKey, kLabelsKey, kModelsKey},
                                                 {name, nlohmann::json(labels).dump(), nlohmann::json(models).dump()}));
}

absl::Status CheckRow(const Prediction& row, size_t labels, size_t models, v1::Task task) {
  if (task == v1::TASK_MULTI_LABEL && row.labels.size() != labels) {
    return absl::InvalidArgumentError(
        absl::StrCat("record ", row.id, ": says of ", row.labels.size(), " labels whether they hold, of ", labels));
  }
  if (task == v1::TASK_MASKED_LM) {
    if (row.guesses.size() == models) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("record ", row.id, ": guesses of ", row.guesses.size(), " models, not ", models));
  }
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

arrow::Result<std::shared_ptr<arrow::Array>> HoldingColumn(const std::vector<Prediction>& rows,
                                                           const std::vector<std::string>& labels) {
  auto names = std::make_shared<arrow::StringBuilder>();
  arrow::ListBuilder builder(arrow::default_memory_pool(), names);
  for (const Prediction& row : rows) {
    ARROW_RETURN_NOT_OK(builder.Append());
    for (size_t label = 0; label < labels.size(); ++label) {
      if (row.labels[label] != 0) ARROW_RETURN_NOT_OK(names->Append(labels[label]));
    }
  }
  return builder.Finish();
}

template <typename Builder, typename Value>
arrow::Result<std::shared_ptr<arrow::Array>> NumberColumn(const std::vector<Prediction>& rows, const Value& value) {
  Builder builder;
  for (const Prediction& row : rows) ARROW_RETURN_NOT_OK(builder.Append(value(row)));
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

arrow::Status AddGuesses(const std::vector<Prediction>& rows, size_t model, arrow::ArrayVector* columns) {
  ARROW_ASSIGN_OR_RAISE(columns->emplace_back(), NumberColumn<arrow::Int32Builder>(rows, [=](const Prediction& row) {
                          return row.guesses[model].token;
                        }));
  ARROW_ASSIGN_OR_RAISE(columns->emplace_back(), NumberColumn<arrow::Int32Builder>(rows, [=](const Prediction& row) {
                          return row.guesses[model].rank;
                        }));
  ARROW_ASSIGN_OR_RAISE(columns->emplace_back(), NumberColumn<arrow::FloatBuilder>(rows, [=](const Prediction& row) {
                          return row.guesses[model].log_probability;
                        }));
  return arrow::Status::OK();
}

}  // namespace

struct PredictionsWriter::State {
  std::string path;
  std::string temporary;
  std::vector<std::string> labels;
  v1::Task task = v1::TASK_CLASSIFICATION;
  size_t models = 0;
  std::shared_ptr<arrow::Schema> schema;
  std::shared_ptr<arrow::io::FileOutputStream> file;
  std::unique_ptr<parquet::arrow::FileWriter> writer;

  arrow::Result<std::shared_ptr<arrow::RecordBatch>> BatchOf(const std::vector<Prediction>& rows) const {
    arrow::ArrayVector columns(4);
    ARROW_ASSIGN_OR_RAISE(columns[0], StringColumn(rows, [](const Prediction& row) { return row.id; }));
    ARROW_ASSIGN_OR_RAISE(columns[1], StringColumn(rows, [](const Prediction& row) { return row.language; }));
    ARROW_ASSIGN_OR_RAISE(columns[2], StringColumn(rows, [](const Prediction& row) { return row.group; }));
    if (task == v1::TASK_MULTI_LABEL) {
      ARROW_ASSIGN_OR_RAISE(columns[3], HoldingColumn(rows, labels));
    } else if (task == v1::TASK_MASKED_LM) {
      ARROW_ASSIGN_OR_RAISE(columns[3],
                            NumberColumn<arrow::Int32Builder>(rows, [](const Prediction& row) { return row.gold; }));
    } else {
      ARROW_ASSIGN_OR_RAISE(columns[3], StringColumn(rows, [&](const Prediction& row) { return labels[row.gold]; }));
    }
    if (polystill::models::JudgesTokens(task)) {
      ARROW_ASSIGN_OR_RAISE(columns.emplace_back(), NumberColumn<arrow::Int32Builder>(
                                                        rows, [](const Prediction& row) { return row.position; }));
    }
    for (size_t model = 0; model < models; ++model) {
      if (task == v1::TASK_MASKED_LM) {
        ARROW_RETURN_NOT_OK(AddGuesses(rows, model, &columns));
      } else {
        ARROW_ASSIGN_OR_RAISE(columns.emplace_back(), ProbabilityColumn(rows, model));
      }
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
                                                                             const std::vector<std::string>& models,
                                                                             v1::Task task) {
  RETURN_IF_ERROR(MakeFolder(std::filesystem::absolute(path).parent_path().string()));
  auto state = std::make_unique<State>();
  state->path = path;
  state->temporary = TemporaryOf(path);
  state->labels = labels;
  state->task = task;
  state->models = models.size();
  state->schema = SchemaOf(labels, models, task);
  // From here on the temporary file is removed unless Finish is reached.
  std::unique_ptr<PredictionsWriter> writer(new PredictionsWriter(std::move(state)));
  RETURN_IF_ERROR(FromArrow(writer->state_->Open(), absl::StatusCode::kDataLoss, path));
  return writer;
}

absl::Status PredictionsWriter::Append(const std::vector<Prediction>& rows) {
  for (const Prediction& row : rows)
    RETURN_IF_ERROR(CheckRow(row, state_->labels.size(), state_->models, state_->task));
  const auto batch = state_->BatchOf(rows);
  RETURN_IF_ERROR(FromArrow(batch.status(), absl::StatusCode::kDataLoss, state_->path));
  RETURN_IF_ERROR(FromArrow(state_->writer->WriteRecordBatch(**batch), absl::StatusCode::kDataLoss, state_->path));
  return absl::OkStatus();
}

absl::Status PredictionsWriter::Finish() {
  RETURN_IF_ERROR(FromArrow(state_->writer->Close(), absl::StatusCode::kDataLoss, state_->path));
  RETURN_IF_ERROR(FromArrow(state_->file->Close(), absl::StatusCode::kDataLoss, state_->path));
  FAULT_POINT("predictions closed");
  RETURN_IF_ERROR(SyncPath(state_->temporary));
  FAULT_POINT("predictions synced");
  RETURN_IF_ERROR(RenameDurably(state_->temporary, state_->path));
  state_->file.reset();
  return absl::OkStatus();
}

}  // namespace polystill::evaluation
