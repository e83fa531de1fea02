"""Compares models over several runs: means over seeds, paired differences with 95% intervals, as Markdown.

python -m recipes.package_topics.compare runs/a/predictions.parquet runs/b/predictions.parquet

Intervals come from a bootstrap over package groups: a group is drawn with its records of every language, model and run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

PAIRS = tuple(("distilled", model) for model in ("gold", "gold_all", "pseudo_label", "no_teacher"))
METRICS = ("accuracy", "macro-F1")
SUFFIX = "_probabilities"

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tally:
    """What the metrics need of the predictions of all runs."""

    languages: list[str]
    models: list[str]
    records: Array  # [languages]
    # True positives, false positives, false negatives: [languages, groups, runs, models, classes, 3]
    counts: Array


def read_run(path: Path) -> pa.Table:
    return pq.read_table(path).sort_by("id")


def strings(table: pa.Table, column: str) -> list[str]:
    return [str(value) for value in table.column(column).to_pylist()]


def labels_of(table: pa.Table) -> list[str]:
    labels: list[str] = json.loads(table.schema.metadata[b"polystill.labels"])
    return labels


def predicted(table: pa.Table, model: str) -> Array:
    """Arg-max class of each record, the first of equals."""
    probabilities = table.column(f"{model}{SUFFIX}").combine_chunks()
    return probabilities.flatten().to_numpy().reshape(len(table), -1).argmax(axis=1)


def tally(tables: Sequence[pa.Table]) -> Tally:
    first = tables[0]
    for table in tables[1:]:
        if not all(table.column(name).equals(first.column(name)) for name in ("id", "gold")):
            raise ValueError("the runs were not evaluated on the same records")
    labels = labels_of(first)
    models = [name.removesuffix(SUFFIX) for name in first.column_names if name.endswith(SUFFIX)]
    languages, language = np.unique(strings(first, "language"), return_inverse=True)
    groups, group = np.unique(strings(first, "group"), return_inverse=True)
    gold = np.array([labels.index(name) for name in strings(first, "gold")])
    shape = (len(languages), len(groups), len(tables), len(models), len(labels), 3)
    counts = np.zeros(shape, np.float32)
    for run, table in enumerate(tables):
        for number, model in enumerate(models):
            answer = predicted(table, model)
            right = answer == gold
            np.add.at(counts, (language, group, run, number, gold, np.where(right, 0, 2)), 1)
            wrong = ~right
            np.add.at(counts, (language[wrong], group[wrong], run, number, answer[wrong], 1), 1)
    return Tally([str(name) for name in languages], models, np.bincount(language), counts)


def scores(counts: Array) -> Array:
    """[..., classes, 3] -> [..., 2]: accuracy and macro-F1 over the classes in gold or predictions."""
    hits, excess, missed = np.moveaxis(counts, -1, 0)
    accuracy = hits.sum(-1) / (hits + missed).sum(-1)
    seen = hits + excess + missed > 0
    f1 = np.divide(2 * hits, 2 * hits + excess + missed, out=np.zeros_like(hits), where=seen)
    return np.stack([accuracy, f1.sum(-1) / seen.sum(-1)], axis=-1)


def with_mean(values: Array) -> Array:
    """Appends the unweighted mean over languages, the first axis, as one more language."""
    return np.concatenate([values, values.mean(axis=0, keepdims=True)])


def score_table(data: Tally) -> Array:
    """[languages + 1, models, metrics], means over runs."""
    return with_mean(scores(data.counts.sum(axis=1)).mean(axis=1))


def resampled_scores(data: Tally, resamples: int, seed: int) -> Array:
    """[languages + 1, resamples, models, metrics], means over runs."""
    groups = data.counts.shape[1]
    draws = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), resamples)
    weights = draws.astype(np.float32)
    by_language = []
    for counts in data.counts:
        drawn = (weights @ counts.reshape(groups, -1)).reshape(resamples, *counts.shape[1:])
        by_language.append(scores(drawn).mean(axis=1))
    return with_mean(np.stack(by_language))


def markdown(data: Tally, resamples: int, seed: int) -> str:
    points = 100 * score_table(data)
    drawn = 100 * resampled_scores(data, resamples, seed)
    pairs = [pair for pair in PAIRS if set(pair) <= set(data.models)]
    lines = []
    for metric, title in enumerate(METRICS):
        heads = ["language", "records", *data.models, *(f"{a} - {b}" for a, b in pairs)]
        lines += [f"**{title}**, %", "", "| " + " | ".join(heads) + " |"]
        lines.append("|" + "---|" + "---:|" * (len(heads) - 1))
        totals = [*data.records, data.records.sum()]
        for row, language in enumerate([*data.languages, "mean"]):
            cells = [
                language,
                str(totals[row]),
                *(f"{value:.1f}" for value in points[row, :, metric]),
            ]
            for a, b in pairs:
                i, j = data.models.index(a), data.models.index(b)
                low, high = np.percentile(drawn[row, :, i, metric] - drawn[row, :, j, metric], (2.5, 97.5))
                difference = points[row, i, metric] - points[row, j, metric]
                cells.append(f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]")
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    runs, groups = data.counts.shape[2], data.counts.shape[1]
    lines.append(f"Means of {runs} run(s). Brackets: 95% of {resamples} bootstrap samples of {groups} package groups.")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="recipes.package_topics.compare", description=__doc__.splitlines()[0])
    parser.add_argument("predictions", type=Path, nargs="+", help="predictions.parquet, one a run")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap samples (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        data = tally([read_run(path) for path in options.predictions])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    print(markdown(data, options.resamples, options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
