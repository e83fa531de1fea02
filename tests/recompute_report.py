"""Recomputes the table of a run's report.json from its predictions.parquet, with scikit-learn, and compares.

python tests/recompute_report.py runs/package-topics
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import accuracy_score, f1_score

SUFFIX = "_probabilities"
TOLERANCE = 1e-9


def scores(rows: list[dict[str, Any]], labels: list[str], models: list[str]) -> dict[str, Any]:
    gold = [row["gold"] for row in rows]
    result: dict[str, Any] = {"records": len(rows)}
    for model in models:
        answers = [labels[int(np.argmax(row[model + SUFFIX]))] for row in rows]
        macro_f1 = f1_score(gold, answers, average="macro", zero_division=0)
        result[model] = {"accuracy": accuracy_score(gold, answers), "macro_f1": macro_f1}
    return result


def recompute(predictions: Path, labels: list[str]) -> dict[str, Any]:
    """The parts `languages` and `mean` of the report."""
    table = pq.read_table(predictions)
    models = [name.removesuffix(SUFFIX) for name in table.column_names if name.endswith(SUFFIX)]
    rows = table.to_pylist()
    languages = {
        language: scores([row for row in rows if row["language"] == language], labels, models)
        for language in sorted({row["language"] for row in rows})
    }
    mean: dict[str, Any] = {"records": len(rows)}
    for model in models:
        mean[model] = {
            metric: float(np.mean([found[model][metric] for found in languages.values()]))
            for metric in ("accuracy", "macro_f1")
        }
    return {"languages": languages, "mean": mean}


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
    recomputed = recompute(folder / "predictions.parquet", report["labels"]["classes"])
    return differences({part: report[part] for part in recomputed}, recomputed)


if __name__ == "__main__":
    wrong = check(Path(sys.argv[1]))
    print("\n".join(wrong) or "report.json agrees with predictions.parquet")
    sys.exit(1 if wrong else 0)
