#include "coordinator/metrics.h"

#include <cmath>

#include "runtime/yaml_proto.h"

namespace polystill::coordinator {
RunMetrics::RunMetrics(Metrics* metrics)
    : state_(metrics->AddGauges("polystill_run_state", "1 for the state that the run is in")),
      done_(metrics->AddGauges("polystill_run_stage_done", "Units of a stage that are done: steps, records or bytes")),
      todo_(metrics->AddGauges("polystill_run_stage_units", "Units of a stage in all; 0 while unknown")),
      seconds_(metrics->AddGauges("polystill_run_stage_seconds", "How long a stage has taken")),
      waiting_(metrics->AddGauges("polystill_run_stage_waiting", "1 while a stage waits for workers or teachers")),
      slow_(metrics->AddGauges("polystill_run_slow_workers", "Workers much slower than the others of a training")),
      evicted_(metrics->AddGauges("polystill_run_evicted_workers", "Workers left out of a training for being slow")),
      loss_(metrics->AddGauges("polystill_run_loss", "Mean loss of a training's last step")),
      examples_(metrics->AddGauges("polystill_run_examples", "Records of applied steps of all workers, by language")),
      labels_(metrics->AddGauges("polystill_run_labels", "Labels that all workers have received")),
      label_bytes_(metrics->AddGauges("polystill_run_label_bytes", "Payload of these labels")) {}

void RunMetrics::Observe(const v1::RunStatus& status) {
  const auto* states = v1::RunStatus::State_descriptor();
  for (int i = 0; i < states->value_count(); ++i) {
    const bool is_it = states->value(i)->number() == status.state();
    if (states->value(i)->number() == v1::RunStatus::STATE_UNSPECIFIED) continue;
    state_.Add({{"state", EnumName(states->value(i))}}).Set(is_it ? 1 : 0);
  }
  for (const v1::RunStatus::Stage& stage : status.stages()) {
    const prometheus::Labels of_stage = {{"stage", stage.name()}};
    done_.Add(of_stage).Set(static_cast<double>(stage.done()));
    todo_.Add(of_stage).Set(static_cast<double>(stage.total()));
    seconds_.Add(of_stage).Set(stage.seconds());
    waiting_.Add(of_stage).Set(stage.waiting_for().empty() ? 0 : 1);
    slow_.Add(of_stage).Set(stage.slow_workers_size());
    evicted_.Add(of_stage).Set(stage.evictions_size());
    if (!std::isnan(stage.loss())) loss_.Add(of_stage).Set(stage.loss());
    labels_.Add(of_stage).Set(static_cast<double>(stage.labels()));
    label_bytes_.Add(of_stage).Set(static_cast<double>(stage.label_bytes()));
    for (const auto& [language, records] : stage.records_by_language()) {
      examples_.Add({{"stage", stage.name()}, {"lang", language}}).Set(static_cast<double>(records));
    }
  }
}

}  // namespace polystill::coordinator
