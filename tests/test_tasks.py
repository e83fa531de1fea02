"""Whole runs of every task beside classification, by real processes, on corpora where there is something to learn."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import task_corpora
import torch
import yaml
from processes import BIN, REPO
from recompute_report import check
from test_predict import ENCODE

TASKS = sorted(task_corpora.LABELS)
MODELS = {"zero_shot", "no_teacher", "pseudo_label", "distilled", "gold", "gold_all"}
SHARED = {"accuracy", "macro_f1", "micro_f1", "macro_precision", "macro_recall"}
METRICS = {
    "binary": SHARED,
    "multi_label": SHARED | {"micro_precision", "micro_recall"},
    "token_classification": SHARED | {"top_k"},
}


def polystill(*arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "polystill"), *map(str, arguments)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=timeout, check=False)


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


@dataclass
class Finished:
    task: str
    folder: Path
    rows: list[task_corpora.Row]
    stdout: str

    @property
    def output(self) -> Path:
        return self.folder / "run"

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = yaml.safe_load((self.folder / "run.yaml").read_text())
        return spec

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.output / "report.json").read_text())
        return report

    def test_rows(self) -> list[task_corpora.Row]:
        return [row for row in self.rows if row["split"] == "test"]


def run(folder: Path, spec: dict[str, Any], *arguments: str) -> str:
    (folder / "run.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    done = polystill("run", folder / "run.yaml", *arguments)
    assert done.returncode == 0, said(done)
    return done.stdout


@pytest.fixture(scope="module", params=TASKS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    task: str = request.param
    folder = tmp_path_factory.mktemp(task)
    rows = task_corpora.write(task, folder / "corpus")
    stdout = run(folder, task_corpora.run_file(task, folder / "corpus", folder / "run"))
    return Finished(task, folder, rows, stdout)


def commonest(finished: Finished) -> float:
    """The accuracy of whoever always says what is commonest."""
    golds = [row["label"] for row in finished.test_rows()]
    if finished.task == "token_classification":
        golds = [label for labels in golds for label in labels if label is not None]
    keys = [json.dumps(gold) for gold in golds]
    return max(keys.count(key) for key in set(keys)) / len(keys)


def test_the_student_learns_from_soft_labels(finished: Finished) -> None:
    report = finished.report
    assert report["task"] == finished.task
    mean = report["mean"]
    assert set(mean) == MODELS | {"records"}
    assert all(set(mean[model]) == METRICS[finished.task] | {"intervals", "classes"} for model in MODELS)
    chance = commonest(finished)
    for model in ("distilled", "pseudo_label", "gold", "gold_all"):
        assert mean[model]["accuracy"] > chance + 0.05, (model, mean[model]["accuracy"], chance)
    assert all(model in finished.stdout for model in MODELS)


def test_the_report_agrees_with_the_predictions(finished: Finished) -> None:
    assert check(finished.output) == []
    assert (finished.output / "report.html").exists()


def test_the_rows_of_the_predictions(finished: Finished) -> None:
    table = pq.read_table(finished.output / "predictions.parquet")
    labels = task_corpora.LABELS[finished.task]
    assert table.schema.metadata[b"polystill.task"].decode() == finished.task
    gold = {row["id"]: row["label"] for row in finished.test_rows()}
    found = table.to_pylist()
    if finished.task == "token_classification":
        expected = {
            (id_, i): label for id_, names in gold.items() for i, label in enumerate(names) if label is not None
        }
        assert {(row["id"], row["position"]): row["gold"] for row in found} == expected
        assert all(row["group"] == row["id"] for row in found)
    else:
        assert {row["id"]: row["gold"] for row in found} == gold
    probabilities = np.array([row["distilled_probabilities"] for row in found])
    assert probabilities.shape == (len(found), len(labels))
    if finished.task != "multi_label":
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def by_record(finished: Finished) -> dict[str, list[list[float]]]:
    """Id -> the distilled student's probabilities, of each judged word in its place."""
    found: dict[str, list[list[float]]] = {}
    for row in pq.read_table(finished.output / "predictions.parquet").to_pylist():
        found.setdefault(row["id"], []).append(row["distilled_probabilities"])
    return found


def check_answer(finished: Finished, row: task_corpora.Row, answer: dict[str, Any], known: list[list[float]]) -> None:
    labels = task_corpora.LABELS[finished.task]
    if finished.task == "token_classification":
        assert len(answer["prediction"]) == len(row["text"])
        best = [labels[int(np.argmax(values))] for values in answer["probabilities"]]
        assert answer["prediction"] == best
        judged = [i for i, label in enumerate(row["label"]) if label is not None]
        np.testing.assert_allclose([answer["probabilities"][i] for i in judged], known, atol=1e-6)
        return
    values = answer["probabilities"]
    np.testing.assert_allclose([values], known, atol=1e-6)
    if finished.task == "binary":
        assert answer["prediction"] == labels[int(values[1] > 0.5)]
        assert answer["probability"] == pytest.approx(max(values))
    else:
        there = [i for i, value in enumerate(values) if value > 0.5]
        assert answer["prediction"] == [labels[i] for i in there]
        assert answer["probability"] == pytest.approx([values[i] for i in there])


def test_predict_gives_what_the_evaluation_gave(finished: Finished, tmp_path: Path) -> None:
    rows, known = finished.test_rows(), by_record(finished)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    for ending in ("jsonl", "parquet"):
        out = tmp_path / f"out.{ending}"
        done = polystill("predict", "--student", finished.output, "--file", tmp_path / f"in.{ending}", "--out", out)
        assert done.returncode == 0, said(done)
        parquet = ending == "parquet"
        answers = pq.read_table(out).to_pylist() if parquet else [json.loads(line) for line in out.open()]
        for row, answer in zip(rows, answers, strict=True):
            check_answer(finished, row, answer, known[row["id"]])
    text = rows[0]["text"] if isinstance(rows[0]["text"], str) else " ".join(rows[0]["text"])
    done = polystill("predict", "--student", finished.output, "--text", text)
    assert done.returncode == 0, said(done)
    if finished.task == "token_classification":
        assert [part.split("/")[0] for part in done.stdout.split() if "/" in part] == rows[0]["text"]


def test_wrong_input_of_predict(finished: Finished, tmp_path: Path) -> None:
    words = finished.task == "token_classification"
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "a b" if words else ["a", "b"]}) + "\n")
    done = polystill(
        "predict", "--student", finished.output, "--file", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl"
    )
    assert done.returncode == 1
    assert f"in.jsonl: line 1: key 'text' is no {'list of words' if words else 'text'}" in done.stderr


def pieces_of(package: Path, words: list[str]) -> list[list[int]]:
    encode = [sys.executable, "-c", ENCODE, str(package / "tokenizer.model")]
    done = subprocess.run(encode, input=json.dumps(words), capture_output=True, text=True, check=True)
    ids: list[list[int]] = json.loads(done.stdout)
    return ids


def test_the_exported_module_gives_the_same(finished: Finished, tmp_path: Path) -> None:
    done = polystill("export", "--student", finished.output, "--out", tmp_path / "student.pt")
    assert done.returncode == 0, said(done)
    module = torch.jit.load(tmp_path / "student.pt")
    known = by_record(finished)
    for row in finished.test_rows()[:5]:
        words = row["text"] if isinstance(row["text"], list) else [row["text"]]
        pieces = pieces_of(finished.output / "models" / "distilled", words)
        ids = torch.tensor([[i for word in pieces for i in word] + [0, 0]])
        mask = torch.tensor([[True] * (ids.shape[1] - 2) + [False] * 2])
        with torch.no_grad():
            logits = module(ids, mask)[0].double()
        if finished.task == "token_classification":
            firsts = np.cumsum([0, *map(len, pieces)])[:-1]
            judged = [int(first) for first, label in zip(firsts, row["label"], strict=True) if label is not None]
            probabilities = torch.softmax(logits[judged], 1)
        elif finished.task == "binary":
            second = torch.sigmoid(logits)
            probabilities = torch.stack([1 - second, second], 1)
        else:
            probabilities = torch.sigmoid(logits)[None]
        np.testing.assert_allclose(probabilities.numpy(), known[row["id"]], atol=1e-5)


def test_a_student_is_a_teacher_as_it_is(finished: Finished, tmp_path: Path) -> None:
    spec = finished.spec | {"output": str(tmp_path / "run"), "baselines": ["zero_shot"]}
    spec["teachers"] = [{"name": "before", "package": str(finished.output / "models" / "distilled")}]
    spec["student"] |= {"epochs": 1, "early_stopping": {"metric": "loss", "every": 5}}
    # Where words are judged, teacher and student must cut them alike.
    spec["tokenizer"]["path"] = str(finished.output / "models" / "distilled" / "tokenizer.model")
    run(tmp_path, spec)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["mean"]["zero_shot"]["accuracy"] == finished.report["mean"]["distilled"]["accuracy"]


def test_a_stopped_run_goes_on_bit_by_bit(finished: Finished, tmp_path: Path) -> None:
    spec = finished.spec | {"output": str(tmp_path / "run"), "baselines": []}
    spec["student"] |= {"checkpoint_every": 20}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    process = subprocess.Popen(
        [str(BIN / "polystill"), "run", str(tmp_path / "run.yaml")],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    checkpoints = tmp_path / "run" / "checkpoints" / "distilled"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("step-*")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.02)
    assert polystill("stop", tmp_path / "run").returncode == 0
    process.communicate(timeout=60)
    assert not (tmp_path / "run" / "report.json").exists()
    run(tmp_path, spec, "--resume")
    for file in ("model.safetensors", "teacher.yaml"):
        whole, resumed = (folder / "models" / "distilled" / file for folder in (finished.output, tmp_path / "run"))
        assert whole.read_bytes() == resumed.read_bytes(), file
