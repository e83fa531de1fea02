#include "coordinator/task_rules.h"

#include <google/protobuf/util/message_differencer.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/outputs.h"
#include "runtime/yaml_proto.h"

namespace polystill::coordinator {
namespace {

using google::protobuf::util::MessageDifferencer;

bool HasSigmoids(v1::Task task) { return task == v1::TASK_BINARY || task == v1::TASK_MULTI_LABEL; }

template <typename Enum>
std::string NameOf(const google::protobuf::EnumDescriptor* type, Enum value) {
  return EnumName(type->FindValueByNumber(value));
}

class TaskRules {
 public:
  explicit TaskRules(const v1::RunSpec& spec) : spec_(spec), name_(NameOf(v1::Task_descriptor(), spec.task())) {}

  std::vector<Mistake> Check() {
    if (spec_.task() == v1::TASK_MASKED_LM) {
      Add("task", "masked_lm is not there yet; write classification, binary, multi_label or token_classification");
      return std::move(mistakes_);
    }
    CheckMasking();
    CheckLabels();
    CheckLosses();
    CheckMetrics();
    if (models::JudgesTokens(spec_.task())) CheckTokens();
    return std::move(mistakes_);
  }

 private:
  void Add(const std::string& path, const std::string& what) { mistakes_.push_back({path, what}); }

  void CheckMasking() {
    v1::Masking defaults;
    FillDefaults(&defaults);
    if (!MessageDifferencer::Equals(spec_.masking(), v1::Masking()) &&
        !MessageDifferencer::Equals(spec_.masking(), defaults)) {
      Add("masking", absl::StrCat("goes with task: masked_lm only, not with ", name_));
    }
  }

  void CheckLabels() {
    const int labels = spec_.corpus().labels_size();
    if (labels == 0) {
      Add("corpus.labels", "is missing or empty; write the classes, in the order of the model's outputs");
    } else if (spec_.task() == v1::TASK_BINARY) {
      if (labels == 2) return;
      Add("corpus.labels", absl::StrCat("has ", labels,
                                        "; task: binary needs exactly 2, of which the second is the one "
                                        "that the model's logit speaks of; for more write task: classification or "
                                        "multi_label"));
    } else if (labels == 1 && spec_.task() != v1::TASK_MULTI_LABEL) {
      Add("corpus.labels", "has one class; a classifier needs at least 2");
    }
  }

  void CheckLosses() {
    for (int i = 0; i < spec_.student().losses_size(); ++i) {
      const v1::LossKind kind = spec_.student().losses(i).kind();
      const std::string path = absl::StrCat("student.losses.", i, ".kind");
      if (kind == v1::LOSS_KIND_SOFT_LABEL && HasSigmoids(spec_.task())) {
        Add(path, absl::StrCat("soft_label is of one label among several, but with task: ", name_,
                               " each has its sigmoid; write binary"));
      }
      if (kind == v1::LOSS_KIND_BINARY && !HasSigmoids(spec_.task())) {
        Add(path, absl::StrCat("binary goes with task: binary or multi_label; with ", name_, " write soft_label"));
      }
    }
  }

  void CheckMetrics() {
    for (int i = 0; i < spec_.evaluate().metrics_size(); ++i) {
      const std::string remedy = RemedyOf(spec_.evaluate().metrics(i));
      if (remedy.empty()) continue;
      const std::string metric = NameOf(v1::Evaluate::Metric_descriptor(), spec_.evaluate().metrics(i));
      Add(absl::StrCat("evaluate.metrics.", i), absl::StrCat(metric, remedy));
    }
  }

  // Why the task has no such metric, and what to write; empty when it has.
  std::string RemedyOf(int metric) const {
    switch (metric) {
      case v1::Evaluate::METRIC_TOP_K:
        return HasSigmoids(spec_.task())
                   ? absl::StrCat(" ranks one label among several; with task: ", name_, " write accuracy or macro_f1")
                   : "";
      case v1::Evaluate::METRIC_MICRO_PRECISION:
      case v1::Evaluate::METRIC_MICRO_RECALL:
        return spec_.task() == v1::TASK_MULTI_LABEL
                   ? ""
                   : absl::StrCat(" goes with task: multi_label only; with ", name_, " it is the accuracy");
      case v1::Evaluate::METRIC_PERPLEXITY:
        return " goes with task: masked_lm only";
      default:
        return "";
    }
  }

  void CheckTokens() {
    CheckTokenModel("student.model", spec_.student().model());
    for (int i = 0; i < spec_.teachers_size(); ++i) {
      const v1::Teacher& teacher = spec_.teachers(i);
      const std::string path = absl::StrCat("teachers.", i);
      if (teacher.has_train()) CheckTokenModel(path + ".train.model", teacher.train().model());
      if (teacher.reads() == spec_.student().reads()) continue;
      Add(path + ".reads", absl::StrCat("the student reads ", NameOf(v1::Side_descriptor(), spec_.student().reads()),
                                        ": with task: ", name_, " both judge the same words, so write the same side"));
    }
  }

  void CheckTokenModel(const std::string& path, const v1::Model& model) {
    if (model.kind() != v1::Model::KIND_SUBWORD_BAG) return;
    Add(path + ".kind", absl::StrCat("subword_bag judges whole texts; task: ", name_, " needs transformer"));
  }

  const v1::RunSpec& spec_;
  const std::string name_;
  std::vector<Mistake> mistakes_;
};

}  // namespace

std::vector<Mistake> CheckTask(const v1::RunSpec& spec) { return TaskRules(spec).Check(); }

}  // namespace polystill::coordinator
