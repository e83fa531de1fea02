#include "corpus/index.h"

#include <google/protobuf/io/coded_stream.h>

#include <filesystem>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "corpus/columns.h"
#include "corpus/files.h"
#include "corpus/row_filter.h"
#include "corpus/source.h"
#include "runtime/deterministic_bytes.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "runtime/utf8.h"

namespace polystill::corpus {
namespace {

using google::protobuf::io::CodedOutputStream;

// Values of a column that a message lists at most.
constexpr size_t kValuesTold = 8;

// Gathers the blocks of every language, file by file.
class IndexBuilder {
 public:
  explicit IndexBuilder(const v1::Selection& selection)
      : selection_(selection),
        columns_(IndexColumns(selection)),
        record_columns_(RecordColumns(selection)),
        labels_(selection) {
    *index_.mutable_selection() = selection;
  }

  absl::Status AddFile(const SourceFile& file) {
    ASSIGN_OR_RETURN(const std::unique_ptr<Source> source, OpenSource(file));
    // All that reading will need, so that a missing column shows now.
    RETURN_IF_ERROR(source->Check(record_columns_));
    ASSIGN_OR_RETURN(const std::vector<Unit> units, source->Units());
    for (const Unit& unit : units) RETURN_IF_ERROR(AddUnit(*source, unit));
    v1::CorpusIndex::File& entry = *index_.add_files();
    entry.set_path(file.name);
    entry.set_bytes(file.bytes);
    ASSIGN_OR_RETURN(*entry.mutable_sha256(), HashFile(file));
    return absl::OkStatus();
  }

  absl::StatusOr<v1::CorpusIndex> Finish() {
    RETURN_IF_ERROR(CheckLanguages(selection_.languages()));
    for (const auto& alternative : selection_.alternatives()) RETURN_IF_ERROR(CheckLanguages(alternative.languages()));
    if (languages_.empty()) return NothingKept();
    // A map by name: sorted.
    for (auto& [name, language] : languages_) *index_.add_languages() = std::move(language);
    return std::move(index_);
  }

 private:
  absl::Status AddUnit(Source& source, const Unit& unit) {
    ASSIGN_OR_RETURN(const Rows rows, source.Read(unit, source.ReadsWholeRows() ? record_columns_ : columns_));
    rows_ += rows.size();
    const RowFilter filter(selection_, rows);
    std::map<std::string, int64_t, std::less<>> counts;
    for (int64_t row = 0; row < rows.size(); ++row) {
      if (!filter.Matches(row)) continue;
      const auto language = filter.Language(row);
      if (!language.ok()) return RowError(selection_, source, unit, row, language.status());
      if (!filter.Wants(row, *language)) {
        unwanted_.emplace(*language);
        continue;
      }
      absl::Status whole = CheckThere(rows, row);
      Record record;
      if (whole.ok()) whole = labels_.Read(rows, row, &record);
      if (!whole.ok()) return RowError(selection_, source, unit, row, whole);
      auto count = counts.find(*language);
      if (count == counts.end()) count = counts.emplace(*language, 0).first;
      ++count->second;
    }
    for (const auto& [name, records] : counts) AddBlock(name, unit, records);
    if (languages_.empty()) NoteValues(rows);
    return absl::OkStatus();
  }

  // That the row has all that reading it will need, of what is read now.
  absl::Status CheckThere(const Rows& rows, int64_t row) const {
    for (const Column& column : record_columns_) {
      if (!column.optional && rows.IsNull(column.role, row)) return MissingValue(column);
    }
    return absl::OkStatus();
  }

  void NoteValues(const Rows& rows) {
    for (const Column& column : columns_) {
      if (column.type != Column::Type::kString) continue;  // a list of labels, which none are chosen by
      std::set<std::string, std::less<>>& values = values_[column.role];
      for (int64_t row = 0; row < rows.size() && values.size() < kValuesTold; ++row) {
        if (rows.IsNull(column.role, row)) continue;
        const std::string_view value = rows.Strings(column.role)->GetView(row);
        if (IsUtf8(value)) values.emplace(value);
      }
    }
  }

  void AddBlock(const std::string& name, const Unit& unit, int64_t records) {
    v1::CorpusIndex::Language& language = languages_[name];
    language.set_name(name);
    language.set_records(language.records() + records);
    v1::CorpusIndex::Block& block = *language.add_blocks();
    block = unit;
    block.set_file(index_.files_size());
    block.set_records(records);
  }

  std::string Where() const {
    std::string where = Conditions(selection_.where());
    std::vector<std::string> alternatives;
    for (const auto& alternative : selection_.alternatives()) alternatives.push_back(Conditions(alternative.where()));
    if (!alternatives.empty()) absl::StrAppend(&where, " and ", absl::StrJoin(alternatives, " or "));
    return where;
  }

  template <typename Map>
  static std::string Conditions(const Map& where) {
    std::vector<std::string> conditions;
    for (const auto& [role, value] : where) conditions.push_back(absl::StrCat(role, ": ", value));
    std::sort(conditions.begin(), conditions.end());
    return absl::StrCat("{", absl::StrJoin(conditions, ", "), "}");
  }

  template <typename List>
  absl::Status CheckLanguages(const List& wanted) const {
    for (const std::string& language : wanted) {
      if (!languages_.contains(language)) return MissingLanguage(language);
    }
    return absl::OkStatus();
  }

  absl::Status NothingKept() const {
    std::string message =
        absl::StrCat(selection_.corpus().path(), ": none of its ", rows_, " records passes where ", Where());
    for (const Column& column : columns_) {
      if (column.role == "label") continue;
      const auto& values = values_.find(column.role)->second;
      absl::StrAppend(&message, "; ", Describe(column), " ",
                      values.empty() ? "is null or missing" : absl::StrCat("holds ", absl::StrJoin(values, ", ")),
                      values.size() == kValuesTold ? " ..." : "");
    }
    return absl::InvalidArgumentError(message);
  }

  absl::Status MissingLanguage(const std::string& language) const {
    std::set<std::string> there(unwanted_.begin(), unwanted_.end());
    for (const auto& [name, blocks] : languages_) there.insert(name);
    if (there.empty()) return NothingKept();
    return absl::InvalidArgumentError(absl::StrCat(selection_.corpus().path(), ": no record of language \"", language,
                                                   "\" where ", Where(), "; the languages there are ",
                                                   absl::StrJoin(there, ", ")));
  }

  const v1::Selection& selection_;
  const std::vector<Column> columns_;
  const std::vector<Column> record_columns_;
  const LabelReader labels_;
  v1::CorpusIndex index_;
  std::map<std::string, v1::CorpusIndex::Language> languages_;
  // Languages of records that pass `where` and were not asked for.
  std::set<std::string, std::less<>> unwanted_;
  // As long as nothing was kept: some values of each column that decides, for NothingKept.
  std::map<std::string, std::set<std::string, std::less<>>> values_;
  int64_t rows_ = 0;
};

// What stands on the wire before a language of so many bytes in an index.
std::string LanguageHead(size_t bytes) {
  constexpr uint32_t kLengthDelimited = 2;
  uint8_t head[20];
  uint8_t* end =
      CodedOutputStream::WriteTagToArray(v1::CorpusIndex::kLanguagesFieldNumber << 3 | kLengthDelimited, head);
  end = CodedOutputStream::WriteVarint64ToArray(bytes, end);
  return std::string(head, end);
}

}  // namespace

absl::StatusOr<v1::CorpusIndex> BuildIndex(const v1::Selection& selection) {
  RETURN_IF_ERROR(CheckSelection(selection));
  ASSIGN_OR_RETURN(const std::vector<SourceFile> files, ListFiles(selection.corpus().path()));
  IndexBuilder builder(selection);
  for (const SourceFile& file : files) RETURN_IF_ERROR(builder.AddFile(file));
  return builder.Finish();
}

std::string IndexDigest(const v1::CorpusIndex& index) {
  v1::CorpusIndex placeless;
  *placeless.mutable_selection() = index.selection();
  placeless.mutable_selection()->mutable_corpus()->clear_path();
  *placeless.mutable_files() = index.files();
  for (v1::CorpusIndex::File& file : *placeless.mutable_files()) {
    file.set_path(std::filesystem::path(file.path()).filename().string());
  }
  Sha256 digest;
  digest.Update(DeterministicBytes(placeless));
  // The blocks may be many: no copy of them is made. These are the bytes that the languages, the last field, have in
  // the message.
  for (const v1::CorpusIndex::Language& language : index.languages()) {
    const std::string bytes = DeterministicBytes(language);
    digest.Update(LanguageHead(bytes.size()));
    digest.Update(bytes);
  }
  return digest.Hex();
}

}  // namespace polystill::corpus
