#include "corpus/reader.h"

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "corpus/block_cache.h"
#include "corpus/decode.h"
#include "corpus/files.h"
#include "corpus/source.h"
#include "runtime/status.h"

namespace polystill::corpus {
namespace {

// Files held open at most.
constexpr size_t kOpenFiles = 64;

using UnitKey = std::tuple<int, int, int64_t>;

UnitKey KeyOf(const v1::CorpusIndex::Block& block) { return {block.file(), block.row_group(), block.offset()}; }

bool InOrder(const v1::CorpusIndex::Block& a, const v1::CorpusIndex::Block& b) { return KeyOf(a) < KeyOf(b); }

}  // namespace

struct Reader::State {
  State(std::shared_ptr<const v1::CorpusIndex> index, const Options& options)
      : index(std::move(index)), cache(options.cache_bytes) {}

  absl::Status CheckFiles();
  absl::Status CheckOrder() const;
  absl::StatusOr<Source*> Open(int file);
  absl::StatusOr<BlockCache::Records> Block(BlockCache::Key key);
  absl::StatusOr<BlockCache::Records> DecodeBlock(BlockCache::Key key);
  absl::Status CheckRef(int language, int block) const;

  const std::shared_ptr<const v1::CorpusIndex> index;
  std::vector<SourceFile> files;
  std::map<int, std::unique_ptr<Source>> sources;
  BlockCache cache;
  int64_t blocks_decoded = 0;
};

absl::Status Reader::State::CheckFiles() {
  for (const v1::CorpusIndex::File& file : index->files()) {
    auto found = ListFiles(file.path());
    if (!found.ok() || found->front().bytes != file.bytes()) {
      return absl::FailedPreconditionError(
          absl::StrCat("the corpus changed since it was indexed: ", file.path(), " had ", file.bytes(), " bytes and ",
                       found.ok() ? absl::StrCat("has ", found->front().bytes) : "is gone", "; start the run anew"));
    }
    files.push_back(std::move(found->front()));
  }
  return absl::OkStatus();
}

absl::Status Reader::State::CheckOrder() const {
  for (const v1::CorpusIndex::Language& language : index->languages()) {
    const auto& blocks = language.blocks();
    const auto repeats = [](const auto& a, const auto& b) { return !InOrder(a, b); };
    if (std::adjacent_find(blocks.begin(), blocks.end(), repeats) != blocks.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the corpus index does not hold the blocks of ", language.name(), " in their order"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Source*> Reader::State::Open(int file) {
  if (sources.size() >= kOpenFiles && !sources.contains(file)) sources.clear();
  std::unique_ptr<Source>& source = sources[file];
  if (source == nullptr) {
    ASSIGN_OR_RETURN(source, OpenSource(files.at(file)));
  }
  return source.get();
}

absl::StatusOr<BlockCache::Records> Reader::State::Block(BlockCache::Key key) {
  if (BlockCache::Records held = cache.Get(key); held != nullptr) return held;
  return DecodeBlock(key);
}

absl::StatusOr<BlockCache::Records> Reader::State::DecodeBlock(BlockCache::Key key) {
  const v1::CorpusIndex::Block& unit = index->languages(key.first).blocks(key.second);
  ASSIGN_OR_RETURN(Source* const source, Open(unit.file()));
  ASSIGN_OR_RETURN(std::vector<Record> records, DecodeRecords(index->selection(), *source, unit));
  std::map<std::string, std::vector<Record>> by_language;
  for (Record& record : records) by_language[record.language].push_back(std::move(record));
  BlockCache::Records wanted;
  for (int other = 0; other < index->languages_size(); ++other) {
    // The language's block of the same unit, if there is one: found by search, so that nothing is held for each block.
    const v1::CorpusIndex::Language& language = index->languages(other);
    const auto block = std::lower_bound(language.blocks().begin(), language.blocks().end(), unit, InOrder);
    if (block == language.blocks().end() || KeyOf(*block) != KeyOf(unit)) continue;
    auto held = std::make_shared<const std::vector<Record>>(std::move(by_language[language.name()]));
    const int64_t indexed = block->records();
    if (static_cast<int64_t>(held->size()) != indexed) {
      return absl::DataLossError(absl::StrCat(source->name(), ": a block holds ", held->size(), " records of ",
                                              language.name(), " and held ", indexed,
                                              " when it was indexed: the corpus changed; start the run anew"));
    }
    ++blocks_decoded;
    if (other == key.first) {
      wanted = std::move(held);
    } else {
      cache.Put({other, static_cast<int>(block - language.blocks().begin())}, std::move(held));
    }
  }
  // Last, so that none of the others pushes it out.
  cache.Put(key, wanted);
  return wanted;
}

absl::Status Reader::State::CheckRef(int language, int block) const {
  if (language < 0 || language >= index->languages_size() || block < 0 ||
      block >= index->languages(language).blocks_size()) {
    return absl::OutOfRangeError(absl::StrCat("the index has no language ", language, " with a block ", block));
  }
  return absl::OkStatus();
}

Reader::Reader(std::unique_ptr<State> state) : state_(std::move(state)) {}
Reader::~Reader() = default;

absl::StatusOr<std::unique_ptr<Reader>> Reader::Open(std::shared_ptr<const v1::CorpusIndex> index, Options options) {
  auto state = std::make_unique<State>(std::move(index), options);
  RETURN_IF_ERROR(state->CheckFiles());
  RETURN_IF_ERROR(state->CheckOrder());
  return std::unique_ptr<Reader>(new Reader(std::move(state)));
}

absl::StatusOr<std::vector<Record>> Reader::Read(const std::vector<RecordRef>& refs) {
  std::vector<Record> records;
  records.reserve(refs.size());
  for (const RecordRef& ref : refs) {
    RETURN_IF_ERROR(state_->CheckRef(ref.language, ref.block));
    ASSIGN_OR_RETURN(const BlockCache::Records block, state_->Block({ref.language, ref.block}));
    if (ref.row < 0 || ref.row >= static_cast<int64_t>(block->size())) {
      return absl::OutOfRangeError(absl::StrCat("a block of ", block->size(), " records has no record ", ref.row));
    }
    records.push_back((*block)[ref.row]);
  }
  return records;
}

absl::StatusOr<std::vector<Record>> Reader::ReadBlock(int language, int block) {
  RETURN_IF_ERROR(state_->CheckRef(language, block));
  ASSIGN_OR_RETURN(const BlockCache::Records records, state_->Block({language, block}));
  return *records;
}

int64_t Reader::blocks_decoded() const { return state_->blocks_decoded; }

}  // namespace polystill::corpus
