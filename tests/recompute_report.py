"""Recomputes a run's report.json from its predictions.parquet, with scikit-learn and numpy, and compares.

python tests/recompute_report.py runs/package-topics
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
    top_k_accuracy_score,
)

SUFFIX = "_probabilities"
TOLERANCE = 1e-9
INTERVAL_TOLERANCE = 1e-6  # some draws are float32
RESAMPLES = 4000
# Levels between which an end of a 95% interval lies by all odds, whichever draws were made.
LOW_LEVELS, HIGH_LEVELS = (0.002, 0.06), (0.94, 0.998)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Predictions:
    labels: list[str]
    models: list[str]
    language: Array  # [records]
    group: Array  # [records], numbers
    gold: Array  # [records], indices of labels; task multi_label: [records, labels] of 0 and 1
    probabilities: dict[str, Array]  # [records, labels]

    @property
    def many(self) -> bool:
        """Whether labels hold or not, each by itself."""
        return self.gold.ndim == 2


def gold_of(gold: str | list[str], labels: list[str]) -> Any:
    return labels.index(gold) if isinstance(gold, str) else [int(label in gold) for label in labels]


def answers_of(probabilities: Array, many: bool) -> Array:
    return (probabilities > 0.5).astype(int) if many else probabilities.argmax(axis=1)


def read(path: Path, labels: list[str]) -> Predictions:
    table = pq.read_table(path)
    rows = [row for row in table.to_pylist() if row["gold"] is not None]
    models = [name.removesuffix(SUFFIX) for name in table.column_names if name.endswith(SUFFIX)]
    names = [row["group"] or f"record {number}" for number, row in enumerate(rows)]
    return Predictions(
        labels,
        models,
        np.array([row["language"] for row in rows]),
        np.unique(names, return_inverse=True)[1],
        np.array([gold_of(row["gold"], labels) for row in rows]),
        {model: np.array([row[model + SUFFIX] for row in rows]).reshape(len(rows), -1) for model in models},
    )


def scores(gold: Array, probabilities: Array, labels: list[str], top_k: int, task: str) -> dict[str, Any]:
    many = gold.ndim == 2
    answers = answers_of(probabilities, many)
    found: dict[str, Any] = {"accuracy": accuracy_score(gold, answers)}
    for average in ("macro", "micro"):
        found[f"{average}_f1"] = f1_score(gold, answers, average=average, zero_division=0)
    found["macro_precision"] = precision_score(gold, answers, average="macro", zero_division=0)
    found["macro_recall"] = recall_score(gold, answers, average="macro", zero_division=0)
    if many:
        found["micro_precision"] = precision_score(gold, answers, average="micro", zero_division=0)
        found["micro_recall"] = recall_score(gold, answers, average="micro", zero_division=0)
    elif task == "binary":
        pass
    elif top_k >= len(labels):
        found["top_k"] = 1.0
    elif len(labels) == 2:  # scikit-learn wants one score of a binary task then: top-1
        found["top_k"] = found["accuracy"]
    else:
        found["top_k"] = top_k_accuracy_score(gold, probabilities, k=top_k, labels=np.arange(len(labels)))
    there = list(range(len(labels))) if many else sorted({*gold.tolist(), *answers.tolist()})
    parts = precision_recall_fscore_support(gold, answers, labels=there, zero_division=0)
    found["classes"] = {
        labels[label]: dict(zip(("precision", "recall", "f1", "support"), map(float, values), strict=True))
        for label, *values in zip(there, *parts, strict=True)
    }
    return found


def mean_of(found: list[dict[str, Any]], labels: list[str]) -> dict[str, Any]:
    mean: dict[str, Any] = {
        name: float(np.mean([one[name] for one in found])) for name in found[0] if name != "classes"
    }
    mean["classes"] = {}
    for label in labels:
        parts = [one["classes"][label] for one in found if label in one["classes"]]
        if parts:
            mean["classes"][label] = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
            mean["classes"][label]["support"] = sum(part["support"] for part in parts)
    return mean


def recompute(predictions: Path, labels: list[str], top_k: int = 1, task: str = "classification") -> dict[str, Any]:
    """The parts `languages`, `mean` and `differences` of the report, without intervals."""
    data = read(predictions, labels)
    languages: dict[str, Any] = {}
    for language in sorted(set(data.language)):
        rows = data.language == language
        languages[str(language)] = {"records": int(rows.sum())} | {
            model: scores(data.gold[rows], values[rows], labels, top_k, task)
            for model, values in data.probabilities.items()
        }
    mean: dict[str, Any] = {"records": len(data.gold)} | {
        model: mean_of([found[model] for found in languages.values()], labels) for model in data.models
    }
    gained = {
        model: {
            metric: {"difference": mean["distilled"][metric] - mean[model][metric]}
            for metric in mean[model]
            if metric != "classes"
        }
        for model in data.models
        if model != "distilled"
    }
    return {"languages": languages, "mean": mean, "differences": gained}


def bootstrap(data: Predictions, seed: int = 0) -> dict[str, dict[str, dict[str, Array]]]:
    """Language or mean -> model -> metric -> [RESAMPLES] values. A group is drawn with its rows of every language."""
    groups = int(data.group.max()) + 1
    times = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), RESAMPLES)
    drawn: dict[str, dict[str, dict[str, Array]]] = {}
    for language in sorted(set(data.language)):
        rows = data.language == language
        weights = times[:, data.group[rows]].astype(float)  # [resamples, records]
        gold = data.gold[rows] if data.many else np.eye(len(data.labels))[data.gold[rows]]
        drawn[str(language)] = {}
        for model, values in data.probabilities.items():
            answers = answers_of(values[rows], data.many)
            answers = answers if data.many else np.eye(len(data.labels))[answers]
            right, said, true = weights @ (gold * answers), weights @ answers, weights @ gold
            with np.errstate(invalid="ignore"):
                f1 = np.where(said + true > 0, 2 * right / (said + true), 0.0 if data.many else np.nan)
                accuracy = weights @ (gold == answers).all(axis=1) / weights.sum(axis=1)
                f1[weights.sum(axis=1) == 0] = np.nan  # a resample without a record of the language
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a resample without a record of the language
                drawn[str(language)][model] = {"accuracy": accuracy, "macro_f1": np.nanmean(f1, axis=1)}
    drawn["mean"] = {
        model: {
            metric: np.nanmean([drawn[str(name)][model][metric] for name in sorted(set(data.language))], axis=0)
            for metric in ("accuracy", "macro_f1")
        }
        for model in data.models
    }
    return drawn


def outside(place: str, interval: list[float], drawn: Array) -> list[str]:
    """Says so when the interval is not the 95% interval of what was drawn."""
    drawn = drawn[np.isfinite(drawn)]
    low, high = (np.quantile(drawn, levels) for levels in (LOW_LEVELS, HIGH_LEVELS))
    fits = all(
        inner[0] - INTERVAL_TOLERANCE <= end <= inner[1] + INTERVAL_TOLERANCE
        for end, inner in zip(interval, (low, high), strict=True)
    )
    return [] if fits else [f"{place}: {interval}, but numpy drew {low} and {high}"]


def check_intervals(report: dict[str, Any], data: Predictions) -> list[str]:
    drawn = bootstrap(data)
    wrong: list[str] = []
    for place, models in drawn.items():
        scored = report["mean"] if place == "mean" else report["languages"][place]
        for model, metrics in models.items():
            for metric, values in metrics.items():
                wrong += outside(f"{place}.{model}.{metric}", scored[model]["intervals"][metric], values)
    for model, metrics in report["differences"].items():
        for metric in ("accuracy", "macro_f1"):
            gained = drawn["mean"]["distilled"][metric] - drawn["mean"][model][metric]
            wrong += outside(f"differences.{model}.{metric}", metrics[metric]["interval"], gained)
    return wrong


def without_intervals(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: without_intervals(value) for key, value in node.items() if key not in ("intervals", "interval")}


def differences(reported: Any, recomputed: Any, place: str = "") -> list[str]:
    """Every place where the two disagree, in keys or in numbers."""
    if isinstance(reported, dict) and isinstance(recomputed, dict):
        found = [f"{place}.{key}: only on one side" for key in reported.keys() ^ recomputed.keys()]
        for key in reported.keys() & recomputed.keys():
            found += differences(reported[key], recomputed[key], f"{place}.{key}")
        return sorted(found)
    same = isinstance(reported, int | float) and abs(reported - recomputed) <= TOLERANCE
    return [] if same else [f"{place}: reported {reported}, recomputed {recomputed}"]


def check(folder: Path) -> list[str]:
    report = json.loads((folder / "report.json").read_text())
    labels = report["labels"]["classes"]
    recomputed = recompute(
        folder / "predictions.parquet", labels, report["top_k"], report.get("task", "classification")
    )
    wrong = differences({part: without_intervals(report[part]) for part in recomputed}, recomputed)
    if report["bootstrap"] is None or wrong:
        return wrong
    return check_intervals(report, read(folder / "predictions.parquet", labels))


if __name__ == "__main__":
    wrong = check(Path(sys.argv[1]))
    print("\n".join(wrong) or "report.json agrees with predictions.parquet")
    sys.exit(1 if wrong else 0)
