#include "coordinator/run_file.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/run_file_rules.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::coordinator {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 20;

absl::Status Report(std::vector<Mistake> mistakes, const YamlLines& lines) {
  if (mistakes.empty()) return absl::OkStatus();
  std::stable_sort(mistakes.begin(), mistakes.end(),
                   [&](const Mistake& a, const Mistake& b) { return lines.LineOf(a.path) < lines.LineOf(b.path); });
  std::vector<std::string> texts;
  for (const Mistake& mistake : mistakes) texts.push_back(absl::StrCat(lines.Locate(mistake.path), ": ", mistake.what));
  return absl::InvalidArgumentError(absl::StrJoin(texts, "\n"));
}

std::string Absolute(const std::string& path) {
  if (path.empty() || IsUri(path)) return path;
  const std::string absolute = std::filesystem::absolute(path).lexically_normal().string();
  return absolute.size() > 1 && absolute.back() == '/' ? absolute.substr(0, absolute.size() - 1) : absolute;
}

template <typename Where>
void DefaultSplit(const std::string& split, Where* where) {
  if (where->find("split") == where->end()) (*where)["split"] = split;
}

void ResolvePaths(v1::Model* model) {
  model->set_path(Absolute(model->path()));
  model->set_initial(Absolute(model->initial()));
}

// Writes out what is meant by keys that were left out.
void Resolve(v1::RunSpec* spec) {
  spec->set_output(Absolute(spec->output().empty() ? absl::StrCat("runs/", spec->name()) : spec->output()));
  spec->mutable_corpus()->set_path(Absolute(spec->corpus().path()));
  spec->mutable_tokenizer()->set_path(Absolute(spec->tokenizer().path()));
  for (v1::Teacher& teacher : *spec->mutable_teachers()) {
    teacher.set_package(Absolute(teacher.package()));
    teacher.set_store(Absolute(teacher.store()));
    if (!teacher.has_train()) continue;
    DefaultSplit("train", teacher.mutable_train()->mutable_where());
    ResolvePaths(teacher.mutable_train()->mutable_model());
    if (teacher.train().has_early_stopping()) {
      DefaultSplit("dev", teacher.mutable_train()->mutable_early_stopping()->mutable_where());
    }
  }
  ResolvePaths(spec->mutable_student()->mutable_model());
  for (v1::Loss& loss : *spec->mutable_student()->mutable_losses()) {
    if (loss.kind() != v1::LOSS_KIND_TASK && loss.teacher().empty()) loss.set_teacher(spec->teachers(0).name());
  }
  DefaultSplit("train", spec->mutable_student()->mutable_where());
  if (spec->student().has_early_stopping()) {
    DefaultSplit("dev", spec->mutable_student()->mutable_early_stopping()->mutable_where());
  }
  DefaultSplit("test", spec->mutable_evaluate()->mutable_where());
  if (spec->evaluate().metrics().empty()) {
    const bool masked = spec->task() == v1::TASK_MASKED_LM;
    spec->mutable_evaluate()->add_metrics(v1::Evaluate::METRIC_ACCURACY);
    spec->mutable_evaluate()->add_metrics(masked ? v1::Evaluate::METRIC_PERPLEXITY : v1::Evaluate::METRIC_MACRO_F1);
  }
}

}  // namespace

absl::StatusOr<RunFile> ReadRunFile(const std::string& path, const std::vector<std::string>& settings) {
  ASSIGN_OR_RETURN(const std::string yaml, ReadFile(path, kMaxBytes));
  RunFile run;
  run.path = path;
  RETURN_IF_ERROR(ReadYaml(yaml, path, settings, &run.spec, &run.lines));
  std::vector<Mistake> mistakes = CheckRules(run.spec);
  for (Mistake& mistake : CheckPaths(run.spec)) mistakes.push_back(std::move(mistake));
  RETURN_IF_ERROR(Report(std::move(mistakes), run.lines));
  Resolve(&run.spec);
  return run;
}

}  // namespace polystill::coordinator
