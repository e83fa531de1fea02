#include "corpus/columns.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "arrow/type.h"
#include "corpus/where_roles.h"
#include "runtime/status.h"

namespace polystill::corpus {
namespace {

void AddOnce(const Column& column, std::vector<Column>* columns) {
  const bool there =
      std::any_of(columns->begin(), columns->end(), [&](const Column& other) { return other.role == column.role; });
  if (!there) columns->push_back(column);
}

bool IsString(const arrow::DataType& type) {
  if (type.id() == arrow::Type::DICTIONARY) {
    return IsString(*static_cast<const arrow::DictionaryType&>(type).value_type());
  }
  return type.id() == arrow::Type::STRING || type.id() == arrow::Type::LARGE_STRING ||
         type.id() == arrow::Type::STRING_VIEW;
}

bool Fits(const arrow::DataType& type, Column::Type wanted) {
  if (wanted == Column::Type::kString) return IsString(type);
  if (type.id() != arrow::Type::LIST && type.id() != arrow::Type::LARGE_LIST) return false;
  const arrow::Type::type value = static_cast<const arrow::BaseListType&>(type).value_type()->id();
  if (wanted == Column::Type::kIds) return value == arrow::Type::INT32 || value == arrow::Type::INT64;
  // A writer that saw empty lists alone knows no type of their values.
  return value == arrow::Type::STRING || value == arrow::Type::LARGE_STRING || value == arrow::Type::NA;
}

Column::Type TypeOf(const v1::Selection& selection, const std::string& role) {
  const bool of_tokens = selection.task() == v1::TASK_TOKEN_CLASSIFICATION;
  if (role == "ids" || role == "source_ids") return Column::Type::kIds;
  if (role == "text" || role == "source_text") return of_tokens ? Column::Type::kStrings : Column::Type::kString;
  const bool lists = role == "label" && (of_tokens || selection.task() == v1::TASK_MULTI_LABEL);
  return lists ? Column::Type::kStrings : Column::Type::kString;
}

// The column roles that some `where` of the selection names. Sorted, since the order of a protobuf map is not fixed.
std::set<std::string> WhereRoles(const v1::Selection& selection) {
  std::set<std::string> roles;
  for (const auto& [role, value] : selection.where()) roles.insert(role);
  for (const auto& alternative : selection.alternatives()) {
    for (const auto& [role, value] : alternative.where()) roles.insert(role);
  }
  return roles;
}

}  // namespace

absl::Status CheckSelection(const v1::Selection& selection) {
  for (const std::string& role : WhereRoles(selection)) {
    if (std::find(kWhereRoles.begin(), kWhereRoles.end(), role) == kWhereRoles.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("where: ", role, ": records are selected by ", absl::StrJoin(kWhereRoles, ", ")));
    }
  }
  if (!selection.reads_labels()) return absl::OkStatus();
  if (selection.corpus().labels().empty()) {
    return absl::InvalidArgumentError("corpus.labels is empty: list the classes of the label column");
  }
  std::set<std::string> seen;
  for (const std::string& label : selection.corpus().labels()) {
    if (!seen.insert(label).second) {
      return absl::InvalidArgumentError(absl::StrCat("corpus.labels: \"", label, "\" is there twice"));
    }
  }
  return absl::OkStatus();
}

Column ColumnOf(const v1::Selection& selection, const std::string& role) {
  const v1::Columns& columns = selection.corpus().columns();
  const google::protobuf::FieldDescriptor* field = v1::Columns::descriptor()->FindFieldByName(role);
  std::string name = columns.GetReflection()->GetString(columns, field);
  // Unset: the default name of a column is its role.
  if (name.empty()) name = role;
  return {role, name, TypeOf(selection, role), role == "group"};
}

std::vector<Column> IndexColumns(const v1::Selection& selection) {
  std::vector<Column> columns = {ColumnOf(selection, "language")};
  for (const std::string& role : WhereRoles(selection)) {
    Column column = ColumnOf(selection, role);
    column.optional = false;
    AddOnce(column, &columns);
  }
  if (selection.reads_labels()) AddOnce(ColumnOf(selection, "label"), &columns);
  return columns;
}

std::vector<Column> RecordColumns(const v1::Selection& selection) {
  const bool ids = selection.tokenizer().kind() == v1::Tokenizer::KIND_IDS;
  std::vector<Column> columns = IndexColumns(selection);
  AddOnce(ColumnOf(selection, "id"), &columns);
  if (selection.reads_text()) AddOnce(ColumnOf(selection, ids ? "ids" : "text"), &columns);
  if (selection.reads_source_text()) AddOnce(ColumnOf(selection, ids ? "source_ids" : "source_text"), &columns);
  AddOnce(ColumnOf(selection, "group"), &columns);
  return columns;
}

std::string Describe(const Column& column) {
  return absl::StrCat("column \"", column.name, "\" (run file: corpus.columns.", column.role, ")");
}

std::string Needed(const Column& column) {
  switch (column.type) {
    case Column::Type::kIds:
      return "a list of integers is needed";
    case Column::Type::kStrings:
      return column.role == "label" ? "a list of strings is needed with this task (run file: task)"
                                    : "a list of strings, the words, is needed with task: token_classification";
    case Column::Type::kString:
      break;
  }
  return column.role == "label" ? "a string is needed with this task (run file: task)" : "a string is needed";
}

absl::Status MissingValue(const Column& column) {
  return absl::NotFoundError(absl::StrCat(Describe(column), " is null or missing"));
}

absl::Status CheckSchema(const arrow::Schema& schema, const std::vector<Column>& columns, const std::string& file) {
  for (const Column& column : columns) {
    const std::vector<int> found = schema.GetAllFieldIndices(column.name);
    if (found.empty() && column.optional) continue;
    if (found.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(file, ": there is no ", Describe(column), "; the columns are ",
                                                     absl::StrJoin(schema.field_names(), ", ")));
    }
    if (found.size() > 1) {
      return absl::InvalidArgumentError(absl::StrCat(file, ": ", Describe(column), " is there more than once"));
    }
    const arrow::DataType& type = *schema.field(found[0])->type();
    if (!Fits(type, column.type)) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": ", Describe(column), " is ", type.ToString(), "; ", Needed(column)));
    }
  }
  return absl::OkStatus();
}

}  // namespace polystill::corpus
