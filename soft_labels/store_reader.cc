#include "soft_labels/store_reader.h"

#include <arrow/array.h>
#include <arrow/io/file.h>
#include <arrow/table.h>
#include <arrow/util/byte_size.h>
#include <parquet/arrow/reader.h>

#include <list>
#include <map>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/manifest.h"
#include "runtime/arrow_status.h"
#include "runtime/files.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "soft_labels/decode.h"
#include "soft_labels/head.h"
#include "soft_labels/store_columns.h"
#include "soft_labels/store_manifest.h"
#include "soft_labels/store_units.h"

namespace polystill::soft_labels {
namespace {

constexpr absl::StatusCode kTorn = absl::StatusCode::kDataLoss;
// Of an entry of a part's rows beside the id: hash node, string.
constexpr int64_t kPlaceOverhead = 80;
// The key of a part's rows; row groups count from 0.
constexpr int kRowsOfPart = -1;

// Where a record's labels are in a part.
struct Place {
  int group = 0;
  int64_t row = 0;
};

// Either a part's places by record id, or a row group.
struct Entry {
  std::unordered_map<std::string, Place> places;
  std::shared_ptr<arrow::Table> table;
  int64_t bytes = 0;
};

// Entries by part and row group, the least recently used go first.
class Cache {
 public:
  using Key = std::pair<int, int>;
  explicit Cache(int64_t capacity) : capacity_(capacity) {}

  std::shared_ptr<const Entry> Get(Key key) {
    const auto found = by_key_.find(key);
    if (found == by_key_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, found->second);
    return found->second->second;
  }

  void Put(Key key, std::shared_ptr<const Entry> entry) {
    bytes_ += entry->bytes;
    entries_.emplace_front(key, std::move(entry));
    by_key_[key] = entries_.begin();
    while (bytes_ > capacity_ && entries_.size() > 1) {
      bytes_ -= entries_.back().second->bytes;
      by_key_.erase(entries_.back().first);
      entries_.pop_back();
    }
  }

 private:
  const int64_t capacity_;
  int64_t bytes_ = 0;
  std::list<std::pair<Key, std::shared_ptr<const Entry>>> entries_;
  std::map<Key, decltype(entries_)::iterator> by_key_;
};

arrow::Result<std::unique_ptr<parquet::arrow::FileReader>> OpenParquet(const std::string& path) {
  ARROW_ASSIGN_OR_RAISE(auto file, arrow::io::ReadableFile::Open(path));
  return parquet::arrow::OpenFile(std::move(file), arrow::default_memory_pool());
}

// One chunk a column.
arrow::Result<std::shared_ptr<arrow::Table>> ReadGroup(parquet::arrow::FileReader* reader, int group,
                                                       const std::set<std::string>& columns) {
  std::vector<int> leaves;
  const auto* schema = reader->parquet_reader()->metadata()->schema();
  for (int leaf = 0; leaf < schema->num_columns(); ++leaf) {
    if (columns.contains(schema->GetColumnRoot(leaf)->name())) leaves.push_back(leaf);
  }
  ARROW_ASSIGN_OR_RAISE(const auto table, reader->ReadRowGroup(group, leaves));
  return table->CombineChunks();
}

}  // namespace

struct LabelStore::State {
  State(std::string folder, v1::LabelStoreManifest manifest, Options options)
      : folder(std::move(folder)), manifest(std::move(manifest)), units(this->manifest), cache(options.cache_bytes) {}

  std::string PathOf(int part) const {
    return absl::StrCat(folder, "/", kStoreLabelsFolder, "/", manifest.parts(part).file().name());
  }

  absl::Status CheckPart(int part);
  absl::StatusOr<std::shared_ptr<const Entry>> PlacesIn(int part);
  absl::StatusOr<std::shared_ptr<const Entry>> Group(int part, int group);
  absl::Status Find(const corpus::RecordRef& ref, const std::string& id, int* part, Place* place);

  const std::string folder;
  const v1::LabelStoreManifest manifest;
  const StoreUnits units;
  std::shared_ptr<const v1::CorpusIndex> index;
  // Of the outputs that Read may be asked for.
  std::set<std::string> columns;
  std::set<int> checked;
  Cache cache;
  int64_t groups_decoded = 0;
};

absl::Status LabelStore::State::CheckPart(int part) {
  if (checked.contains(part)) return absl::OkStatus();
  const std::string path = PathOf(part);
  const auto sha256 = Sha256File(path);
  if (!sha256.ok()) return absl::DataLossError(sha256.status().message());
  if (*sha256 != manifest.parts(part).file().sha256()) {
    return absl::DataLossError(absl::StrCat(path, ": its SHA-256 is not the one in ", kStoreManifestFile,
                                            ": it is torn, or another store's; the `polystill label` that "
                                            "wrote it makes it anew when it is run again"));
  }
  checked.insert(part);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const Entry>> LabelStore::State::PlacesIn(int part) {
  if (auto held = cache.Get({part, kRowsOfPart}); held != nullptr) return held;
  RETURN_IF_ERROR(CheckPart(part));
  const std::string path = PathOf(part);
  ASSIGN_OR_RETURN(const auto reader, FromArrow(OpenParquet(path), kTorn, path));
  auto entry = std::make_shared<Entry>();
  for (int group = 0; group < reader->num_row_groups(); ++group) {
    ASSIGN_OR_RETURN(const auto table, FromArrow(ReadGroup(reader.get(), group, {"id"}), kTorn, path));
    const bool fits = table->num_columns() == 1 && table->column(0)->num_chunks() <= 1 &&
                      table->column(0)->type()->id() == arrow::Type::STRING;
    if (!fits) return absl::DataLossError(absl::StrCat(path, ": has no column 'id' of strings"));
    for (int64_t row = 0; row < table->num_rows(); ++row) {
      std::string id(static_cast<const arrow::StringArray&>(*table->column(0)->chunk(0)).GetView(row));
      entry->bytes += static_cast<int64_t>(id.capacity()) + kPlaceOverhead;
      entry->places[std::move(id)] = {group, row};
    }
  }
  cache.Put({part, kRowsOfPart}, entry);
  return entry;
}

absl::StatusOr<std::shared_ptr<const Entry>> LabelStore::State::Group(int part, int group) {
  if (auto held = cache.Get({part, group}); held != nullptr) return held;
  const std::string path = PathOf(part);
  ASSIGN_OR_RETURN(const auto reader, FromArrow(OpenParquet(path), kTorn, path));
  auto entry = std::make_shared<Entry>();
  ASSIGN_OR_RETURN(entry->table, FromArrow(ReadGroup(reader.get(), group, columns), kTorn, path));
  entry->bytes = arrow::util::TotalBufferSize(*entry->table);
  ++groups_decoded;
  cache.Put({part, group}, entry);
  return entry;
}

absl::Status LabelStore::State::Find(const corpus::RecordRef& ref, const std::string& id, int* part, Place* place) {
  const v1::CorpusIndex::Block& block = index->languages(ref.language).blocks(ref.block);
  const v1::CorpusIndex::File& file = index->files(block.file());
  for (const int candidate : units.PartsOf(file.sha256(), block)) {
    ASSIGN_OR_RETURN(const std::shared_ptr<const Entry> entry, PlacesIn(candidate));
    const auto found = entry->places.find(id);
    if (found == entry->places.end()) continue;
    *part = candidate;
    *place = found->second;
    return absl::OkStatus();
  }
  return absl::NotFoundError(absl::StrCat(folder, ": holds no label of record '", id, "' of ", file.path(),
                                          "; label again with a --where and --languages that keep it, or leave it out "
                                          "with student.where"));
}

LabelStore::LabelStore(std::unique_ptr<State> state) : state_(std::move(state)) {}
LabelStore::~LabelStore() = default;

absl::StatusOr<std::unique_ptr<LabelStore>> LabelStore::Open(const std::string& folder, Options options) {
  ASSIGN_OR_RETURN(v1::LabelStoreManifest manifest, ReadStore(folder));
  auto state = std::make_unique<State>(folder, std::move(manifest), options);
  return std::unique_ptr<LabelStore>(new LabelStore(std::move(state)));
}

const std::string& LabelStore::folder() const { return state_->folder; }
const v1::LabelStoreManifest& LabelStore::manifest() const { return state_->manifest; }
int64_t LabelStore::groups_decoded() const { return state_->groups_decoded; }

absl::Status LabelStore::UseIndex(std::shared_ptr<const v1::CorpusIndex> index) {
  RETURN_IF_ERROR(Annotate(CheckHolds(state_->manifest, *index), state_->folder));
  state_->index = std::move(index);
  return absl::OkStatus();
}

absl::StatusOr<std::string> LabelStore::ReadHead() const {
  const v1::FileDigest& head = state_->manifest.head();
  const std::string path = absl::StrCat(state_->folder, "/", kStoreHeadFile);
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxHeadBytes));
  RETURN_IF_ERROR(checkpoint::CheckDigest(head, bytes, path));
  return bytes;
}

void LabelStore::UseOutputs(const Outputs& outputs) {
  for (const Output& output : outputs) {
    for (std::string& column : ColumnNames(state_->manifest.spec(), output)) state_->columns.insert(std::move(column));
  }
}

absl::StatusOr<LabelClient::Labels> LabelStore::Read(const Outputs& outputs, const std::vector<corpus::RecordRef>& refs,
                                                     const std::vector<v1::LabelInput>& inputs) {
  const v1::LabelSpec& spec = state_->manifest.spec();
  std::vector<v1::SoftLabels> answers(outputs.size());
  std::vector<std::vector<RecordSize>> sizes(outputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    int part = 0;
    Place place;
    RETURN_IF_ERROR(state_->Find(refs[i], inputs[i].id(), &part, &place));
    ASSIGN_OR_RETURN(const std::shared_ptr<const Entry> group, state_->Group(part, place.group));
    for (size_t o = 0; o < outputs.size(); ++o) {
      const auto labels = LabelsAt(*group->table, place.row, spec, outputs[o]);
      absl::Status status = labels.status();
      if (status.ok()) status = Append(*labels, &answers[o]);
      if (!status.ok()) {
        return absl::DataLossError(
            absl::StrCat(state_->PathOf(part), ": record '", inputs[i].id(), "': ", status.message()));
      }
      sizes[o].push_back(SizeOf(spec, outputs[o], inputs[i]));
    }
  }
  LabelClient::Labels read;
  for (size_t o = 0; o < outputs.size(); ++o) {
    const auto name = [&](int64_t row) { return NameOfRow(outputs[o], inputs, row); };
    auto array = Decode(answers[o], spec, outputs[o], sizes[o], name);
    if (!array.ok()) return absl::DataLossError(absl::StrCat(state_->folder, ": ", array.status().message()));
    read.outputs.push_back(*std::move(array));
    read.bytes += static_cast<int64_t>(answers[o].dense().data().size() + answers[o].packed().size());
  }
  return read;
}

}  // namespace polystill::soft_labels
