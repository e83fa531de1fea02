#include "cli/summary.h"

#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/text.h"
#include "coordinator/jobs.h"
#include "runtime/yaml_proto.h"

namespace polystill::cli {
namespace {

constexpr size_t kNameWidth = 18;

// "language=en pool=A split=train".
std::string Records(const v1::Selection& selection) {
  const std::map<std::string, std::string> sorted(selection.where().begin(), selection.where().end());
  std::string text = absl::StrJoin(sorted, " ", absl::PairFormatter("="));
  if (selection.languages_size() > 0) absl::StrAppend(&text, " in ", absl::StrJoin(selection.languages(), ", "));
  return absl::StrCat(text, selection.reads_labels() ? "" : "; labels never read");
}

// "source_text": what the teacher of that name reads.
std::string ReadsOf(const v1::RunSpec& spec, const std::string& name) {
  for (const v1::Teacher& teacher : spec.teachers()) {
    if (teacher.name() == name) return EnumName(v1::Side_descriptor()->FindValueByNumber(teacher.reads()));
  }
  return "";
}

std::string Losses(const v1::RunSpec& spec, const v1::Job& job) {
  std::vector<std::string> losses;
  for (const v1::Loss& loss : job.losses()) {
    const std::string kind = EnumName(v1::LossKind_descriptor()->FindValueByNumber(loss.kind()));
    losses.push_back(loss.teacher().empty()
                         ? kind
                         : absl::StrCat(kind, " of ", loss.teacher(), " on ", ReadsOf(spec, loss.teacher())));
  }
  return absl::StrJoin(losses, " + ");
}

std::string Training(const v1::RunSpec& spec, const coordinator::PlannedJob& planned) {
  const v1::Job& job = planned.job;
  return absl::StrCat(EnumName(v1::Model::Kind_descriptor()->FindValueByNumber(job.model().kind())), " of width ",
                      job.model().width(), " on ", EnumName(v1::Side_descriptor()->FindValueByNumber(job.reads())),
                      ", ", Losses(spec, job), ", ", planned.epochs, " epochs in steps of ", job.plan().batch_size(),
                      ", ", planned.workers, planned.workers == 1 ? " worker" : " workers", "; ",
                      Records(planned.selection));
}

std::string Evaluation(const coordinator::PlannedJob& planned) {
  std::vector<std::string> models;
  for (const v1::EvaluatedModel& model : planned.job.models()) models.push_back(model.name());
  return absl::StrCat(absl::StrJoin(models, ", "), "; ", Records(planned.selection));
}

}  // namespace

std::string Summary(const v1::RunSpec& spec) {
  const auto line = [](const std::string& name, const std::string& what) {
    return absl::StrCat("  ", PadRight(name, kNameWidth), what, "\n");
  };
  std::string text = line("index", absl::StrCat("the records of ", spec.corpus().path()));
  if (coordinator::TrainsTokenizer(spec)) {
    text +=
        line("tokenizer", absl::StrCat("SentencePiece with ", WithThousands(spec.tokenizer().vocab_size()), " ids"));
  }
  for (const coordinator::PlannedJob& planned : coordinator::PlanJobs(spec)) {
    const bool trains = planned.job.kind() == v1::Job::KIND_TRAIN;
    text += line(planned.job.name(), trains ? Training(spec, planned) : Evaluation(planned));
  }
  return text + line("output", spec.output());
}

}  // namespace polystill::cli
