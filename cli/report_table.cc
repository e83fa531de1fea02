#include "cli/report_table.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/text.h"

namespace polystill::cli {
namespace {

using nlohmann::json;

constexpr const char* kModels[] = {"zero_shot", "no_teacher", "pseudo_label", "distilled", "gold", "gold_all"};
constexpr std::pair<const char*, const char*> kMetrics[] = {{"accuracy", "accuracy"}, {"macro_f1", "macro-F1"}};
constexpr size_t kLanguageWidth = 8;
constexpr size_t kRecordsWidth = 9;
// Of a metric's column, and of the one column that a model has where there is one metric only: its name must fit.
constexpr size_t kMetricWidth = 10;
constexpr size_t kModelWidth = 12;

// A model's column; `title` is the metric's.
struct Column {
  std::string model, metric, title;
  size_t width;
};

std::vector<Column> ColumnsOf(const json& mean) {
  std::vector<Column> columns;
  for (const char* model : kModels) {
    if (!mean.contains(model)) continue;
    const bool both = mean[model].contains(kMetrics[0].first) && mean[model].contains(kMetrics[1].first);
    for (const auto& [metric, title] : kMetrics) {
      if (mean[model].contains(metric)) columns.push_back({model, metric, title, both ? kMetricWidth : kModelWidth});
    }
  }
  return columns;
}

std::string Row(const std::string& name, size_t name_width, const json& values, const std::vector<Column>& columns) {
  std::string row = PadRight(name, name_width);
  row += PadLeft(WithThousands(values.at("records").get<int64_t>()), kRecordsWidth);
  for (const Column& column : columns) {
    const double percent = 100 * values.at(column.model).at(column.metric).get<double>();
    row += PadLeft(absl::StrFormat("%.1f", percent), column.width);
  }
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

}  // namespace

absl::StatusOr<std::string> ReportTable(const std::string& report) {
  try {
    const json parsed = json::parse(report);
    const json& mean = parsed.at("mean");
    const std::vector<Column> columns = ColumnsOf(mean);
    size_t name_width = kLanguageWidth;
    for (const auto& [language, values] : parsed.at("languages").items()) {
      name_width = std::max(name_width, language.size());
    }
    std::string table = Heading(name_width, columns);
    for (const auto& [language, values] : parsed.at("languages").items()) {
      table += Row(language, name_width, values, columns);
    }
    return table + Row("mean", name_width, mean, columns);
  } catch (const json::exception& error) {
    return absl::DataLossError(absl::StrCat("not a report: ", error.what()));
  }
}

}  // namespace polystill::cli
