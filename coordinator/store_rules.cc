#include "coordinator/store_rules.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/jobs.h"
#include "models/outputs.h"
#include "runtime/status.h"
#include "soft_labels/codec.h"
#include "soft_labels/outputs.h"
#include "soft_labels/store_manifest.h"

namespace polystill::coordinator {
namespace {

class StoreRules {
 public:
  StoreRules(const v1::RunSpec& spec, int i)
      : spec_(spec), teacher_(spec.teachers(i)), path_(absl::StrCat("teachers.", i)) {}

  std::vector<Mistake> Check() {
    auto store = soft_labels::ReadStore(teacher_.store());
    if (!store.ok()) return {{path_ + ".store", std::string(store.status().message())}};
    store_ = *std::move(store);
    AddIf(path_ + ".reads", soft_labels::CheckStoredSide(store_, teacher_.reads(), spec_.task()));
    CheckClasses();
    CheckLength();
    for (int i = 0; i < spec_.student().losses_size(); ++i) {
      CheckLoss(absl::StrCat("student.losses.", i), spec_.student().losses(i));
    }
    CheckPseudoLabel();
    return std::move(mistakes_);
  }

 private:
  void Add(const std::string& path, const std::string& what) { mistakes_.push_back({path, what}); }
  void AddIf(const std::string& path, const absl::Status& status) {
    if (!status.ok()) Add(path, std::string(status.message()));
  }

  bool IsAsked(const v1::Loss& loss) const {
    return loss.kind() != v1::LOSS_KIND_TASK &&
           (loss.teacher() == teacher_.name() || (loss.teacher().empty() && &teacher_ == &spec_.teachers(0)));
  }

  void CheckClasses() {
    const v1::Signature& signature = store_.teacher().signature();
    const auto& labels = signature.labels();
    const auto& wanted = spec_.corpus().labels();
    if (!models::GivesLogits(signature) || std::equal(labels.begin(), labels.end(), wanted.begin(), wanted.end())) {
      return;
    }
    Add(path_ + ".store", absl::StrCat(teacher_.store(), " is of the classes ", absl::StrJoin(labels, ", "),
                                       "; corpus.labels are ", absl::StrJoin(wanted, ", ")));
  }

  // Of a corpus of token ids, which the teacher was asked about as they are.
  void CheckLength() {
    const v1::Signature& signature = store_.teacher().signature();
    const v1::Tokenizer& tokenizer = spec_.tokenizer();
    if (tokenizer.kind() != v1::Tokenizer::KIND_IDS || signature.input() != v1::Signature::INPUT_IDS ||
        tokenizer.max_length() == signature.max_length()) {
      return;
    }
    Add("tokenizer.max_length",
        absl::StrCat("is ", tokenizer.max_length(), "; the labels in ", teacher_.store(), " are of at most ",
                     signature.max_length(), " ids of a record: write that"));
  }

  // `who`: what asks for it, where that is not the loss itself; or nothing.
  void CheckLoss(const std::string& path, const v1::Loss& loss, const std::string& who = "") {
    if (!IsAsked(loss)) return;
    for (const std::string& output : soft_labels::TeacherOutputsOf(loss)) {
      const absl::Status stored = soft_labels::CheckStored(store_, output, soft_labels::SettingsOf(loss));
      AddIf(path, who.empty() ? stored : Annotate(stored, who));
    }
  }

  void CheckPseudoLabel() {
    for (int i = 0; i < spec_.baselines_size(); ++i) {
      if (spec_.baselines(i) != v1::BASELINE_PSEUDO_LABEL) continue;
      for (const v1::Loss& loss : PseudoLabelLosses(spec_.student())) {
        if (mistakes_.empty()) CheckLoss(absl::StrCat("baselines.", i), loss, "pseudo_label");
      }
    }
  }

  const v1::RunSpec& spec_;
  const v1::Teacher& teacher_;
  const std::string path_;
  v1::LabelStoreManifest store_;
  std::vector<Mistake> mistakes_;
};

}  // namespace

std::vector<Mistake> CheckStore(const v1::RunSpec& spec, int i) { return StoreRules(spec, i).Check(); }

}  // namespace polystill::coordinator
