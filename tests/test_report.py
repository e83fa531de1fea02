"""The check of report.json notices what is wrong, and compare.py's numbers are scikit-learn's."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recompute_report import check, outside, recompute

from recipes.package_topics import compare

LABELS = ["net", "games", "av"]
MODELS = ["zero_shot", "no_teacher", "distilled", "gold"]
# Chance that a model says the gold class.
SKILL = {"zero_shot": 0.3, "no_teacher": 0.4, "distilled": 0.8, "gold": 0.75}


def write_predictions(path: Path, seed: int, rows: int = 600) -> Path:
    draw = np.random.default_rng(seed)
    where = np.random.default_rng(0)
    gold = where.integers(len(LABELS), size=rows)
    columns: dict[str, Any] = {
        "id": [f"r{number:04}" for number in range(rows)],
        "language": [str(name) for name in where.choice(["de", "ja", "pt_BR"], size=rows)],
        "group": [f"g{number // 3 % 90}" for number in range(rows)],
        "gold": [LABELS[label] for label in gold],
    }
    for model in MODELS:
        said = np.where(draw.random(rows) < SKILL[model], gold, draw.integers(len(LABELS), size=rows))
        probabilities = 0.1 + 0.7 * np.eye(len(LABELS))[said]
        columns[f"{model}_probabilities"] = pa.array(probabilities.tolist(), pa.list_(pa.float32()))
    metadata = {"polystill.labels": json.dumps(LABELS), "polystill.models": json.dumps(MODELS)}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder with predictions and a report that agree."""
    predictions = write_predictions(tmp_path / "predictions.parquet", seed=1)
    report = {"labels": {"classes": LABELS}, "top_k": 2, "bootstrap": None, **recompute(predictions, LABELS, 2)}
    (tmp_path / "report.json").write_text(json.dumps(report))
    return tmp_path


def test_a_report_that_agrees(folder: Path) -> None:
    assert check(folder) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("languages", "de", "gold", "accuracy"), 0.5),
        (("languages", "ja", "distilled", "macro_f1"), 0.5),
        (("languages", "pt_BR", "records"), 7),
        (("mean", "zero_shot", "macro_f1"), 0.5),
        (("mean", "records"), 1),
        (("languages", "nl"), {}),
        (("languages", "de", "gold", "top_k"), 0.5),
        (("mean", "gold", "classes", "net", "recall"), 0.5),
        (("differences", "gold", "macro_f1", "difference"), 0.5),
    ],
)
def test_a_report_that_lies(folder: Path, path: tuple[str, ...], value: object) -> None:
    report = json.loads((folder / "report.json").read_text())
    changed = copy.deepcopy(report)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (folder / "report.json").write_text(json.dumps(changed))
    assert [place.split(":")[0] for place in check(folder)] == ["." + ".".join(path)]


def test_an_interval_that_lies() -> None:
    drawn = np.random.default_rng(1).normal(size=4000)
    ends = {
        width: [float(end) for end in np.quantile(drawn, (0.5 - width / 2, 0.5 + width / 2))] for width in (0.95, 0.8)
    }
    assert outside("here", ends[0.95], drawn) == []
    assert outside("here", ends[0.8], drawn) != []


def test_compare_agrees_with_scikit_learn(tmp_path: Path) -> None:
    paths = [write_predictions(tmp_path / f"{seed}.parquet", seed) for seed in (1, 2, 3)]
    data = compare.tally([compare.read_run(path) for path in paths])
    table = compare.score_table(data)
    runs = [recompute(path, LABELS) for path in paths]
    for row, language in enumerate(data.languages):
        for column, model in enumerate(data.models):
            for metric, name in enumerate(("accuracy", "macro_f1")):
                expected = np.mean([run["languages"][language][model][name] for run in runs])
                assert table[row, column, metric] == pytest.approx(expected, abs=1e-6)
    assert table[-1, data.models.index("gold"), 0] == pytest.approx(
        np.mean([run["mean"]["gold"]["accuracy"] for run in runs]), abs=1e-6
    )


def test_intervals_hold_the_difference_and_repeat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_predictions(tmp_path / "run.parquet", seed=1)
    data = compare.tally([compare.read_run(path)])
    first, second = (compare.resampled_scores(data, resamples=400, seed=5) for _ in range(2))
    assert np.array_equal(first, second)
    distilled, untaught = data.models.index("distilled"), data.models.index("no_teacher")
    drawn = first[-1, :, distilled, 0] - first[-1, :, untaught, 0]
    point = compare.score_table(data)[-1, distilled, 0] - compare.score_table(data)[-1, untaught, 0]
    low, high = np.percentile(drawn, (2.5, 97.5))
    assert 0 < low < point < high
    # Near the spread that independent records give: variance 0.25 for no_teacher, 0.16 for distilled at most.
    assert drawn.std() == pytest.approx(np.sqrt((0.25 + 0.16) / 600), rel=0.35)
    assert compare.main([str(path), "--resamples", "50"]) == 0
    table = capsys.readouterr().out
    assert "| mean | 600 |" in table
    assert "distilled - gold" in table


def test_runs_on_other_records_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write_predictions(tmp_path / f"{rows}.parquet", seed=1, rows=rows) for rows in (600, 300)]
    assert compare.main([str(path) for path in paths]) == 1
    assert "same records" in capsys.readouterr().err
