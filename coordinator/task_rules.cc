#include "coordinator/task_rules.h"

#include <google/protobuf/util/message_differencer.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/outputs.h"
#include "runtime/yaml_proto.h"
#include "soft_labels/codec.h"

namespace polystill::coordinator {
namespace {

using google::protobuf::util::MessageDifferencer;

template <typename Enum>
std::string NameOf(const google::protobuf::EnumDescriptor* type, Enum value) {
  return EnumName(type->FindValueByNumber(value));
}

class TaskRules {
 public:
  explicit TaskRules(const v1::RunSpec& spec) : spec_(spec), name_(NameOf(v1::Task_descriptor(), spec.task())) {}

  std::vector<Mistake> Check() {
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
    if (spec_.task() == v1::TASK_MASKED_LM) {
      if (spec_.masking().random() + spec_.masking().keep() > 1) {
        Add("masking", "random and keep are shares of the judged tokens: together at most 1");
      }
      return CheckMaskId();
    }
    v1::Masking defaults;
    FillDefaults(&defaults);
    if (!MessageDifferencer::Equals(spec_.masking(), v1::Masking()) &&
        !MessageDifferencer::Equals(spec_.masking(), defaults)) {
      Add("masking", absl::StrCat("goes with task: masked_lm only, not with ", name_));
    }
  }

  void CheckMaskId() {
    const v1::Tokenizer& tokenizer = spec_.tokenizer();
    if (tokenizer.kind() != v1::Tokenizer::KIND_IDS) return;
    if (tokenizer.mask_id() >= 0 && tokenizer.mask_id() < tokenizer.vocab_size()) return;
    Add("tokenizer.mask_id", absl::StrCat("is ", tokenizer.mask_id(),
                                          "; with task: masked_lm and kind: ids write the id that stands for a hidden "
                                          "token, below vocab_size, ",
                                          tokenizer.vocab_size()));
  }

  void CheckLabels() {
    const int labels = spec_.corpus().labels_size();
    if (spec_.task() == v1::TASK_MASKED_LM) {
      if (labels > 0) Add("corpus.labels", "task: masked_lm predicts tokens, not labels; leave them out");
      return;
    }
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
      const v1::Loss& loss = spec_.student().losses(i);
      const v1::LossKind kind = loss.kind();
      const std::string path = absl::StrCat("student.losses.", i, ".kind");
      if (kind == v1::LOSS_KIND_SOFT_LABEL && models::HasSigmoids(spec_.task())) {
        Add(path, absl::StrCat("soft_label is of one label among several, but with task: ", name_,
                               " each has its sigmoid; write binary"));
      }
      if (kind == v1::LOSS_KIND_BINARY && !models::HasSigmoids(spec_.task())) {
        Add(path, absl::StrCat("binary goes with task: binary or multi_label; with ", name_, " write soft_label"));
      }
      CheckCodec(absl::StrCat("student.losses.", i), loss);
    }
  }

  // What a codec holds besides what a loss needs: a distribution over so many logits, of a teacher that shows its head.
  void CheckCodec(const std::string& path, const v1::Loss& loss) {
    if (loss.kind() == v1::LOSS_KIND_TASK || soft_labels::IsDense(loss.codec())) return;
    const std::string codec = soft_labels::CodecName(loss.codec());
    if (models::HasSigmoids(spec_.task())) {
      return Add(path + ".codec", absl::StrCat(codec, " is of a softmax, but with task: ", name_,
                                               " each label has its sigmoid; write dense_fp16"));
    }
    const int64_t logits =
        models::LogitCount(spec_.task(), spec_.corpus().labels_size(), spec_.tokenizer().vocab_size());
    if (loss.codec() == v1::CODEC_TOP_K && loss.k() > logits) {
      Add(path + ".k", absl::StrCat("is ", loss.k(), ", but there are ", logits, " logits; write at most so many"));
    }
    for (const v1::Teacher& teacher : spec_.teachers()) {
      if (!loss.teacher().empty() && loss.teacher() != teacher.name()) continue;
      const bool script = teacher.train().model().kind() == v1::Model::KIND_TORCHSCRIPT;
      if (loss.codec() != v1::CODEC_HIDDEN_HEAD || !script) continue;
      Add(path + ".codec", absl::StrCat("hidden_head needs a teacher that shows its output head, but '", teacher.name(),
                                        "' is a torchscript module; write dense_fp16, top_k or sampled"));
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
    if (spec_.task() == v1::TASK_MASKED_LM) {
      const bool has = metric == v1::Evaluate::METRIC_ACCURACY || metric == v1::Evaluate::METRIC_TOP_K ||
                       metric == v1::Evaluate::METRIC_PERPLEXITY;
      return has ? "" : " is of labels; with task: masked_lm write accuracy, top_k or perplexity";
    }
    switch (metric) {
      case v1::Evaluate::METRIC_TOP_K:
        return models::HasSigmoids(spec_.task())
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

  void CheckEarlyStopping(const std::string& path, const v1::EarlyStopping& early_stopping) {
    if (spec_.task() != v1::TASK_MASKED_LM || early_stopping.metric() != v1::EarlyStopping::METRIC_MACRO_F1) return;
    Add(path + ".early_stopping.metric", "macro_f1 is of labels; with task: masked_lm write accuracy or loss");
  }

  void CheckTokens() {
    CheckEarlyStopping("student", spec_.student().early_stopping());
    for (int i = 0; i < spec_.teachers_size(); ++i) {
      CheckEarlyStopping(absl::StrCat("teachers.", i, ".train"), spec_.teachers(i).train().early_stopping());
    }
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
