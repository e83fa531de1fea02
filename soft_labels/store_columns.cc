#include "soft_labels/store_columns.h"

#include <arrow/array.h>
#include <arrow/builder.h>
#include <arrow/table.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "runtime/arrow_status.h"
#include "runtime/status.h"
#include "soft_labels/decode.h"

namespace polystill::soft_labels {
namespace {

constexpr char kId[] = "id";
constexpr char kLanguage[] = "language";
constexpr char kClass[] = "_class";
constexpr char kIds[] = "_ids";
constexpr char kLogProbabilities[] = "_log_probabilities";
constexpr char kLogRest[] = "_log_rest";
constexpr char kCode[] = "_code";
constexpr char kRowBytes[] = "_row_bytes";

std::string Prefix(const Output& output) { return absl::StrReplaceAll(output.name, {{".", "_"}}); }

bool IsTensor(v1::Codec codec) {
  return codec == v1::CODEC_DENSE_FP32 || codec == v1::CODEC_DENSE_FP16 || codec == v1::CODEC_DENSE_BF16 ||
         codec == v1::CODEC_HIDDEN_HEAD;
}

v1::Tensor::Dtype DtypeOf(v1::Codec codec) {
  if (codec == v1::CODEC_DENSE_FP32) return v1::Tensor::DTYPE_FLOAT32;
  return codec == v1::CODEC_DENSE_BF16 ? v1::Tensor::DTYPE_BFLOAT16 : v1::Tensor::DTYPE_FLOAT16;
}

const std::string& BytesOf(const v1::SoftLabels& labels) {
  return labels.has_dense() ? labels.dense().data() : labels.packed();
}

arrow::FieldVector FieldsOf(const v1::LabelSpec& spec, const Output& output) {
  const auto floats = arrow::list(arrow::float32()), ints = arrow::list(arrow::int32());
  const std::string name = Prefix(output);
  switch (spec.codec()) {
    case v1::CODEC_DENSE_FP32:
      return {arrow::field(name, floats)};
    case v1::CODEC_CLASSES:
      return {arrow::field(name + kClass, output.of_tokens ? ints : arrow::int32())};
    case v1::CODEC_TOP_K:
      return {arrow::field(name + kIds, ints), arrow::field(name + kLogProbabilities, floats),
              arrow::field(name + kLogRest, floats)};
    case v1::CODEC_SAMPLED:
      return {arrow::field(name + kCode, arrow::binary()), arrow::field(name + kRowBytes, ints)};
    default:
      return {arrow::field(name + kCode, arrow::binary())};
  }
}

// Lists, one a record, that are filled piece by piece.
template <typename Builder>
class Lists {
 public:
  using Value = typename Builder::value_type;
  arrow::Status Begin() { return lists_.Append(); }
  arrow::Status Add(const Value* values, int64_t count) { return values_->AppendValues(values, count); }
  arrow::Result<std::shared_ptr<arrow::Array>> Finish() { return lists_.Finish(); }

 private:
  std::shared_ptr<Builder> values_ = std::make_shared<Builder>();
  arrow::ListBuilder lists_{arrow::default_memory_pool(), values_};
};
using FloatLists = Lists<arrow::FloatBuilder>;
using IntLists = Lists<arrow::Int32Builder>;

// Makes the columns of one output.
class ColumnMaker {
 public:
  ColumnMaker(const std::vector<LabelledRecord>& records, size_t place, const v1::LabelSpec& spec, const Output& output)
      : records_(records), place_(place), spec_(spec), output_(output) {}

  absl::StatusOr<arrow::ArrayVector> Make() {
    RETURN_IF_ERROR(DecodeAll());
    return FromArrow(Columns(), absl::StatusCode::kInternal, output_.name);
  }

 private:
  const v1::SoftLabels& LabelsOf(const LabelledRecord& record) const { return record.labels[place_]; }

  int64_t RowsOf(const v1::SoftLabels& labels) const {
    if (labels.has_dense()) return labels.dense().shape_size() == 2 ? labels.dense().shape(0) : 0;
    return static_cast<int64_t>(labels.packed().size()) / std::max<int64_t>(1, RowBytes(spec_, output_));
  }

  // Of the codecs whose columns are what the code says.
  absl::Status DecodeAll() {
    if (spec_.codec() != v1::CODEC_TOP_K && spec_.codec() != v1::CODEC_CLASSES) return absl::OkStatus();
    for (const LabelledRecord& record : records_) {
      RecordSize size;
      size.rows = RowsOf(LabelsOf(record));
      auto array = Decode(LabelsOf(record), spec_, output_, {size});
      RETURN_IF_ERROR(Annotate(array.status(), absl::StrCat("record '", record.id, "'")));
      arrays_.push_back(*std::move(array));
    }
    return absl::OkStatus();
  }

  arrow::Result<arrow::ArrayVector> Columns() {
    switch (spec_.codec()) {
      case v1::CODEC_DENSE_FP32:
        return Floats();
      case v1::CODEC_CLASSES:
        return Classes();
      case v1::CODEC_TOP_K:
        return TopK();
      default:
        return Codes();
    }
  }

  arrow::Result<arrow::ArrayVector> Floats() {
    FloatLists lists;
    std::vector<float> numbers;
    for (const LabelledRecord& record : records_) {
      const std::string& bytes = BytesOf(LabelsOf(record));
      numbers.resize(bytes.size() / sizeof(float));
      std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(float));
      ARROW_RETURN_NOT_OK(lists.Begin());
      ARROW_RETURN_NOT_OK(lists.Add(numbers.data(), static_cast<int64_t>(numbers.size())));
    }
    return Finished(&lists);
  }

  arrow::Result<arrow::ArrayVector> Classes() {
    if (!output_.of_tokens) {
      arrow::Int32Builder builder;
      for (const Array& array : arrays_) ARROW_RETURN_NOT_OK(builder.Append(array.ids.at(0)));
      return Finished(&builder);
    }
    IntLists lists;
    for (const Array& array : arrays_) {
      ARROW_RETURN_NOT_OK(lists.Begin());
      ARROW_RETURN_NOT_OK(lists.Add(array.ids.data(), static_cast<int64_t>(array.ids.size())));
    }
    return Finished(&lists);
  }

  arrow::Result<arrow::ArrayVector> TopK() {
    IntLists ids;
    FloatLists log_p, rest;
    for (const Array& array : arrays_) {
      ARROW_RETURN_NOT_OK(ids.Begin());
      ARROW_RETURN_NOT_OK(log_p.Begin());
      ARROW_RETURN_NOT_OK(rest.Begin());
      ARROW_RETURN_NOT_OK(ids.Add(array.ids.data(), static_cast<int64_t>(array.ids.size())));
      for (size_t at = 0; at < array.numbers.size(); at += array.width) {
        ARROW_RETURN_NOT_OK(log_p.Add(&array.numbers[at], spec_.k()));
        ARROW_RETURN_NOT_OK(rest.Add(&array.numbers[at + spec_.k()], 1));
      }
    }
    ARROW_ASSIGN_OR_RAISE(auto id_column, ids.Finish());
    ARROW_ASSIGN_OR_RAISE(auto log_p_column, log_p.Finish());
    ARROW_ASSIGN_OR_RAISE(auto rest_column, rest.Finish());
    return arrow::ArrayVector{id_column, log_p_column, rest_column};
  }

  arrow::Result<arrow::ArrayVector> Codes() {
    arrow::BinaryBuilder codes;
    IntLists row_bytes;
    for (const LabelledRecord& record : records_) {
      const v1::SoftLabels& labels = LabelsOf(record);
      ARROW_RETURN_NOT_OK(codes.Append(BytesOf(labels)));
      ARROW_RETURN_NOT_OK(row_bytes.Begin());
      for (const uint32_t bytes : labels.row_bytes()) {
        const auto row = static_cast<int32_t>(bytes);
        ARROW_RETURN_NOT_OK(row_bytes.Add(&row, 1));
      }
    }
    ARROW_ASSIGN_OR_RAISE(arrow::ArrayVector columns, Finished(&codes));
    if (spec_.codec() != v1::CODEC_SAMPLED) return columns;
    ARROW_ASSIGN_OR_RAISE(columns.emplace_back(), row_bytes.Finish());
    return columns;
  }

  template <typename Builder>
  static arrow::Result<arrow::ArrayVector> Finished(Builder* builder) {
    ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Array> column, builder->Finish());
    return arrow::ArrayVector{std::move(column)};
  }

  const std::vector<LabelledRecord>& records_;
  const size_t place_;
  const v1::LabelSpec& spec_;
  const Output& output_;
  std::vector<Array> arrays_;
};

arrow::Result<std::shared_ptr<arrow::Array>> Strings(const std::vector<LabelledRecord>& records,
                                                     std::string LabelledRecord::*value) {
  arrow::StringBuilder builder;
  for (const LabelledRecord& record : records) ARROW_RETURN_NOT_OK(builder.Append(record.*value));
  return builder.Finish();
}

absl::Status NotStored(const std::string& column) {
  return absl::DataLossError(absl::StrCat("column '", column, "' is missing, or not as a label store has it"));
}

// A table's column of one type and one chunk, without a null in this row.
template <typename ArrayType>
absl::StatusOr<const ArrayType*> ColumnOf(const arrow::Table& table, const std::string& name, int64_t row) {
  const auto column = table.GetColumnByName(name);
  if (column == nullptr || column->num_chunks() != 1) return NotStored(name);
  const arrow::Array& array = *column->chunk(0);
  const bool there = array.type_id() == ArrayType::TypeClass::type_id && row >= 0 && row < array.length();
  if (!there || array.IsNull(row)) return NotStored(name);
  return static_cast<const ArrayType*>(&array);
}

// The values of a list in a row.
template <typename ArrayType, typename Value>
absl::StatusOr<std::vector<Value>> ListAt(const arrow::Table& table, const std::string& name, int64_t row) {
  ASSIGN_OR_RETURN(const auto* lists, ColumnOf<arrow::ListArray>(table, name, row));
  const arrow::Array& values = *lists->values();
  if (values.type_id() != ArrayType::TypeClass::type_id || values.null_count() > 0) return NotStored(name);
  const Value* first = static_cast<const ArrayType&>(values).raw_values();
  return std::vector<Value>(first + lists->value_offset(row), first + lists->value_offset(row + 1));
}

absl::StatusOr<std::vector<float>> FloatsAt(const arrow::Table& table, const std::string& name, int64_t row) {
  return ListAt<arrow::FloatArray, float>(table, name, row);
}

absl::StatusOr<std::vector<int32_t>> IntsAt(const arrow::Table& table, const std::string& name, int64_t row) {
  return ListAt<arrow::Int32Array, int32_t>(table, name, row);
}

v1::SoftLabels FromBytes(const v1::LabelSpec& spec, const Output& output, std::string bytes) {
  v1::SoftLabels labels;
  labels.set_codec(spec.codec());
  if (!IsTensor(spec.codec())) {
    labels.set_packed(std::move(bytes));
    return labels;
  }
  const int64_t row_bytes = RowBytes(spec, output);
  v1::Tensor& dense = *labels.mutable_dense();
  dense.set_dtype(DtypeOf(spec.codec()));
  dense.add_shape(static_cast<int64_t>(bytes.size()) / std::max<int64_t>(1, row_bytes));
  dense.add_shape(spec.codec() == v1::CODEC_HIDDEN_HEAD ? output.head_width : output.width);
  dense.set_data(std::move(bytes));
  return labels;
}

absl::StatusOr<v1::SoftLabels> TopKAt(const arrow::Table& table, int64_t row, const v1::LabelSpec& spec,
                                      const Output& output) {
  const std::string name = Prefix(output);
  Array array;
  array.width = spec.k() + 1;
  ASSIGN_OR_RETURN(array.ids, IntsAt(table, name + kIds, row));
  ASSIGN_OR_RETURN(const std::vector<float> log_p, FloatsAt(table, name + kLogProbabilities, row));
  ASSIGN_OR_RETURN(const std::vector<float> rest, FloatsAt(table, name + kLogRest, row));
  if (log_p.size() != rest.size() * spec.k() || array.ids.size() != log_p.size()) return NotStored(name + kIds);
  for (size_t i = 0; i < rest.size(); ++i) {
    const auto first = log_p.begin() + static_cast<std::ptrdiff_t>(i) * spec.k();
    array.numbers.insert(array.numbers.end(), first, first + spec.k());
    array.numbers.push_back(rest[i]);
  }
  return Encode(array, spec, output, static_cast<int64_t>(rest.size()));
}

absl::StatusOr<v1::SoftLabels> ClassesAt(const arrow::Table& table, int64_t row, const v1::LabelSpec& spec,
                                         const Output& output) {
  const std::string name = Prefix(output) + kClass;
  Array array;
  if (output.of_tokens) {
    ASSIGN_OR_RETURN(array.ids, IntsAt(table, name, row));
  } else {
    ASSIGN_OR_RETURN(const auto* classes, ColumnOf<arrow::Int32Array>(table, name, row));
    array.ids = {classes->Value(row)};
  }
  return Encode(array, spec, output, static_cast<int64_t>(array.ids.size()));
}

}  // namespace

int64_t LabelledRecord::bytes() const {
  int64_t bytes = 0;
  for (const v1::SoftLabels& part : labels) bytes += static_cast<int64_t>(BytesOf(part).size());
  return bytes;
}

std::shared_ptr<arrow::Schema> StoreSchema(const v1::LabelSpec& spec, const Outputs& outputs) {
  arrow::FieldVector fields = {arrow::field(kId, arrow::utf8()), arrow::field(kLanguage, arrow::utf8())};
  for (const Output& output : outputs) {
    for (auto& field : FieldsOf(spec, output)) fields.push_back(std::move(field));
  }
  return arrow::schema(std::move(fields));
}

std::vector<std::string> ColumnNames(const v1::LabelSpec& spec, const Output& output) {
  std::vector<std::string> names;
  for (const auto& field : FieldsOf(spec, output)) names.push_back(field->name());
  return names;
}

absl::StatusOr<std::shared_ptr<arrow::Table>> StoreTable(const std::vector<LabelledRecord>& records,
                                                         const v1::LabelSpec& spec, const Outputs& outputs) {
  arrow::ArrayVector columns(2);
  ASSIGN_OR_RETURN(columns[0], FromArrow(Strings(records, &LabelledRecord::id), absl::StatusCode::kInternal, kId));
  ASSIGN_OR_RETURN(columns[1],
                   FromArrow(Strings(records, &LabelledRecord::language), absl::StatusCode::kInternal, kLanguage));
  for (size_t i = 0; i < outputs.size(); ++i) {
    ASSIGN_OR_RETURN(arrow::ArrayVector more, ColumnMaker(records, i, spec, outputs[i]).Make());
    std::move(more.begin(), more.end(), std::back_inserter(columns));
  }
  return arrow::Table::Make(StoreSchema(spec, outputs), columns, static_cast<int64_t>(records.size()));
}

absl::StatusOr<v1::SoftLabels> LabelsAt(const arrow::Table& table, int64_t row, const v1::LabelSpec& spec,
                                        const Output& output) {
  const std::string name = Prefix(output);
  switch (spec.codec()) {
    case v1::CODEC_DENSE_FP32: {
      static_assert(std::endian::native == std::endian::little);
      ASSIGN_OR_RETURN(const std::vector<float> numbers, FloatsAt(table, name, row));
      return FromBytes(spec, output,
                       std::string(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(float)));
    }
    case v1::CODEC_CLASSES:
      return ClassesAt(table, row, spec, output);
    case v1::CODEC_TOP_K:
      return TopKAt(table, row, spec, output);
    default:
      break;
  }
  ASSIGN_OR_RETURN(const auto* codes, ColumnOf<arrow::BinaryArray>(table, name + kCode, row));
  v1::SoftLabels labels = FromBytes(spec, output, codes->GetString(row));
  if (spec.codec() != v1::CODEC_SAMPLED) return labels;
  ASSIGN_OR_RETURN(const std::vector<int32_t> row_bytes, IntsAt(table, name + kRowBytes, row));
  for (const int32_t bytes : row_bytes) labels.add_row_bytes(static_cast<uint32_t>(bytes));
  return labels;
}

}  // namespace polystill::soft_labels
