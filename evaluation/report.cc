#include "evaluation/report.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "evaluation/metrics.h"
#include "evaluation/predictions.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::evaluation {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kAccuracy[] = "accuracy";
constexpr char kMacroF1[] = "macro_f1";

// Everything counted of one language, a confusion for each model.
struct LanguageCounts {
  std::vector<Confusion> models;
  int64_t records = 0;
};

struct Table {
  std::vector<std::string> labels;
  std::vector<std::string> models;
  // Sorted by name.
  std::map<std::string, LanguageCounts> languages;
};

void Count(const Prediction& row, LanguageCounts* counts) {
  ++counts->records;
  for (size_t m = 0; m < counts->models.size(); ++m) counts->models[m].Add(row.gold, ArgMax(row.probabilities[m]));
}

absl::StatusOr<Table> CountAll(const std::string& predictions) {
  ASSIGN_OR_RETURN(const auto reader, PredictionsReader::Open(predictions));
  Table table{reader->labels(), reader->models(), {}};
  if (table.labels.empty()) return absl::DataLossError(absl::StrCat(predictions, ": names no label"));
  const std::vector<Confusion> nothing(table.models.size(), Confusion(static_cast<int>(table.labels.size())));
  while (true) {
    ASSIGN_OR_RETURN(const auto rows, reader->Next());
    if (rows.empty()) break;
    for (const Prediction& row : rows) {
      Count(row, &table.languages.try_emplace(row.language, LanguageCounts{nothing, 0}).first->second);
    }
  }
  if (table.languages.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(predictions, ": holds no record; let evaluate.where name some"));
  }
  return table;
}

// {accuracy, macro_f1} as far as they are asked for.
Json Metrics(const RunFacts& facts, double accuracy, double macro_f1) {
  const auto asked = [&facts](const char* metric) {
    return facts.metrics.empty() ||
           std::find(facts.metrics.begin(), facts.metrics.end(), metric) != facts.metrics.end();
  };
  Json json = Json::object();
  if (asked(kAccuracy)) json[kAccuracy] = accuracy;
  if (asked(kMacroF1)) json[kMacroF1] = macro_f1;
  return json;
}

Json LanguagesOf(const RunFacts& facts, const Table& table) {
  Json json = Json::object();
  for (const auto& [name, counts] : table.languages) {
    Json& language = json[name];
    language["records"] = counts.records;
    for (size_t m = 0; m < table.models.size(); ++m) {
      language[table.models[m]] = Metrics(facts, counts.models[m].Accuracy(), counts.models[m].MacroF1());
    }
  }
  return json;
}

Json MeanOf(const RunFacts& facts, const Table& table) {
  int64_t records = 0;
  for (const auto& [name, counts] : table.languages) records += counts.records;
  const auto languages = static_cast<double>(table.languages.size());
  Json json = {{"records", records}};
  for (size_t m = 0; m < table.models.size(); ++m) {
    double accuracy = 0, macro_f1 = 0;
    for (const auto& [name, counts] : table.languages) {
      accuracy += counts.models[m].Accuracy();
      macro_f1 += counts.models[m].MacroF1();
    }
    json[table.models[m]] = Metrics(facts, accuracy / languages, macro_f1 / languages);
  }
  return json;
}

Json ModelFacts(const ReportedModel& model) {
  Json json = {{"name", model.name}, {"package", model.package}, {"digest", model.digest}};
  json["parameters"] = model.parameters.has_value() ? Json(*model.parameters) : Json(nullptr);
  json["reads"] = model.reads;
  return json;
}

}  // namespace

absl::Status WriteReport(const RunFacts& facts, const std::string& predictions, const std::string& report) {
  ASSIGN_OR_RETURN(const Table table, CountAll(predictions));
  Json json;
  json["run"] = facts.run;
  json["languages"] = LanguagesOf(facts, table);
  json["mean"] = MeanOf(facts, table);
  json["labels"] = {
      {"classes", table.labels}, {"count", facts.label_count}, {"bytes", facts.label_bytes}, {"codec", facts.codec}};
  json["teacher"] = facts.teacher.has_value() ? ModelFacts(*facts.teacher) : Json(nullptr);
  json["student"] = ModelFacts(facts.student);
  json["student"]["workers"] = facts.workers;
  json["corpus"]["files"] = Json::array();
  for (const RunFacts::File& file : facts.files) {
    json["corpus"]["files"].push_back({{"path", file.path}, {"sha256", file.sha256}, {"bytes", file.bytes}});
  }
  json["steps"] = Json::object();
  for (const RunFacts::Steps& job : facts.steps)
    json["steps"][job.job] = {{"taken", job.taken}, {"planned", job.planned}};
  json["seconds"] = Json::object();
  for (const auto& [stage, seconds] : facts.seconds) json["seconds"][stage] = seconds;
  json["predictions"] = predictions;
  // File names need not be UTF-8: what is not is replaced, rather than losing the report.
  return WriteFileAtomically(report, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace polystill::evaluation
