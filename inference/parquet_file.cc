#include <arrow/array.h>
#include <arrow/compute/cast.h>
#include <arrow/io/file.h>
#include <arrow/json/from_string.h>
#include <arrow/record_batch.h>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/writer.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "inference/predict_formats.h"
#include "runtime/arrow_status.h"
#include "runtime/status.h"

namespace polystill::inference {
namespace {

constexpr absl::StatusCode kTorn = absl::StatusCode::kDataLoss;

std::string TypeOf(const arrow::Field& field) { return field.type()->ToString(); }

bool Holds(const arrow::DataType& type, bool words) {
  if (!words) return type.id() == arrow::Type::STRING || type.id() == arrow::Type::LARGE_STRING;
  const bool list = type.id() == arrow::Type::LIST || type.id() == arrow::Type::LARGE_LIST;
  return list && Holds(*static_cast<const arrow::BaseListType&>(type).value_type(), false);
}

// Position of the text's column.
absl::StatusOr<int> TextColumn(const arrow::Schema& schema, bool words, const PredictFileOptions& options) {
  for (const char* added : kAddedColumns) {
    if (schema.GetFieldIndex(added) < 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(options.input, ": has a column '", added, "' already; rename it first"));
  }
  const int column = schema.GetFieldIndex(options.text_column);
  if (column < 0) {
    return absl::InvalidArgumentError(absl::StrCat(options.input, ": has no column '", options.text_column,
                                                   "'; name the text's with --text-column. It has ",
                                                   schema.field_names().empty() ? "none" : schema.field_names()[0]));
  }
  if (Holds(*schema.field(column)->type(), words)) return column;
  return absl::InvalidArgumentError(
      absl::StrCat(options.input, ": column '", options.text_column, "' is ", TypeOf(*schema.field(column)),
                   words ? ", not a list of words, which the model (task token_classification) judges" : ", not text"));
}

// A question a row of the text's column; INVALID_ARGUMENT for a null.
absl::StatusOr<std::vector<Question>> QuestionsOf(const arrow::Array& array, bool words, int64_t first_row,
                                                  const PredictFileOptions& options) {
  const auto null = [&](int64_t row) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.input, ": row ", first_row + row, ": column '", options.text_column, "' is null"));
  };
  const auto wide = words ? arrow::large_list(arrow::large_utf8()) : arrow::large_utf8();
  ASSIGN_OR_RETURN(const auto cast, FromArrow(arrow::compute::Cast(array, wide), kTorn, options.input));
  const auto& lists = static_cast<const arrow::LargeListArray&>(*cast);
  const auto& texts = static_cast<const arrow::LargeStringArray&>(words ? *lists.values() : *cast);
  std::vector<Question> questions(array.length());
  for (int64_t i = 0; i < array.length(); ++i) {
    if (array.IsNull(i)) return null(i);
    if (!words) questions[i].text = texts.GetView(i);
    for (int64_t at = words ? lists.value_offset(i) : 0; words && at < lists.value_offset(i + 1); ++at) {
      if (texts.IsNull(at)) return null(i);
      questions[i].words.emplace_back(texts.GetView(at));
    }
  }
  return questions;
}

std::shared_ptr<arrow::Schema> WithPredictions(const arrow::Schema& schema, const Predictor& predictor) {
  const auto list = [](const std::shared_ptr<arrow::DataType>& type) { return arrow::list(type); };
  const bool words = predictor.judges_words(), many = words || predictor.task() == v1::TASK_MULTI_LABEL;
  const auto all = list(arrow::float32());
  arrow::FieldVector fields = schema.fields();
  fields.push_back(arrow::field(kAddedColumns[0], many ? list(arrow::utf8()) : arrow::utf8()));
  fields.push_back(arrow::field(kAddedColumns[1], many ? all : arrow::float32()));
  fields.push_back(arrow::field(kAddedColumns[2], words ? list(all) : all));
  return arrow::schema(std::move(fields), schema.metadata());
}

// Appends the added columns, the last of `schema`.
arrow::Status AddPredictions(const std::vector<Question>& questions, const std::vector<Prediction>& predictions,
                             const Predictor& predictor, const arrow::Schema& schema, arrow::ArrayVector* columns) {
  std::array<nlohmann::ordered_json, kAddedColumns.size()> added;
  for (auto& column : added) column = nlohmann::ordered_json::array();
  for (size_t i = 0; i < questions.size(); ++i) {
    auto values = AddedValues(predictor, questions[i], predictions[i]);
    for (size_t c = 0; c < added.size(); ++c) added[c].push_back(std::move(values[c]));
  }
  for (const auto& column : added) {
    const auto& type = schema.field(static_cast<int>(columns->size()))->type();
    ARROW_ASSIGN_OR_RAISE(columns->emplace_back(), arrow::json::ArrayFromJSONString(type, column.dump()));
  }
  return arrow::Status::OK();
}

class ParquetPredictor {
 public:
  ParquetPredictor(const Predictor& predictor, const PredictFileOptions& options)
      : predictor_(predictor), options_(options) {}

  absl::Status Open(const std::string& temporary) {
    RETURN_IF_ERROR(FromArrow(OpenInput(), kTorn, options_.input));
    std::shared_ptr<arrow::Schema> schema;
    RETURN_IF_ERROR(FromArrow(reader_->GetSchema(&schema), kTorn, options_.input));
    ASSIGN_OR_RETURN(text_column_, TextColumn(*schema, predictor_.judges_words(), options_));
    schema_ = WithPredictions(*schema, predictor_);
    RETURN_IF_ERROR(FromArrow(OpenOutput(temporary), kTorn, options_.output));
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> Run() {
    reader_->set_batch_size(kRowsAtOnce);
    ASSIGN_OR_RETURN(const std::unique_ptr<arrow::RecordBatchReader> batches,
                     FromArrow(reader_->GetRecordBatchReader(), kTorn, options_.input));
    while (true) {
      std::shared_ptr<arrow::RecordBatch> batch;
      RETURN_IF_ERROR(FromArrow(batches->ReadNext(&batch), kTorn, options_.input));
      if (batch == nullptr) break;
      RETURN_IF_ERROR(PredictBatch(*batch));
      if (!options_.progress(rows_)) return absl::CancelledError("interrupted");
    }
    RETURN_IF_ERROR(FromArrow(writer_->Close(), kTorn, options_.output));
    RETURN_IF_ERROR(FromArrow(output_->Close(), kTorn, options_.output));
    return rows_;
  }

 private:
  arrow::Status OpenInput() {
    ARROW_ASSIGN_OR_RAISE(auto file, arrow::io::ReadableFile::Open(options_.input));
    ARROW_ASSIGN_OR_RAISE(reader_, parquet::arrow::OpenFile(file, arrow::default_memory_pool()));
    return arrow::Status::OK();
  }

  arrow::Status OpenOutput(const std::string& temporary) {
    ARROW_ASSIGN_OR_RAISE(output_, arrow::io::FileOutputStream::Open(temporary));
    ARROW_ASSIGN_OR_RAISE(
        writer_, parquet::arrow::FileWriter::Open(*schema_, arrow::default_memory_pool(), output_,
                                                  parquet::default_writer_properties(),
                                                  parquet::ArrowWriterProperties::Builder().store_schema()->build()));
    return arrow::Status::OK();
  }

  absl::Status PredictBatch(const arrow::RecordBatch& batch) {
    ASSIGN_OR_RETURN(const auto questions,
                     QuestionsOf(*batch.column(text_column_), predictor_.judges_words(), rows_, options_));
    ASSIGN_OR_RETURN(const auto predictions, predictor_.Predict(questions));
    arrow::ArrayVector columns = batch.columns();
    RETURN_IF_ERROR(
        FromArrow(AddPredictions(questions, predictions, predictor_, *schema_, &columns), kTorn, options_.output));
    const auto out = arrow::RecordBatch::Make(schema_, batch.num_rows(), std::move(columns));
    RETURN_IF_ERROR(FromArrow(writer_->WriteRecordBatch(*out), kTorn, options_.output));
    rows_ += batch.num_rows();
    return absl::OkStatus();
  }

  const Predictor& predictor_;
  const PredictFileOptions& options_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::shared_ptr<arrow::io::FileOutputStream> output_;
  std::unique_ptr<parquet::arrow::FileWriter> writer_;
  std::shared_ptr<arrow::Schema> schema_;
  int text_column_ = 0;
  int64_t rows_ = 0;
};

}  // namespace

absl::StatusOr<int64_t> PredictParquetFile(const Predictor& predictor, const PredictFileOptions& options,
                                           const std::string& temporary) {
  ParquetPredictor work(predictor, options);
  RETURN_IF_ERROR(work.Open(temporary));
  return work.Run();
}

}  // namespace polystill::inference
