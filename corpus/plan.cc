#include "corpus/plan.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <list>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "corpus/block_sections.h"
#include "corpus/index.h"
#include "corpus/language_sequence.h"
#include "corpus/mixture.h"
#include "corpus/pass_order.h"
#include "runtime/counter_rng.h"
#include "runtime/mutex.h"
#include "runtime/status.h"

namespace polystill::corpus {
namespace {

constexpr int kAlgorithm = 2;
constexpr int64_t kDefaultShuffleWindow = 65'536;
// Records that a plan may draw in all: positions are int64, with room for a last batch.
constexpr double kMaxDrawn = 0x1p62;
constexpr int64_t kMaxBlockRecords = std::numeric_limits<uint32_t>::max();
// Stretches of passes held for each language: the current one, and the next while steps are fetched ahead.
constexpr size_t kHeldStretches = 2;

// Words that keep the draws for the mixture and for the passes apart. Names, not indices, of languages enter the keys:
// a language that is added leaves the order of the others as it was.
constexpr uint64_t kMixtureWord = 1;
constexpr uint64_t kPassWord = 2;

// A part of a pass over a language, and the order of that pass.
struct HeldStretch {
  int64_t pass = 0;
  std::shared_ptr<const PassOrder> order;
  std::shared_ptr<const PassStretch> stretch;

  bool Holds(int64_t of_pass, int64_t position) const {
    return stretch != nullptr && pass == of_pass && stretch->Holds(position);
  }
};

// A language's records, and its latest stretches. Thread-safe.
class LanguageOrders {
 public:
  LanguageOrders(const v1::CorpusIndex::Language& language, uint64_t seed, int64_t window)
      : records_(language.records()),
        name_(NameWord(language.name())),
        seed_(seed),
        window_(window),
        sections_(language) {}

  int64_t records() const { return records_; }
  uint64_t Offset(int64_t cycle) const { return CombineKey(seed_, kMixtureWord, cycle, name_); }

  // The stretch that holds the position of the pass.
  HeldStretch StretchOf(int64_t pass, int64_t position) const {
    MutexLock lock(&mutex_);
    HeldStretch wanted{pass, nullptr, nullptr};
    for (const HeldStretch& held : held_) {
      if (held.Holds(pass, position)) return held;
      if (held.pass == pass) wanted.order = held.order;
    }
    if (wanted.order == nullptr) {
      wanted.order = std::make_shared<const PassOrder>(sections_, window_, CombineKey(seed_, kPassWord, name_, pass));
    }
    wanted.stretch = std::make_shared<const PassStretch>(wanted.order->StretchAt(position));
    held_.push_front(wanted);
    if (held_.size() > kHeldStretches) held_.pop_back();
    return wanted;
  }

 private:
  const int64_t records_;
  const uint64_t name_;
  const uint64_t seed_;
  const int64_t window_;
  const BlockSections sections_;
  mutable Mutex mutex_;
  // The newest first.
  mutable std::list<HeldStretch> held_ ABSL_GUARDED_BY(mutex_);
};

absl::Status CheckSegment(const v1::PlanSegment& segment, const v1::CorpusIndex& index) {
  if (segment.algorithm() != kAlgorithm) {
    return absl::InvalidArgumentError(
        absl::StrCat("the plan's algorithm is ", segment.algorithm(), "; this build knows ", kAlgorithm));
  }
  if (segment.batch_size() < 1) return absl::InvalidArgumentError("the plan's batch_size must be at least 1");
  if (segment.shuffle_window() < 0) return absl::InvalidArgumentError("the plan's shuffle_window must not be negative");
  if (index.languages().empty()) return absl::InvalidArgumentError("the corpus index holds no language");
  for (const v1::CorpusIndex::Language& language : index.languages()) {
    int64_t records = 0;
    for (const v1::CorpusIndex::Block& block : language.blocks()) {
      if (block.records() < 1) return absl::InvalidArgumentError("the corpus index holds an empty block");
      if (block.records() > kMaxBlockRecords) {
        return absl::InvalidArgumentError(absl::StrCat("the corpus index holds a block of ", block.records(),
                                                       " records; at most ", kMaxBlockRecords));
      }
      records += block.records();
    }
    if (records == 0 || records != language.records()) {
      return absl::InvalidArgumentError(absl::StrCat("the corpus index claims ", language.records(), " records of ",
                                                     language.name(), "; its blocks hold ", records));
    }
  }
  if (const std::string digest = IndexDigest(index); segment.index_digest() != digest) {
    return absl::InvalidArgumentError(absl::StrCat("the plan is for the corpus index ", segment.index_digest(),
                                                   ", and this one is ", digest,
                                                   ": the corpus or the selection changed"));
  }
  return absl::OkStatus();
}

}  // namespace

struct Plan::State {
  v1::PlanSegment segment;
  std::shared_ptr<const v1::CorpusIndex> index;
  Quotas quotas;
  std::vector<std::unique_ptr<LanguageOrders>> languages;

  LanguageSequence SequenceOf(int64_t cycle) const {
    std::vector<uint64_t> offsets;
    for (const auto& language : languages) offsets.push_back(language->Offset(cycle));
    return LanguageSequence(quotas.positions, std::move(offsets));
  }
};

Plan::Plan(std::unique_ptr<State> state) : state_(std::move(state)) {}
Plan::~Plan() = default;
Plan::Plan(Plan&&) noexcept = default;
Plan& Plan::operator=(Plan&&) noexcept = default;

absl::StatusOr<Plan> Plan::Create(v1::PlanSegment segment, std::shared_ptr<const v1::CorpusIndex> index) {
  RETURN_IF_ERROR(CheckSegment(segment, *index));
  auto state = std::make_unique<State>();
  const int64_t window = segment.shuffle_window() > 0 ? segment.shuffle_window() : kDefaultShuffleWindow;
  for (const v1::CorpusIndex::Language& language : index->languages()) {
    state->languages.push_back(std::make_unique<LanguageOrders>(language, segment.seed(), window));
  }
  ASSIGN_OR_RETURN(state->quotas, MakeQuotas(segment, *index));
  state->segment = std::move(segment);
  state->index = std::move(index);
  return Plan(std::move(state));
}

std::vector<RecordRef> Plan::Slice(int64_t step, int64_t first, int64_t last) const {
  const int64_t local = step - state_->segment.first_step();
  assert(local >= 0 && 0 <= first && first <= last && last <= state_->segment.batch_size());
  const int64_t cycle = local / state_->quotas.steps;
  const int64_t begin = local % state_->quotas.steps * state_->segment.batch_size() + first;
  std::vector<RecordRef> refs;
  refs.reserve(last - first);
  // What each language was last drawn from here, to lock once a stretch and not once a record.
  std::vector<HeldStretch> latest(state_->languages.size());
  for (const auto& [language, ordinal] : state_->SequenceOf(cycle).Slots(begin, last - first)) {
    const LanguageOrders& source = *state_->languages[language];
    // The language's records are drawn one after another over all cycles: this is the drawn-th.
    const int64_t drawn = cycle * state_->quotas.positions[language] + ordinal;
    const int64_t pass = drawn / source.records();
    const int64_t position = drawn % source.records();
    HeldStretch& held = latest[language];
    if (!held.Holds(pass, position)) held = source.StretchOf(pass, position);
    const PassStretch::Place place = held.stretch->At(position);
    refs.push_back({language, pass, place.block, place.row});
  }
  return refs;
}

Plan::Range Plan::SliceOf(int64_t batch_size, int rank, int world_size) {
  return {batch_size * rank / world_size, batch_size * (rank + 1) / world_size};
}

absl::StatusOr<int64_t> Plan::StepsForEpochs(double epochs) const {
  int64_t records = 0;
  for (const auto& language : state_->languages) records += language->records();
  const auto most = static_cast<double>(MostRecords(state_->segment.mixture(), *state_->index));
  const double drawn = std::min(epochs * static_cast<double>(records), most);
  if (!(drawn < kMaxDrawn)) {
    return absl::InvalidArgumentError(absl::StrCat("epochs: ", epochs, " passes over ", records,
                                                   " records are more than can be counted; write less"));
  }
  const double steps = drawn / state_->segment.batch_size();
  // A product that is whole but for rounding counts as whole.
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(steps * (1 - 1e-12))));
}

int64_t Plan::cycle_steps() const { return state_->quotas.steps; }
const std::vector<int64_t>& Plan::quotas() const { return state_->quotas.positions; }
const v1::PlanSegment& Plan::segment() const { return state_->segment; }
const v1::CorpusIndex& Plan::index() const { return *state_->index; }

}  // namespace polystill::corpus
