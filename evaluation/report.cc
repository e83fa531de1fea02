#include "evaluation/report.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "evaluation/bootstrap.h"
#include "evaluation/metrics.h"
#include "evaluation/predictions.h"
#include "evaluation/tally.h"
#include "runtime/files.h"
#include "runtime/status.h"
#include "runtime/yaml_proto.h"

namespace polystill::evaluation {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kStudent[] = "distilled";

// What the file of predictions says.
struct Table {
  v1::Task task;
  std::vector<std::string> labels;
  std::vector<std::string> models;
  Tally tally;
  // Unset without resamples.
  std::optional<Intervals> intervals;
};

// Index of the distilled student; -1 when it is not there.
int StudentOf(const Table& table) {
  const auto found = std::find(table.models.begin(), table.models.end(), kStudent);
  return found == table.models.end() ? -1 : static_cast<int>(found - table.models.begin());
}

absl::StatusOr<Table> CountAll(const RunFacts& facts, const std::string& predictions, const std::stop_token& stop) {
  ASSIGN_OR_RETURN(const auto reader, PredictionsReader::Open(predictions));
  const int models = static_cast<int>(reader->models().size()), classes = static_cast<int>(reader->labels().size());
  Table table{reader->task(), reader->labels(), reader->models(), Tally(models, classes, facts.top_k, reader->task()),
              std::nullopt};
  if (table.labels.empty() && table.task != v1::TASK_MASKED_LM)
    return absl::DataLossError(absl::StrCat(predictions, ": names no label"));
  while (true) {
    if (stop.stop_requested()) return absl::CancelledError("stopped while the predictions were being read");
    ASSIGN_OR_RETURN(const auto rows, reader->Next());
    if (rows.empty()) break;
    for (const Prediction& row : rows) table.tally.Add(row);
  }
  if (table.tally.groups() == 0) {
    return absl::InvalidArgumentError(absl::StrCat(predictions, ": holds no record; let evaluate.where name some"));
  }
  if (facts.resamples > 0 && models > 0) {
    const int reference = std::max(StudentOf(table), 0);
    ASSIGN_OR_RETURN(table.intervals, Bootstrap(table.tally, reference, facts.resamples, facts.seed, stop));
  }
  return table;
}

Json IntervalOf(const Interval& interval) { return Json::array({interval.low, interval.high}); }

// `intervals` may be null.
template <typename Value>
Json ScoresOf(v1::Task task, const Value& value, const MetricIntervals* intervals) {
  Json json = Json::object();
  for (const Metric metric : kMetrics) {
    if (HasMetric(task, metric)) json[MetricName(metric)] = value(metric);
  }
  if (intervals == nullptr) return json;
  for (size_t i = 0; i < kMetrics.size(); ++i) {
    if (HasMetric(task, kMetrics[i])) json["intervals"][MetricName(kMetrics[i])] = IntervalOf((*intervals)[i]);
  }
  return json;
}

Json ClassOf(const ClassScores& scores) {
  return {{"precision", scores.precision}, {"recall", scores.recall}, {"f1", scores.f1}, {"support", scores.support}};
}

Json ClassesOf(const Table& table, const Confusion& confusion) {
  Json json = Json::object();
  for (size_t label = 0; label < table.labels.size(); ++label) {
    const auto scores = confusion.OfClass(static_cast<int>(label));
    if (scores.has_value()) json[table.labels[label]] = ClassOf(*scores);
  }
  return json;
}

// Each class's mean over the languages that have it, and its support in all.
Json MeanClassesOf(const Table& table, size_t model) {
  Json json = Json::object();
  for (size_t label = 0; label < table.labels.size(); ++label) {
    ClassScores sum;
    int languages = 0;
    for (const auto& [name, language] : table.tally.languages()) {
      const auto scores = language.models[model].OfClass(static_cast<int>(label));
      if (!scores.has_value()) continue;
      sum.precision += scores->precision;
      sum.recall += scores->recall;
      sum.f1 += scores->f1;
      sum.support += scores->support;
      ++languages;
    }
    if (languages == 0) continue;
    json[table.labels[label]] =
        ClassOf({sum.precision / languages, sum.recall / languages, sum.f1 / languages, sum.support});
  }
  return json;
}

Json LanguagesOf(const Table& table) {
  Json json = Json::object();
  for (const auto& [name, counts] : table.tally.languages()) {
    Json& language = json[name];
    language["records"] = counts.records;
    for (size_t m = 0; m < table.models.size(); ++m) {
      const Confusion& confusion = counts.models[m];
      const auto* intervals = table.intervals.has_value() ? &table.intervals->languages.at(name)[m] : nullptr;
      Json& scores = language[table.models[m]];
      scores = ScoresOf(
          table.task, [&](Metric metric) { return confusion.Value(metric); }, intervals);
      scores["classes"] = ClassesOf(table, confusion);
    }
  }
  return json;
}

Json MeansOf(const Table& table) {
  int64_t records = 0;
  for (const auto& [name, counts] : table.tally.languages()) records += counts.records;
  Json json = {{"records", records}};
  for (size_t m = 0; m < table.models.size(); ++m) {
    const int model = static_cast<int>(m);
    const auto* intervals = table.intervals.has_value() ? &table.intervals->mean[m] : nullptr;
    Json& scores = json[table.models[m]];
    scores = ScoresOf(
        table.task, [&](Metric metric) { return MeanOf(table.tally, model, metric); }, intervals);
    scores["classes"] = MeanClassesOf(table, m);
  }
  return json;
}

Json DifferencesOf(const Table& table) {
  Json json = Json::object();
  const int student = StudentOf(table);
  for (int m = 0; student >= 0 && m < table.tally.models(); ++m) {
    if (m == student) continue;
    Json& model = json[table.models[m]];
    for (size_t i = 0; i < kMetrics.size(); ++i) {
      if (!HasMetric(table.task, kMetrics[i])) continue;
      Json& metric = model[MetricName(kMetrics[i])];
      metric["difference"] = MeanOf(table.tally, student, kMetrics[i]) - MeanOf(table.tally, m, kMetrics[i]);
      if (table.intervals.has_value()) metric["interval"] = IntervalOf(table.intervals->differences[m][i]);
    }
  }
  return json;
}

Json BootstrapOf(const RunFacts& facts, const Table& table) {
  if (!table.intervals.has_value()) return nullptr;
  return {{"resamples", facts.resamples}, {"groups", table.tally.groups()}, {"seed", facts.seed}};
}

Json ModelFacts(const ReportedModel& model) {
  Json json = {{"name", model.name}, {"package", model.package}, {"digest", model.digest}};
  json["parameters"] = model.parameters.has_value() ? Json(*model.parameters) : Json(nullptr);
  json["reads"] = model.reads;
  return json;
}

Json CostOf(const ModelCost& cost) {
  Json json;
  json["parameters"] = cost.parameters.has_value() ? Json(*cost.parameters) : Json(nullptr);
  json["bytes"] = cost.bytes;
  if (cost.latency.empty()) return json;
  for (const auto& [batch, latency] : cost.latency) {
    json["latency"][batch]["forward_ms"] = latency.forward_ms;
    if (latency.text_ms.has_value()) json["latency"][batch]["text_ms"] = *latency.text_ms;
  }
  return json;
}

// How often the student fits into the teacher's time.
Json SpeedupOf(const Latencies& teacher, const Latencies& student) {
  Json json = Json::object();
  for (const auto& [batch, slow] : teacher) {
    const auto found = student.find(batch);
    if (found == student.end()) continue;
    json[batch]["forward"] = slow.forward_ms / found->second.forward_ms;
    if (slow.text_ms.has_value() && found->second.text_ms.has_value()) {
      json[batch]["text"] = *slow.text_ms / *found->second.text_ms;
    }
  }
  return json;
}

Json CostsOf(const std::vector<ModelCost>& costs) {
  Json json = Json::object();
  std::map<std::string, Latencies> latencies;
  for (const ModelCost& cost : costs) {
    json[cost.role] = CostOf(cost);
    latencies[cost.role] = cost.latency;
  }
  const Json speedup = SpeedupOf(latencies["teacher"], latencies["student"]);
  if (!speedup.empty()) json["speedup"] = speedup;
  return json;
}

}  // namespace

absl::Status WriteReport(const RunFacts& facts, const std::string& predictions, const std::string& report,
                         const std::stop_token& stop) {
  ASSIGN_OR_RETURN(const Table table, CountAll(facts, predictions, stop));
  Json json;
  json["run"] = facts.run;
  json["task"] = EnumName(v1::Task_descriptor()->FindValueByNumber(table.task));
  json["metrics"] = facts.metrics;
  json["top_k"] = facts.top_k;
  json["bootstrap"] = BootstrapOf(facts, table);
  json["languages"] = LanguagesOf(table);
  json["mean"] = MeansOf(table);
  json["differences"] = DifferencesOf(table);
  json["labels"] = {
      {"classes", table.labels}, {"count", facts.label_count}, {"bytes", facts.label_bytes}, {"codec", facts.codec}};
  json["teacher"] = facts.teacher.has_value() ? ModelFacts(*facts.teacher) : Json(nullptr);
  json["student"] = ModelFacts(facts.student);
  json["student"]["workers"] = facts.workers;
  json["models"] = CostsOf(facts.costs);
  json["corpus"]["files"] = Json::array();
  for (const RunFacts::File& file : facts.files) {
    json["corpus"]["files"].push_back({{"path", file.path}, {"sha256", file.sha256}, {"bytes", file.bytes}});
  }
  json["steps"] = Json::object();
  for (const RunFacts::Steps& job : facts.steps)
    json["steps"][job.job] = {{"taken", job.taken}, {"planned", job.planned}};
  json["evictions"] = Json::array();
  for (const RunFacts::Eviction& eviction : facts.evictions) {
    json["evictions"].push_back({{"job", eviction.job},
                                 {"worker", eviction.worker},
                                 {"host", eviction.host},
                                 {"pid", eviction.pid},
                                 {"ratio", eviction.ratio},
                                 {"step", eviction.step}});
  }
  json["seconds"] = Json::object();
  for (const auto& [stage, seconds] : facts.seconds) json["seconds"][stage] = seconds;
  json["predictions"] = predictions;
  // File names need not be UTF-8: what is not is replaced, rather than losing the report.
  return WriteFileAtomically(report, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace polystill::evaluation
