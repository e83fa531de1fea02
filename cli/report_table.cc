#include "cli/report_table.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/text.h"

namespace polystill::cli {
namespace {

using nlohmann::json;

constexpr const char* kModels[] = {"zero_shot", "no_teacher", "pseudo_label", "distilled", "gold", "gold_all"};
constexpr size_t kLanguageWidth = 8;
constexpr size_t kRecordsWidth = 9;
// Of a metric's column, and of the one column that a model has where there is one metric only: its name must fit.
constexpr size_t kMetricWidth = 10;
constexpr size_t kModelWidth = 14;
constexpr size_t kDifferenceWidth = 26;
// A wider table becomes several, one a metric.
constexpr size_t kMaxWidth = 100;

// A model's column; `title` is the metric's.
struct Column {
  std::string model, metric, title;
  size_t width;
};

std::string TitleOf(const std::string& metric, const json& report) {
  if (metric == "top_k") return absl::StrCat("top-", report.at("top_k").get<int>());
  if (metric == "macro_f1") return "macro-F1";
  if (metric == "micro_f1") return "micro-F1";
  if (metric == "macro_precision") return "precision";
  if (metric == "macro_recall") return "recall";
  if (metric == "micro_precision") return "micro-P";
  if (metric == "micro_recall") return "micro-R";
  return metric;
}

std::vector<Column> ColumnsOf(const json& report, const std::vector<std::string>& metrics) {
  const size_t width = metrics.size() == 1 ? kModelWidth : kMetricWidth;
  std::vector<Column> columns;
  for (const char* model : kModels) {
    if (!report.at("mean").contains(model)) continue;
    for (const std::string& metric : metrics) columns.push_back({model, metric, TitleOf(metric, report), width});
  }
  return columns;
}

// What a metric is multiplied by to be shown: all but perplexity are shares, shown in percent.
double ScaleOf(const std::string& metric) { return metric == "perplexity" ? 1 : 100; }

// "-" where there is nothing to judge.
std::string Cell(const json& values, const Column& column) {
  if (!values.contains(column.model)) return "-";
  const json& value = values.at(column.model).at(column.metric);
  return value.is_null() ? "-" : absl::StrFormat("%.1f", ScaleOf(column.metric) * value.get<double>());
}

std::string Row(const std::string& name, size_t name_width, const json& values, const std::vector<Column>& columns) {
  std::string row = PadRight(name, name_width);
  row += PadLeft(WithThousands(values.at("records").get<int64_t>()), kRecordsWidth);
  for (const Column& column : columns) row += PadLeft(Cell(values, column), column.width);
  return row + "\n";
}

// Names of the models, each over the right end of its columns.
std::string Heading(size_t name_width, const std::vector<Column>& columns) {
  std::string models;
  std::string metrics = PadRight("language", name_width) + PadLeft("records", kRecordsWidth);
  for (size_t i = 0; i < columns.size(); ++i) {
    metrics += PadLeft(columns[i].title, columns[i].width);
    const bool last_of_model = i + 1 == columns.size() || columns[i + 1].model != columns[i].model;
    if (last_of_model) models += PadLeft(columns[i].model, metrics.size() - models.size());
  }
  return models + "\n" + metrics + "\n";
}

std::string TableOf(const json& report, const std::vector<Column>& columns) {
  size_t name_width = kLanguageWidth;
  for (const auto& [language, values] : report.at("languages").items()) {
    name_width = std::max(name_width, language.size());
  }
  std::string table = Heading(name_width, columns);
  for (const auto& [language, values] : report.at("languages").items()) {
    table += Row(language, name_width, values, columns);
  }
  return table + Row("mean", name_width, report.at("mean"), columns);
}

// "accuracy +1.2 [-0.3, +2.7]", in points.
std::string Difference(const json& values, double scale, const std::string& title) {
  std::string text = absl::StrFormat("%s %+.1f", title, scale * values.at("difference").get<double>());
  if (!values.contains("interval")) return text;
  const json& interval = values.at("interval");
  if (interval.at(0).is_null()) return text;
  return text +
         absl::StrFormat(" [%+.1f, %+.1f]", scale * interval.at(0).get<double>(), scale * interval.at(1).get<double>());
}

// A line a baseline: what the distilled student's mean is above it, with the intervals.
std::string Differences(const json& report, const std::vector<std::string>& metrics) {
  std::string text;
  for (const char* model : kModels) {
    if (!report.at("differences").contains(model)) continue;
    std::vector<std::string> parts;
    for (const std::string& metric : metrics) {
      parts.push_back(
          Difference(report.at("differences").at(model).at(metric), ScaleOf(metric), TitleOf(metric, report)));
    }
    absl::StrAppend(&text, PadRight(absl::StrCat("distilled - ", model), kDifferenceWidth), absl::StrJoin(parts, "   "),
                    "\n");
  }
  if (text.empty()) return text;
  const bool intervals = !report.at("bootstrap").is_null();
  return absl::StrCat("\npoints of the mean", intervals ? ", with 95% bootstrap intervals:\n" : ":\n", text);
}

// "one text 0.12 ms (forward alone 0.05)".
std::string Time(const std::string& texts, const json& latency) {
  const double forward = latency.at("forward_ms").get<double>();
  if (!latency.contains("text_ms")) return absl::StrFormat("%s %.3g ms", texts, forward);
  return absl::StrFormat("%s %.3g ms (forward alone %.3g)", texts, latency.at("text_ms").get<double>(), forward);
}

// A line each for teacher and student: what they take.
std::string Costs(const json& report) {
  constexpr std::pair<const char*, const char*> kBatches[] = {{"batch_1", "one text"}, {"batch_32", "32 texts"}};
  std::string text;
  for (const char* role : {"teacher", "student"}) {
    if (!report.contains("models") || !report.at("models").contains(role)) continue;
    const json& model = report.at("models").at(role);
    std::vector<std::string> parts;
    if (!model.at("parameters").is_null()) {
      parts.push_back(absl::StrCat(WithThousands(model.at("parameters").get<int64_t>()), " parameters"));
    }
    parts.push_back(absl::StrFormat("%.2f MB", 1e-6 * model.at("bytes").get<double>()));
    for (const auto& [batch, texts] : kBatches) {
      if (model.contains("latency")) parts.push_back(Time(texts, model.at("latency").at(batch)));
    }
    if (role == std::string("student") && report.at("models").contains("speedup")) {
      const json& speedup = report.at("models").at("speedup").at("batch_1");
      const json& times = speedup.at(speedup.contains("text") ? "text" : "forward");
      parts.push_back(absl::StrFormat("%.1f times as fast with one", times.get<double>()));
    }
    absl::StrAppend(&text, PadRight(role, kLanguageWidth), "  ", absl::StrJoin(parts, ", "), "\n");
  }
  return text.empty() ? text : absl::StrCat("\n", text);
}

}  // namespace

absl::StatusOr<std::string> ReportTable(const std::string& report) {
  try {
    const json parsed = json::parse(report);
    const auto metrics = parsed.at("metrics").get<std::vector<std::string>>();
    const std::vector<Column> columns = ColumnsOf(parsed, metrics);
    std::string text = TableOf(parsed, columns);
    if (text.find('\n') > kMaxWidth) {
      std::vector<std::string> tables;
      for (const std::string& metric : metrics) tables.push_back(TableOf(parsed, ColumnsOf(parsed, {metric})));
      text = absl::StrJoin(tables, "\n");
    }
    return text + Differences(parsed, metrics) + Costs(parsed);
  } catch (const json::exception& error) {
    return absl::DataLossError(absl::StrCat("not a report: ", error.what()));
  }
}

}  // namespace polystill::cli
