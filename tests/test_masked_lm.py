"""Masked language models: a whole run by real processes. Words come in pairs, so that each can be found again."""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.numpy import load_file, save_file
from task_corpora import stems
from test_tasks import pieces_of, polystill, run

LANGUAGES = ("b", "c")
MASK_ID = 1
MASKED = {"share": 0.2, "random": 0.0, "keep": 0.0}
PAIRS = {
    language: list(zip(stems(20, f"first {language}"), stems(20, f"second {language}"), strict=True))
    for language in LANGUAGES
}

Row = dict[str, Any]


def rows() -> list[Row]:
    generator = random.Random("masked")
    made = []
    for language in LANGUAGES:
        for split, pool, count in (("train", "A", 150), ("train", "B", 150), ("dev", "B", 30), ("test", "B", 40)):
            for number in range(count):
                words = [word for pair in generator.choices(PAIRS[language], k=5) for word in pair]
                name = f"{language}-{split}-{pool}-{number}"
                made.append({"id": name, "language": language, "split": split, "pool": pool, "text": " ".join(words)})
    return made


def model() -> dict[str, Any]:
    return {"kind": "transformer", "width": 32, "layers": 1, "heads": 2, "dropout": 0.0}


def run_file(corpus: Path, output: Path) -> dict[str, Any]:
    optimizer = {"lr": 1e-2, "warmup_steps": 20}
    return {
        "version": 1,
        "name": "masked",
        "task": "masked_lm",
        "masking": MASKED,
        "seed": 3,
        "corpus": {"path": str(corpus)},
        "tokenizer": {"vocab_size": 360, "max_length": 32},
        "teachers": [
            {
                "name": "teacher",
                "train": {
                    "model": model(),
                    "where": {"pool": "A"},
                    "epochs": 30,
                    "batch_size": 16,
                    "optimizer": optimizer,
                },
            }
        ],
        "student": {
            "model": model(),
            "where": {"pool": "B"},
            "languages": {"targets": list(LANGUAGES)},
            "losses": [{"kind": "soft_label", "temperature": 2.0}],
            "optimizer": optimizer,
            "batch_size": 16,
            "epochs": 30,
            "workers": 2,
            "micro_batch": 3,
            "early_stopping": {"metric": "loss", "every": 100, "patience": 10},
        },
        "baselines": ["zero_shot", "pseudo_label", "gold"],
        "evaluate": {"top_k": 2},
        "output": str(output),
    }


@dataclass
class Finished:
    folder: Path
    stdout: str

    @property
    def output(self) -> Path:
        return self.folder / "run"

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.output / "report.json").read_text())
        return report

    @property
    def predictions(self) -> list[Row]:
        found: list[Row] = pq.read_table(self.output / "predictions.parquet").to_pylist()
        return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("masked")
    (folder / "corpus").mkdir()
    (folder / "corpus" / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return Finished(folder, run(folder, run_file(folder / "corpus", folder / "run")))


def test_the_student_learns_from_the_teacher(finished: Finished) -> None:
    mean = finished.report["mean"]
    assert set(mean) == {"records", "zero_shot", "pseudo_label", "distilled", "gold"}
    golds = [row["gold"] for row in finished.predictions]
    commonest = max(golds.count(gold) for gold in set(golds)) / len(golds)
    for name in ("zero_shot", "distilled", "gold"):
        assert mean[name]["accuracy"] > commonest + 0.2, (name, mean[name], commonest)
        assert 1 < mean[name]["perplexity"] < 360
    assert "perplexity" in finished.stdout


def test_the_report_is_that_of_the_predictions(finished: Finished) -> None:
    report, every = finished.report, finished.predictions
    assert report["labels"]["classes"] == []
    for language in LANGUAGES:
        some = [row for row in every if row["language"] == language]
        assert report["languages"][language]["records"] == len(some)
        for name in ("zero_shot", "pseudo_label", "distilled", "gold"):
            scores = report["languages"][language][name]
            assert scores["accuracy"] == pytest.approx(np.mean([row["gold"] == row[f"{name}_token"] for row in some]))
            assert scores["top_k"] == pytest.approx(np.mean([row[f"{name}_rank"] < 2 for row in some]))
            perplexity = math.exp(-np.mean([row[f"{name}_log_probability"] for row in some]))
            assert scores["perplexity"] == pytest.approx(perplexity)
            low, high = scores["intervals"]["perplexity"]
            assert low <= perplexity <= high
    for metric in ("accuracy", "top_k", "perplexity"):
        parts = [report["languages"][language]["distilled"][metric] for language in LANGUAGES]
        assert report["mean"]["distilled"][metric] == pytest.approx(np.mean(parts))
    assert (finished.output / "report.html").exists()


def test_guesses_are_those_of_the_exported_module(finished: Finished, tmp_path: Path) -> None:
    package = finished.output / "models" / "distilled"
    done = polystill("export", "--student", finished.output, "--out", tmp_path / "student.pt")
    assert done.returncode == 0, done.stderr
    module = torch.jit.load(tmp_path / "student.pt")
    texts = {row["id"]: row["text"] for row in rows()}
    by_record: dict[str, list[Row]] = {}
    for row in finished.predictions:
        by_record.setdefault(row["id"], []).append(row)
    assert set(by_record) == {row["id"] for row in rows() if row["split"] == "test"}
    for name, hidden in list(by_record.items())[::7]:
        ids = pieces_of(package, [texts[name]])[0]
        assert 1 <= len(hidden) <= math.ceil(0.2 * len(ids))
        for row in hidden:
            assert ids[row["position"]] == row["gold"]
            ids[row["position"]] = MASK_ID
        with torch.no_grad():
            logits = module(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))[0].double()
        for row in hidden:
            given = torch.log_softmax(logits[row["position"]], 0)
            assert row["distilled_log_probability"] == pytest.approx(given[row["gold"]].item(), abs=1e-4)
            assert row["distilled_token"] == int(given.argmax())
            assert row["distilled_rank"] == int((given > given[row["gold"]]).sum())


def test_predict_fills_masks(finished: Finished) -> None:
    first, second = PAIRS["b"][0]
    text = f"<mask> {second} {first} <mask>"
    done = polystill("predict", "--student", finished.output, "--top", "2", "--text", text, "--text", "no mask here")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(line.endswith(text) and line.count("%") == 2 for line in lines[:2])
    assert lines[2].startswith("no <mask>")
    files = ("--file", finished.folder / "corpus" / "all.jsonl", "--out", finished.folder / "out.jsonl")
    refused = polystill("predict", "--student", finished.output, *files)
    assert refused.returncode == 1
    assert "fills <mask> in a --text" in refused.stderr


def test_predict_fills_masks_with_ids_of_the_tokeniser_alone(finished: Finished, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(finished.output / "models" / "distilled", package)
    weights = load_file(package / "model.safetensors")
    spare = 8  # ids that stand for nothing, and that the model deems the likeliest
    weights["embedding.weight"] = np.pad(weights["embedding.weight"], ((0, spare), (0, 0)))
    weights["head.bias"] = np.pad(weights["head.bias"], (0, spare), constant_values=100)
    save_file(weights, package / "model.safetensors")
    manifest = yaml.safe_load((package / "teacher.yaml").read_text())
    manifest["signature"]["vocab_size"] += spare
    del manifest["files"], manifest["model"]["parameters"]
    (package / "teacher.yaml").write_text(yaml.safe_dump(manifest))
    text = f"<mask> {PAIRS['b'][0][0]}"
    said = [
        polystill("predict", "--student", folder, "--top", "3", "--text", text)
        for folder in (finished.output / "models" / "distilled", package)
    ]
    assert said[1].returncode == 0, said[1].stderr
    assert said[1].stdout == said[0].stdout


def test_a_classifier_starts_from_it(finished: Finished, tmp_path: Path) -> None:
    package = finished.output / "models" / "distilled"
    labelled = [row | {"label": "early" if row["text"] < "m" else "late"} for row in rows()]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    spec = run_file(tmp_path / "all.jsonl", tmp_path / "run")
    del spec["masking"], spec["student"]["early_stopping"], spec["evaluate"]
    spec |= {"task": "classification", "teachers": [], "baselines": []}
    spec["corpus"]["labels"] = ["early", "late"]
    spec["student"] |= {"losses": [{"kind": "task"}], "epochs": 1, "model": model() | {"initial": str(package)}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(spec))
    done = polystill("run", tmp_path / "wrong.yaml")
    assert done.returncode != 0
    assert "another tokeniser" in done.stdout + done.stderr
    spec["tokenizer"]["path"] = str(package / "tokenizer.model")
    spec["output"] = str(tmp_path / "started")
    spec["student"]["optimizer"] = {"lr": 1e-9}  # so small that the weights stay what they began as
    run(tmp_path, spec)
    given = load_file(package / "model.safetensors")
    taken = load_file(tmp_path / "started" / "models" / "distilled" / "model.safetensors")
    body = [name for name in taken if not name.startswith("head.")]
    assert len(body) == 16  # two embeddings, twelve of the layer, the last norm's two
    for name in body:
        np.testing.assert_allclose(taken[name], given[name], atol=1e-6, err_msg=name)


def test_the_same_run_hides_the_same_tokens(finished: Finished, tmp_path: Path) -> None:
    spec = run_file(finished.folder / "corpus", tmp_path / "run")
    run(tmp_path, spec)
    for name in ("teacher-teacher", "distilled", "gold"):
        file = Path("models") / name / "model.safetensors"
        assert (tmp_path / "run" / file).read_bytes() == (finished.output / file).read_bytes(), name
