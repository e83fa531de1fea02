#include "corpus/source.h"

#include "arrow/array/concatenate.h"
#include "arrow/compute/cast.h"
#include "arrow/table.h"
#include "arrow/type.h"
#include "runtime/arrow_status.h"
#include "runtime/status.h"

namespace polystill::corpus {
namespace {

// One type to read for each type of columns, whatever the file's own is.
std::shared_ptr<arrow::DataType> WideType(Column::Type type) {
  if (type == Column::Type::kString) return arrow::large_utf8();
  return arrow::large_list(type == Column::Type::kIds ? arrow::int64() : arrow::large_utf8());
}

arrow::Result<std::shared_ptr<arrow::Array>> Widened(std::shared_ptr<arrow::Array> array, const Column& column) {
  if (array->type_id() == arrow::Type::DICTIONARY) {
    const auto& type = static_cast<const arrow::DictionaryType&>(*array->type());
    ARROW_ASSIGN_OR_RAISE(array, arrow::compute::Cast(*array, type.value_type()));
  }
  return arrow::compute::Cast(*array, WideType(column.type));
}

arrow::Result<std::shared_ptr<arrow::Array>> OneArray(const arrow::ChunkedArray& chunks, const Column& column) {
  arrow::ArrayVector arrays;
  for (const std::shared_ptr<arrow::Array>& chunk : chunks.chunks()) {
    ARROW_ASSIGN_OR_RAISE(arrays.emplace_back(), Widened(chunk, column));
  }
  if (arrays.size() == 1) return arrays.front();
  return arrow::Concatenate(arrays);
}

}  // namespace

absl::StatusOr<Rows> Rows::Make(const arrow::Table& table, const std::vector<Column>& columns) {
  Rows rows;
  rows.size_ = table.num_rows();
  for (const Column& column : columns) {
    const std::shared_ptr<arrow::ChunkedArray> chunks = table.GetColumnByName(column.name);
    if (chunks == nullptr) continue;
    ASSIGN_OR_RETURN(std::shared_ptr<arrow::Array> array,
                     FromArrow(OneArray(*chunks, column), absl::StatusCode::kInvalidArgument, Describe(column)));
    rows.columns_.emplace_back(column.role, std::move(array));
  }
  return rows;
}

const arrow::Array* Rows::Find(const std::string& role) const {
  for (const auto& [name, array] : columns_) {
    if (name == role) return array.get();
  }
  return nullptr;
}

const arrow::LargeStringArray* Rows::Strings(const std::string& role) const {
  return static_cast<const arrow::LargeStringArray*>(Find(role));
}

const arrow::LargeListArray* Rows::Lists(const std::string& role) const {
  return static_cast<const arrow::LargeListArray*>(Find(role));
}

bool Rows::IsNull(const std::string& role, int64_t row) const {
  const arrow::Array* const column = Find(role);
  return column != nullptr && column->IsNull(row);
}

absl::StatusOr<std::unique_ptr<Source>> OpenSource(const SourceFile& file) {
  return file.format == Format::kParquet ? OpenParquet(file) : OpenJsonLines(file);
}

}  // namespace polystill::corpus
