#include <arrow/array.h>
#include <arrow/memory_pool.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/util/key_value_metadata.h>
#include <parquet/arrow/reader.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "evaluation/predictions.h"
#include "models/outputs.h"
#include "runtime/arrow_status.h"
#include "runtime/status.h"

namespace polystill::evaluation {
namespace {

absl::StatusOr<std::vector<std::string>> NamesIn(const arrow::Schema& schema, const char* key) {
  const auto metadata = schema.metadata();
  const int at = metadata == nullptr ? -1 : metadata->FindKey(key);
  if (at < 0) return absl::DataLossError(absl::StrCat("has no metadata ", key));
  const auto names = nlohmann::json::parse(metadata->value(at), nullptr, /*allow_exceptions=*/false);
  if (!names.is_array()) return absl::DataLossError(absl::StrCat("metadata ", key, " is no list"));
  std::vector<std::string> result;
  for (const auto& name : names) {
    if (!name.is_string()) return absl::DataLossError(absl::StrCat("metadata ", key, " holds what is no name"));
    result.push_back(name.get<std::string>());
  }
  return result;
}

// Without one the file is of a time that knew classification alone.
absl::StatusOr<v1::Task> TaskIn(const arrow::Schema& schema) {
  const auto metadata = schema.metadata();
  const int at = metadata == nullptr ? -1 : metadata->FindKey(kTaskKey);
  if (at < 0) return v1::TASK_CLASSIFICATION;
  v1::Task task;
  if (!v1::Task_Parse(absl::StrCat("TASK_", absl::AsciiStrToUpper(metadata->value(at))), &task)) {
    return absl::DataLossError(absl::StrCat("metadata ", kTaskKey, " is no task"));
  }
  return task;
}

}  // namespace

struct PredictionsReader::State {
  std::string path;
  v1::Task task = v1::TASK_CLASSIFICATION;
  std::vector<std::string> labels;
  std::vector<std::string> models;
  std::map<std::string, int> label_index;
  std::unique_ptr<parquet::arrow::FileReader> file;
  std::unique_ptr<arrow::RecordBatchReader> batches;

  absl::Status Describe() {
    const arrow::Schema& schema = *batches->schema();
    ASSIGN_OR_RETURN(task, TaskIn(schema));
    ASSIGN_OR_RETURN(labels, NamesIn(schema, kLabelsKey));
    ASSIGN_OR_RETURN(models, NamesIn(schema, kModelsKey));
    for (size_t i = 0; i < labels.size(); ++i) label_index[labels[i]] = static_cast<int>(i);
    for (const char* name : {"id", "language", "group"}) RETURN_IF_ERROR(CheckColumn(name, arrow::utf8()));
    const bool many = task == v1::TASK_MULTI_LABEL, masked = task == v1::TASK_MASKED_LM;
    RETURN_IF_ERROR(CheckColumn("gold", masked ? arrow::int32() : many ? arrow::list(arrow::utf8()) : arrow::utf8()));
    if (polystill::models::JudgesTokens(task)) RETURN_IF_ERROR(CheckColumn("position", arrow::int32()));
    for (const std::string& model : models) {
      if (!masked) {
        RETURN_IF_ERROR(CheckColumn(model + kProbabilitiesSuffix, arrow::list(arrow::float32())));
        continue;
      }
      RETURN_IF_ERROR(CheckColumn(model + kTokenSuffix, arrow::int32()));
      RETURN_IF_ERROR(CheckColumn(model + kRankSuffix, arrow::int32()));
      RETURN_IF_ERROR(CheckColumn(model + kLogProbabilitySuffix, arrow::float32()));
    }
    return absl::OkStatus();
  }

  absl::Status CheckColumn(const std::string& name, const std::shared_ptr<arrow::DataType>& type) const {
    const auto field = batches->schema()->GetFieldByName(name);
    if (field != nullptr && field->type()->id() == type->id()) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat("has no column ", name, " of type ", type->ToString()));
  }

  void FillGuesses(const arrow::RecordBatch& batch, size_t model, std::vector<Prediction>* rows) const {
    const auto column = [&](const char* suffix) { return batch.GetColumnByName(models[model] + suffix); };
    const auto& tokens = static_cast<const arrow::Int32Array&>(*column(kTokenSuffix));
    const auto& ranks = static_cast<const arrow::Int32Array&>(*column(kRankSuffix));
    const auto& logs = static_cast<const arrow::FloatArray&>(*column(kLogProbabilitySuffix));
    for (size_t i = 0; i < rows->size(); ++i) {
      (*rows)[i].guesses.push_back({tokens.Value(i), ranks.Value(i), logs.Value(i)});
    }
  }

  absl::Status FillModel(const arrow::RecordBatch& batch, size_t model, std::vector<Prediction>* rows) const {
    const std::string name = models[model] + kProbabilitiesSuffix;
    const auto& column = static_cast<const arrow::ListArray&>(*batch.GetColumnByName(name));
    if (column.value_type()->id() != arrow::Type::FLOAT) {
      return absl::DataLossError(absl::StrCat("column ", name, " holds ", column.value_type()->ToString()));
    }
    const auto& values = static_cast<const arrow::FloatArray&>(*column.values());
    for (size_t i = 0; i < rows->size(); ++i) {
      Prediction& row = (*rows)[i];
      if (column.value_length(i) != static_cast<int>(labels.size())) {
        return absl::DataLossError(absl::StrCat("record ", row.id, ": ", column.value_length(i), " values in ", name));
      }
      const float* first = values.raw_values() + column.value_offset(i);
      row.probabilities[model].assign(first, first + labels.size());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<int> LabelAt(const arrow::StringArray& names, int64_t at, const std::string& id) const {
    const auto found = label_index.find(names.IsNull(at) ? "" : names.GetString(at));
    if (found != label_index.end()) return found->second;
    return absl::DataLossError(absl::StrCat("record ", id, ": unknown label '", names.GetString(at), "'"));
  }

  absl::Status FillGold(const arrow::Array& column, std::vector<Prediction>* rows) const {
    if (task == v1::TASK_MASKED_LM) {
      const auto& tokens = static_cast<const arrow::Int32Array&>(column);
      for (size_t i = 0; i < rows->size(); ++i) (*rows)[i].gold = tokens.Value(i);
      return absl::OkStatus();
    }
    if (task != v1::TASK_MULTI_LABEL) {
      const auto& names = static_cast<const arrow::StringArray&>(column);
      for (size_t i = 0; i < rows->size(); ++i) {
        ASSIGN_OR_RETURN((*rows)[i].gold, LabelAt(names, static_cast<int64_t>(i), (*rows)[i].id));
      }
      return absl::OkStatus();
    }
    const auto& lists = static_cast<const arrow::ListArray&>(column);
    if (lists.value_type()->id() != arrow::Type::STRING) return absl::DataLossError("column gold holds no strings");
    const auto& names = static_cast<const arrow::StringArray&>(*lists.values());
    for (size_t i = 0; i < rows->size(); ++i) {
      Prediction& row = (*rows)[i];
      row.labels.assign(labels.size(), 0);
      for (int64_t at = lists.value_offset(i); at < lists.value_offset(i) + lists.value_length(i); ++at) {
        ASSIGN_OR_RETURN(const int label, LabelAt(names, at, row.id));
        row.labels[label] = 1;
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<Prediction>> RowsOf(const arrow::RecordBatch& batch) const {
    const auto strings = [&batch](const char* name) {
      return static_cast<const arrow::StringArray*>(batch.GetColumnByName(name).get());
    };
    const auto *id = strings("id"), *language = strings("language"), *group = strings("group");
    std::vector<Prediction> rows(batch.num_rows());
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i] = {id->GetString(i), language->GetString(i), group->GetString(i), 0, {}};
      if (task != v1::TASK_MASKED_LM) rows[i].probabilities.resize(models.size());
    }
    RETURN_IF_ERROR(FillGold(*batch.GetColumnByName("gold"), &rows));
    if (polystill::models::JudgesTokens(task)) {
      const auto& places = static_cast<const arrow::Int32Array&>(*batch.GetColumnByName("position"));
      for (size_t i = 0; i < rows.size(); ++i) rows[i].position = places.Value(i);
    }
    for (size_t model = 0; model < models.size(); ++model) {
      if (task == v1::TASK_MASKED_LM) {
        FillGuesses(batch, model, &rows);
      } else {
        RETURN_IF_ERROR(FillModel(batch, model, &rows));
      }
    }
    return rows;
  }
};

PredictionsReader::PredictionsReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
PredictionsReader::~PredictionsReader() = default;

const std::vector<std::string>& PredictionsReader::labels() const { return state_->labels; }
const std::vector<std::string>& PredictionsReader::models() const { return state_->models; }
v1::Task PredictionsReader::task() const { return state_->task; }

absl::StatusOr<std::unique_ptr<PredictionsReader>> PredictionsReader::Open(const std::string& path) {
  if (!std::filesystem::exists(path)) return absl::NotFoundError(absl::StrCat(path, ": no such file"));
  auto state = std::make_unique<State>();
  state->path = path;
  parquet::arrow::FileReaderBuilder builder;
  RETURN_IF_ERROR(FromArrow(builder.OpenFile(path), absl::StatusCode::kDataLoss, path));
  RETURN_IF_ERROR(FromArrow(builder.Build(&state->file), absl::StatusCode::kDataLoss, path));
  auto batches = state->file->GetRecordBatchReader();
  RETURN_IF_ERROR(FromArrow(batches.status(), absl::StatusCode::kDataLoss, path));
  state->batches = std::move(*batches);
  RETURN_IF_ERROR(Annotate(state->Describe(), path));
  return std::unique_ptr<PredictionsReader>(new PredictionsReader(std::move(state)));
}

absl::StatusOr<std::vector<Prediction>> PredictionsReader::Next() {
  std::shared_ptr<arrow::RecordBatch> batch;
  do {
    RETURN_IF_ERROR(FromArrow(state_->batches->ReadNext(&batch), absl::StatusCode::kDataLoss, state_->path));
    if (batch == nullptr) return std::vector<Prediction>();
  } while (batch->num_rows() == 0);
  auto rows = state_->RowsOf(*batch);
  if (!rows.ok()) return Annotate(rows.status(), state_->path);
  return rows;
}

}  // namespace polystill::evaluation
