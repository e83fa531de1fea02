#include <arrow/array.h>
#include <arrow/builder.h>
#include <arrow/compute/cast.h>
#include <arrow/io/file.h>
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

// Position of the text's column.
absl::StatusOr<int> TextColumn(const arrow::Schema& schema, const PredictFileOptions& options) {
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
  const auto id = schema.field(column)->type()->id();
  if (id == arrow::Type::STRING || id == arrow::Type::LARGE_STRING) return column;
  return absl::InvalidArgumentError(absl::StrCat(options.input, ": column '", options.text_column, "' is ",
                                                 TypeOf(*schema.field(column)), ", not text"));
}

// Texts of a string column; INVALID_ARGUMENT for a null.
absl::StatusOr<std::vector<std::string>> TextsOf(const arrow::Array& array, int64_t first_row,
                                                 const PredictFileOptions& options) {
  std::vector<std::string> texts;
  for (int64_t i = 0; i < array.length(); ++i) {
    if (array.IsNull(i)) {
      return absl::InvalidArgumentError(
          absl::StrCat(options.input, ": row ", first_row + i, ": column '", options.text_column, "' is null"));
    }
    texts.emplace_back(array.type_id() == arrow::Type::STRING
                           ? static_cast<const arrow::StringArray&>(array).GetView(i)
                           : static_cast<const arrow::LargeStringArray&>(array).GetView(i));
  }
  return texts;
}

std::shared_ptr<arrow::Schema> WithPredictions(const arrow::Schema& schema) {
  arrow::FieldVector fields = schema.fields();
  fields.push_back(arrow::field(kAddedColumns[0], arrow::utf8()));
  fields.push_back(arrow::field(kAddedColumns[1], arrow::float32()));
  fields.push_back(arrow::field(kAddedColumns[2], arrow::list(arrow::float32())));
  return arrow::schema(std::move(fields), schema.metadata());
}

arrow::Status AddPredictions(const std::vector<Prediction>& predictions, const std::vector<std::string>& labels,
                             arrow::ArrayVector* columns) {
  arrow::StringBuilder label;
  arrow::FloatBuilder probability;
  const auto values = std::make_shared<arrow::FloatBuilder>();
  arrow::ListBuilder probabilities(arrow::default_memory_pool(), values);
  for (const Prediction& prediction : predictions) {
    ARROW_RETURN_NOT_OK(label.Append(labels[prediction.label]));
    ARROW_RETURN_NOT_OK(probability.Append(prediction.probabilities[prediction.label]));
    ARROW_RETURN_NOT_OK(probabilities.Append());
    ARROW_RETURN_NOT_OK(values->AppendValues(prediction.probabilities));
  }
  for (arrow::ArrayBuilder* builder :
       {static_cast<arrow::ArrayBuilder*>(&label), static_cast<arrow::ArrayBuilder*>(&probability),
        static_cast<arrow::ArrayBuilder*>(&probabilities)}) {
    ARROW_ASSIGN_OR_RAISE(columns->emplace_back(), builder->Finish());
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
    ASSIGN_OR_RETURN(text_column_, TextColumn(*schema, options_));
    schema_ = WithPredictions(*schema);
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
    ASSIGN_OR_RETURN(const auto texts, TextsOf(*batch.column(text_column_), rows_, options_));
    ASSIGN_OR_RETURN(const auto predictions, predictor_.Predict(texts));
    arrow::ArrayVector columns = batch.columns();
    RETURN_IF_ERROR(FromArrow(AddPredictions(predictions, predictor_.labels(), &columns), kTorn, options_.output));
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
