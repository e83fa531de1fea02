#include "evaluation/latency.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::evaluation {

absl::Status WriteLatencies(const std::map<std::string, Latencies>& models, const std::string& path) {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [model, batches] : models) {
    for (const auto& [batch, latency] : batches) {
      json[model][batch]["forward_ms"] = latency.forward_ms;
      if (latency.text_ms.has_value()) json[model][batch]["text_ms"] = *latency.text_ms;
    }
  }
  return WriteFileAtomically(path, json.dump(2) + "\n");
}

absl::StatusOr<std::map<std::string, Latencies>> ReadLatencies(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::map<std::string, Latencies> models;
  try {
    for (const auto& [model, batches] : nlohmann::json::parse(text).get<nlohmann::json::object_t>()) {
      for (const auto& [batch, times] : batches.get<nlohmann::json::object_t>()) {
        Latency& latency = models[model][batch];
        latency.forward_ms = times.at("forward_ms").get<double>();
        if (times.contains("text_ms")) latency.text_ms = times.at("text_ms").get<double>();
      }
    }
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat(path, ": not a file of latencies: ", error.what()));
  }
  return models;
}

}  // namespace polystill::evaluation
