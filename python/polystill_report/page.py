"""The page: what report.json and predictions.parquet say, in words, tables and plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from polystill_report import figures

MODELS = ("zero_shot", "no_teacher", "pseudo_label", "distilled", "gold", "gold_all")
TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "macro_precision": "macro-precision",
    "macro_recall": "macro-recall",
    "micro_precision": "micro-precision",
    "micro_recall": "micro-recall",
}
BATCHES = ("batch_1", "batch_32")


class ReportError(ValueError):
    """Names the file, what is wrong with it, and what to do."""


def read_report(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ReportError(f"{path}: no such file; name the output folder of a run that has finished")
    try:
        report: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ReportError(f"{path}: is no JSON: {error}") from error
    missing = [key for key in ("run", "metrics", "languages", "mean", "labels", "differences") if key not in report]
    if missing:
        raise ReportError(f"{path}: has no {', '.join(missing)}: not a report of this version of Polystill")
    return report


def confusion(path: Path, labels: list[str], model: str) -> npt.NDArray[np.int64]:
    """[gold, predicted] over all languages."""
    column = f"{model}_probabilities"
    try:
        table = pq.read_table(path, columns=["gold", column])
    except (OSError, pa.ArrowException) as error:
        raise ReportError(f"{path}: {error}") from error
    table = table.filter(table.column("gold").is_valid())
    probabilities = table.column(column).combine_chunks().flatten().to_numpy().reshape(len(table), len(labels))
    gold = [labels.index(name) for name in table.column("gold").to_pylist()]
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (gold, probabilities.argmax(axis=1)), 1)
    return counts


def title_of(metric: str, report: dict[str, Any]) -> str:
    return f"top-{report['top_k']}" if metric == "top_k" else TITLES.get(metric, metric)


def speeds(report: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a measured model."""
    models = report.get("models") or {}
    return [{"role": role, "latency": {}, **models[role]} for role in ("teacher", "student") if models.get(role)]


def latency_points(report: dict[str, Any], metric: str) -> dict[str, tuple[float, float]]:
    """Both models read the same texts of the evaluation: there the teacher's metric is zero_shot's."""
    points = {}
    for row in speeds(report):
        scores = report["mean"].get("zero_shot" if row["role"] == "teacher" else "distilled")
        times = row["latency"].get("batch_1")
        if scores and times:
            points[row["role"]] = (times.get("text_ms", times["forward_ms"]), scores[metric])
    return points


def plots(report: dict[str, Any], predictions: Path) -> list[tuple[str, str]]:
    """(heading, SVG) of each."""
    labels: list[str] = report["labels"]["classes"]
    models = [model for model in MODELS if model in report["mean"]]
    places = {**report["languages"], "mean": report["mean"]}
    first = report["metrics"][0]
    found = []
    for metric in report["metrics"]:
        title = title_of(metric, report)
        found.append((f"{title} by language", figures.metric_bars(places, models, metric, title)))
    if "distilled" in models:
        if "zero_shot" in models:
            gain = figures.gain_bars(places, "zero_shot", first, title_of(first, report))
            found.append(("Gain over zero_shot by language", gain))
        if labels:
            found.append(("F1 by class", figures.class_bars(report["mean"], models, labels)))
        if labels and report.get("task") != "multi_label":  # labels that hold together are not taken for one another
            counts = confusion(predictions, labels, "distilled")
            found.append(("Confusion matrix of the distilled student", figures.confusion_matrix(counts, labels)))
    if points := latency_points(report, first):
        figure = figures.latency_scatter(points, first, title_of(first, report))
        found.append((f"Latency against {title_of(first, report)}", figure))
    return found


def shown(value: float | None, metric: str) -> str:
    return "-" if value is None else f"{figures.shown(value, metric):.1f}"


def gained(value: float, metric: str) -> str:
    return f"{figures.shown(value, metric):+.1f}"


def render(folder: Path) -> str:
    report = read_report(folder / "report.json")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("polystill_report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=shown, gained=gained, unit=figures.unit_of)
    try:
        return environment.get_template("page.html.j2").render(
            report=report,
            models=[model for model in MODELS if model in report["mean"]],
            titles={metric: title_of(metric, report) for metric in report["metrics"]},
            speeds=speeds(report),
            batches=BATCHES,
            plots=plots(report, folder / "predictions.parquet"),
        )
    except (KeyError, TypeError, jinja2.UndefinedError) as error:
        raise ReportError(f"{folder / 'report.json'}: not a report of this version of Polystill: {error!r}") from error
