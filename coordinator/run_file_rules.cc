#include "coordinator/run_file_rules.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/jobs.h"
#include "coordinator/kind_rules.h"
#include "coordinator/store_rules.h"
#include "coordinator/stragglers.h"
#include "coordinator/task_rules.h"
#include "corpus/where_roles.h"
#include "runtime/files.h"
#include "runtime/nearest_name.h"
#include "runtime/yaml_proto.h"

namespace polystill::coordinator {
namespace {

// What a model package holds at least (docs/formats.md).
constexpr char kManifest[] = "teacher.yaml";

// A name that is safe as a folder's name.
bool IsName(const std::string& name) {
  constexpr size_t kMaxName = 128;
  return !name.empty() && name.size() <= kMaxName && name[0] != '.' && name[0] != '-' &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.'; });
}

bool IsAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  return colon != std::string::npos && colon > 0 && absl::SimpleAtoi(address.substr(colon + 1), &port) && port > 0 &&
         port < 65536;
}

class Rules {
 public:
  explicit Rules(const v1::RunSpec& spec) : spec_(spec) {}

  std::vector<Mistake> Check() {
    CheckName("name", spec_.name());
    AddAll(CheckTask(spec_));
    CheckCorpusAndTokenizer();
    std::set<std::string> names;
    for (int i = 0; i < spec_.teachers_size(); ++i)
      CheckTeacher(absl::StrCat("teachers.", i), spec_.teachers(i), &names);
    CheckStudent();
    CheckBaselines();
    CheckWhere("evaluate.where", spec_.evaluate().where());
    CheckEachOnce("evaluate.languages", spec_.evaluate().languages(), [](const std::string& name) { return name; });
    CheckEachOnce("evaluate.metrics", spec_.evaluate().metrics(),
                  [](int metric) { return EnumName(v1::Evaluate::Metric_descriptor()->FindValueByNumber(metric)); });
    return std::move(mistakes_);
  }

 private:
  void Add(const std::string& path, const std::string& what) { mistakes_.push_back({path, what}); }

  void AddAll(std::vector<Mistake> mistakes) {
    for (Mistake& mistake : mistakes) mistakes_.push_back(std::move(mistake));
  }

  void CheckName(const std::string& path, const std::string& name) {
    if (IsName(name)) return;
    Add(path, absl::StrCat("'", name,
                           "' is no name; write letters, digits, '-', '_' and '.', a letter or digit first, at "
                           "most 128"));
  }

  template <typename List, typename NameOf>
  void CheckEachOnce(const std::string& path, const List& list, const NameOf& name_of) {
    std::set<std::string> seen;
    for (int i = 0; i < list.size(); ++i) {
      const std::string name = name_of(list[i]);
      if (name.empty()) Add(absl::StrCat(path, ".", i), "is empty");
      if (!seen.insert(name).second) Add(absl::StrCat(path, ".", i), absl::StrCat("'", name, "' is listed twice"));
    }
  }

  template <typename Where>
  void CheckWhere(const std::string& path, const Where& where) {
    const std::vector<std::string> roles(corpus::kWhereRoles.begin(), corpus::kWhereRoles.end());
    for (const auto& [role, value] : where) {
      if (std::find(roles.begin(), roles.end(), role) != roles.end()) continue;
      const std::string meant = RoleOfColumn(role, roles);
      Add(absl::StrCat(path, ".", role),
          absl::StrCat("no column role that records can be chosen by",
                       meant.empty() ? Suggestion(role, roles)
                                     : absl::StrCat("; the column is that of the role ", meant, ": write ", meant)));
    }
  }

  // Of `roles`, the one whose column the corpus calls `name`; empty when none is.
  std::string RoleOfColumn(const std::string& name, const std::vector<std::string>& roles) const {
    const v1::Columns& columns = spec_.corpus().columns();
    const auto is_called = [&](const std::string& role) {
      return columns.GetReflection()->GetString(columns, v1::Columns::descriptor()->FindFieldByName(role)) == name;
    };
    const auto found = std::find_if(roles.begin(), roles.end(), is_called);
    return found == roles.end() ? "" : *found;
  }

  void CheckCorpusAndTokenizer() {
    CheckEachOnce("corpus.labels", spec_.corpus().labels(), [](const std::string& label) { return label; });
    const v1::Tokenizer& tokenizer = spec_.tokenizer();
    if (tokenizer.kind() == v1::Tokenizer::KIND_IDS && !tokenizer.path().empty()) {
      Add("tokenizer.path", "goes with kind: sentencepiece only; with kind: ids the corpus holds token ids already");
    }
  }

  void CheckTeacher(const std::string& path, const v1::Teacher& teacher, std::set<std::string>* names) {
    CheckName(absl::StrCat(path, ".name"), teacher.name());
    if (!names->insert(teacher.name()).second) {
      Add(absl::StrCat(path, ".name"), absl::StrCat("a second teacher called '", teacher.name(), "'"));
    }
    const int ways = int{teacher.has_train()} + int{!teacher.package().empty()} + int{!teacher.address().empty()} +
                     int{!teacher.store().empty()};
    if (ways != 1) {
      Add(path, absl::StrCat("has ", ways == 0 ? "none" : "more than one",
                             " of train, package, address and store; write exactly one"));
    }
    if (!teacher.address().empty() && !IsAddress(teacher.address())) {
      Add(absl::StrCat(path, ".address"), absl::StrCat("'", teacher.address(), "' is not host:port"));
    }
    if (teacher.replicas() > 1 && (!teacher.address().empty() || !teacher.store().empty())) {
      Add(absl::StrCat(path, ".replicas"),
          absl::StrCat("goes with train or package; a teacher with ",
                       teacher.store().empty() ? "an address" : "a store", " is not started here"));
    }
    if (!teacher.has_train()) return;
    AddAll(CheckModelKeys(absl::StrCat(path, ".train.model"), teacher.train().model()));
    CheckWhere(absl::StrCat(path, ".train.where"), teacher.train().where());
    CheckWhere(absl::StrCat(path, ".train.early_stopping.where"), teacher.train().early_stopping().where());
    if (teacher.train().loss() != v1::LOSS_KIND_TASK) {
      Add(absl::StrCat(path, ".train.loss"), "a teacher is trained on gold labels: write task");
    }
  }

  void CheckStudent() {
    const v1::Student& student = spec_.student();
    CheckWhere("student.where", student.where());
    CheckWorkers(student);
    CheckWhere("student.early_stopping.where", student.early_stopping().where());
    CheckEachOnce("student.languages.targets", student.languages().targets(),
                  [](const std::string& language) { return language; });
    AddAll(CheckModelKeys("student.model", student.model()));
    const auto& targets = student.languages().targets();
    AddAll(
        CheckMixtureKeys("student.languages.mixture", student.languages().mixture(), {targets.begin(), targets.end()}));
    if (student.autocast() == v1::Student::AUTOCAST_BFLOAT16 && student.dtype() != v1::Student::DTYPE_FLOAT32) {
      Add("student.autocast", "bfloat16 goes with dtype: float32 only");
    }
    double weight = 0;
    for (int i = 0; i < student.losses_size(); ++i) {
      CheckLoss(absl::StrCat("student.losses.", i), student.losses(i));
      weight += student.losses(i).weight();
    }
    if (student.losses_size() > 0 && weight == 0) Add("student.losses", "all weights are 0: nothing would be learned");
  }

  void CheckLoss(const std::string& path, const v1::Loss& loss) {
    const std::string kind = EnumName(v1::LossKind_descriptor()->FindValueByNumber(loss.kind()));
    AddAll(CheckLossKeys(path, loss));
    AddAll(CheckLayers(path, "student", loss, "the student", spec_.student().model()));
    if (loss.kind() == v1::LOSS_KIND_TASK) {
      if (!loss.teacher().empty())
        Add(absl::StrCat(path, ".teacher"), "task learns from gold labels, not from a teacher");
      return;
    }
    std::vector<std::string> names;
    for (const v1::Teacher& teacher : spec_.teachers()) names.push_back(teacher.name());
    if (names.empty()) return Add(path, absl::StrCat(kind, " needs a teacher; add one under teachers"));
    if (loss.teacher().empty() && names.size() > 1) {
      return Add(path, absl::StrCat("several teachers; write teacher: one of ", absl::StrJoin(names, ", ")));
    }
    if (!loss.teacher().empty() && std::find(names.begin(), names.end(), loss.teacher()) == names.end()) {
      Add(absl::StrCat(path, ".teacher"),
          absl::StrCat("no teacher is called '", loss.teacher(), "'", Suggestion(loss.teacher(), names)));
    }
    for (const v1::Teacher& teacher : spec_.teachers()) {
      if (loss.teacher().empty() || loss.teacher() == teacher.name()) CheckHidden(path, loss, teacher);
    }
  }

  void CheckHidden(const std::string& path, const v1::Loss& loss, const v1::Teacher& teacher) {
    if (loss.kind() != v1::LOSS_KIND_HIDDEN) return;
    const std::string who = absl::StrCat("teacher '", teacher.name(), "'");
    if (teacher.reads() != spec_.student().reads()) {
      Add(path, absl::StrCat("hidden compares token by token, but ", who,
                             " and the student read different sides of a record; give both the same reads"));
    }
    if (teacher.has_train()) AddAll(CheckLayers(path, "teacher", loss, who, teacher.train().model()));
  }

  void CheckBaselines() {
    CheckEachOnce("baselines", spec_.baselines(),
                  [](int baseline) { return EnumName(v1::Baseline_descriptor()->FindValueByNumber(baseline)); });
    for (int i = 0; i < spec_.baselines_size(); ++i) {
      const std::string path = absl::StrCat("baselines.", i);
      if (spec_.baselines(i) == v1::BASELINE_NO_TEACHER && TrainedTeacher(spec_) == nullptr) {
        Add(path, "no_teacher learns from the records of a teacher that is trained here; no teacher has a train key");
      }
      if (spec_.baselines(i) == v1::BASELINE_GOLD_ALL && TrainedTeacher(spec_) == nullptr) {
        Add(path, "gold_all learns from the records of a teacher that is trained here too; no teacher has a train key");
      }
      if (spec_.baselines(i) == v1::BASELINE_PSEUDO_LABEL && !AsksForLogits()) {
        Add(path, "pseudo_label learns from a teacher's arg-max; no loss of student.losses asks a teacher for logits");
      }
      if (spec_.baselines(i) == v1::BASELINE_ZERO_SHOT) CheckZeroShot(path);
    }
  }

  void CheckZeroShot(const std::string& path) {
    const v1::Teacher* teacher = ReportedTeacher(spec_);
    if (teacher == nullptr && spec_.teachers_size() > 0) return;  // a loss asks one that there is not
    if (teacher != nullptr && (teacher->has_train() || !teacher->package().empty())) return;
    const std::string has = teacher == nullptr            ? ""
                            : !teacher->address().empty() ? "an address"
                            : !teacher->store().empty()   ? "a store of its labels"
                                                          : "";
    Add(path, absl::StrCat("zero_shot evaluates the package of the teacher that the student learns from; ",
                           has.empty() ? "no teacher has a train or package key"
                                       : absl::StrCat(teacher->name(), " has ", has, ", write its package instead")));
  }

  void CheckWorkers(const v1::Student& student) {
    if (student.min_workers() > student.workers()) {
      Add("student.min_workers", absl::StrCat("is ", student.min_workers(), ", more than the workers to start with, ",
                                              student.workers(), "; write at most so many"));
    }
    if (student.max_workers() > 0 && student.max_workers() < student.workers()) {
      Add("student.max_workers", absl::StrCat("is ", student.max_workers(), ", fewer than the workers to start with, ",
                                              student.workers(), "; write at least so many"));
    }
    if (student.evict_slower_than() > 0 && student.evict_slower_than() < Slowness::kSlower) {
      Add("student.evict_slower_than", absl::StrCat("is ", student.evict_slower_than(), ", but a worker is slow from ",
                                                    Slowness::kSlower, " times on; write at least so much, or 0"));
    }
  }

  bool AsksForLogits() const {
    const auto& losses = spec_.student().losses();
    return spec_.teachers_size() > 0 &&
           std::any_of(losses.begin(), losses.end(), [](const v1::Loss& loss) { return IsOfTeachersLogits(loss); });
  }

  const v1::RunSpec& spec_;
  std::vector<Mistake> mistakes_;
};

}  // namespace

std::vector<Mistake> CheckRules(const v1::RunSpec& spec) { return Rules(spec).Check(); }

std::vector<Mistake> CheckPaths(const v1::RunSpec& spec) {
  std::vector<Mistake> mistakes;
  std::error_code error;
  const auto check = [&](const std::string& key, const std::string& path, const std::string& kind, bool folder) {
    if (path.empty()) return;
    if (!std::filesystem::exists(path, error)) {
      mistakes.push_back({key, absl::StrCat("no such ", kind, ": ", path)});
    } else if (folder != std::filesystem::is_directory(path, error)) {
      mistakes.push_back({key, absl::StrCat(path, " is not a ", kind)});
    }
  };
  // What a URI names is for the index to find out.
  if (!IsUri(spec.corpus().path()) && !std::filesystem::exists(spec.corpus().path(), error)) {
    mistakes.push_back({"corpus.path", absl::StrCat("no such file or folder: ", spec.corpus().path())});
  }
  check("tokenizer.path", spec.tokenizer().path(), "file", false);
  const auto check_package = [&](const std::string& key, const std::string& package) {
    check(key, package, "folder", true);
    if (!std::filesystem::is_directory(package, error) || std::filesystem::exists(package + "/" + kManifest, error))
      return;
    mistakes.push_back({key, absl::StrCat(package, " is no model package: it holds no ", kManifest,
                                          "; the packages of a run are the folders below its models/")});
  };
  const auto check_model = [&](const std::string& key, const v1::Model& model) {
    check(key + ".path", model.path(), "file", false);
    check_package(key + ".initial", model.initial());
  };
  check_model("student.model", spec.student().model());
  for (int i = 0; i < spec.teachers_size(); ++i) {
    check_package(absl::StrCat("teachers.", i, ".package"), spec.teachers(i).package());
    check_model(absl::StrCat("teachers.", i, ".train.model"), spec.teachers(i).train().model());
    if (spec.teachers(i).store().empty()) continue;
    for (Mistake& mistake : CheckStore(spec, i)) mistakes.push_back(std::move(mistake));
  }
  return mistakes;
}

}  // namespace polystill::coordinator
