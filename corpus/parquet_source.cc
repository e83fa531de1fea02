#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "arrow/table.h"
#include "arrow/type.h"
#include "corpus/source.h"
#include "parquet/arrow/reader.h"
#include "parquet/file_reader.h"
#include "parquet/metadata.h"
#include "parquet/schema.h"
#include "runtime/arrow_status.h"
#include "runtime/status.h"

namespace polystill::corpus {
namespace {

constexpr absl::StatusCode kTorn = absl::StatusCode::kDataLoss;

class ParquetSource : public Source {
 public:
  ParquetSource(std::string name, std::unique_ptr<parquet::arrow::FileReader> reader,
                std::shared_ptr<arrow::Schema> schema)
      : name_(std::move(name)),
        reader_(std::move(reader)),
        metadata_(reader_->parquet_reader()->metadata()),
        schema_(std::move(schema)) {}

  const std::string& name() const override { return name_; }

  absl::Status Check(const std::vector<Column>& columns) const override {
    return CheckSchema(*schema_, columns, name_);
  }

  bool ReadsWholeRows() const override { return false; }

  absl::StatusOr<std::vector<Unit>> Units() override {
    std::vector<Unit> units;
    for (int group = 0; group < metadata_->num_row_groups(); ++group) {
      if (metadata_->RowGroup(group)->num_rows() > 0) units.emplace_back().set_row_group(group);
    }
    return units;
  }

  absl::StatusOr<Rows> Read(const Unit& unit, const std::vector<Column>& columns) override {
    RETURN_IF_ERROR(Check(columns));
    const std::string what = absl::StrCat(name_, ": row group ", unit.row_group());
    if (unit.row_group() >= metadata_->num_row_groups()) {
      return absl::DataLossError(absl::StrCat(what, " is not there any more"));
    }
    ASSIGN_OR_RETURN(std::shared_ptr<arrow::Table> table,
                     FromArrow(reader_->ReadRowGroup(unit.row_group(), LeavesOf(columns)), kTorn, what));
    auto rows = Rows::Make(*table, columns);
    if (!rows.ok()) return Annotate(rows.status(), what);
    return rows;
  }

  absl::StatusOr<int64_t> RowsBefore(const Unit& unit) override {
    int64_t rows = 0;
    for (int group = 0; group < unit.row_group(); ++group) rows += metadata_->RowGroup(group)->num_rows();
    return rows;
  }

  std::string ColumnsOf(const Unit&, int64_t) override { return absl::StrJoin(schema_->field_names(), ", "); }

 private:
  // Parquet counts leaves, and a list has its own below the column's name.
  std::vector<int> LeavesOf(const std::vector<Column>& columns) const {
    std::set<std::string> names;
    for (const Column& column : columns) names.insert(column.name);
    std::vector<int> leaves;
    for (int leaf = 0; leaf < metadata_->num_columns(); ++leaf) {
      if (names.contains(metadata_->schema()->GetColumnRoot(leaf)->name())) leaves.push_back(leaf);
    }
    return leaves;
  }

  const std::string name_;
  const std::unique_ptr<parquet::arrow::FileReader> reader_;
  const std::shared_ptr<parquet::FileMetaData> metadata_;
  const std::shared_ptr<arrow::Schema> schema_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Source>> OpenParquet(const SourceFile& file) {
  ASSIGN_OR_RETURN(std::shared_ptr<arrow::io::RandomAccessFile> input,
                   FromArrow(file.file_system->OpenInputFile(file.path), kTorn, file.name));
  parquet::arrow::FileReaderBuilder builder;
  RETURN_IF_ERROR(FromArrow(builder.Open(std::move(input)), kTorn, file.name));
  parquet::ArrowReaderProperties properties;
  // Fetching a row group's columns at once, in threads of Arrow's own, pays where a read is a request over the network.
  properties.set_pre_buffer(file.file_system->type_name() != "local");
  ASSIGN_OR_RETURN(std::unique_ptr<parquet::arrow::FileReader> reader,
                   FromArrow(builder.properties(properties)->Build(), kTorn, file.name));
  std::shared_ptr<arrow::Schema> schema;
  RETURN_IF_ERROR(FromArrow(reader->GetSchema(&schema), kTorn, file.name));
  return std::make_unique<ParquetSource>(file.name, std::move(reader), std::move(schema));
}

}  // namespace polystill::corpus
