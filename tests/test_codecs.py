"""Labels of every codec: as a Python client reads them, against dense ones; and whole runs, by real processes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import task_corpora
import yaml
from numpy.typing import NDArray
from polystill import Batch, Codec, TeacherClient, TeacherRefused, codecs
from safetensors.numpy import load as load_safetensors
from task_corpora import LABELS
from teacher_packages import VOCABULARY, serving, write_package
from test_tasks import polystill, run, said

Logits = NDArray[np.float32]
RECORDS = [[3, 4, 5], [9], [7, 8, 250, 251, 11, 12]]
ROWS = sum(map(len, RECORDS))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeacherClient]:
    """Of a masked language model: 300 logits for each token."""
    package = write_package(tmp_path_factory.mktemp("package") / "lm", "transformer", "masked_lm")
    with serving(package, tmp_path_factory.mktemp("serve")) as address, TeacherClient(address) as client:
        yield client


@pytest.fixture(scope="module")
def logits(teacher: TeacherClient) -> Logits:
    return teacher.label(RECORDS)["logits"]


def log_softmax(logits: Logits, temperature: float) -> NDArray[np.float64]:
    z = logits.astype(np.float64) / temperature
    z -= z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("codec", "error"), [("dense_fp16", 2**-11), ("dense_bf16", 2**-8)])
def test_dense_codecs_round(teacher: TeacherClient, logits: Logits, codec: str, error: float) -> None:
    got = teacher.label(RECORDS, codec=codec)["logits"]
    assert 0 < np.abs(got - logits).max() <= error * np.abs(logits).max()


def test_int8_errs_by_half_a_step(teacher: TeacherClient, logits: Logits) -> None:
    got = teacher.label(RECORDS, codec="dense_int8", outputs=["logits", "hidden.1"])
    step = (logits.max(axis=1) - logits.min(axis=1)) / 254
    assert (np.abs(got["logits"] - logits).max(axis=1) <= 0.5001 * step).all()
    assert got["hidden.1"].shape == (ROWS, 24)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_top_k(teacher: TeacherClient, logits: Logits, temperature: float) -> None:
    got = teacher.label(RECORDS, codec=Codec("top_k", temperature=temperature, k=7)).packed()
    assert isinstance(got, codecs.TopK)
    log_p = log_softmax(logits, temperature)
    expected = np.sort(np.argsort(-logits, axis=1, kind="stable")[:, :7], axis=1)
    np.testing.assert_array_equal(got.ids, expected)
    known = np.take_along_axis(log_p, expected, axis=1)
    np.testing.assert_allclose(got.log_p, known, rtol=2**-11)
    np.testing.assert_allclose(got.log_rest, np.log1p(-np.exp(known).sum(axis=1)), rtol=1e-5)


def test_the_whole_vocabulary_leaves_no_rest(teacher: TeacherClient) -> None:
    got = teacher.label(RECORDS, codec=Codec("top_k", k=VOCABULARY)).packed()
    assert isinstance(got, codecs.TopK)
    assert np.isneginf(got.log_rest).all()
    np.testing.assert_array_equal(got.ids[0], np.arange(VOCABULARY))


@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_sampled(teacher: TeacherClient, logits: Logits, temperature: float) -> None:
    codec = Codec("sampled", temperature=temperature, draws=50, seed=4)
    got = teacher.label(RECORDS, codec=codec).packed()
    assert isinstance(got, codecs.Sampled)
    log_p = log_softmax(logits, temperature)
    counts = np.zeros((ROWS, VOCABULARY))
    rows = np.repeat(np.arange(ROWS), np.diff(got.offsets))
    counts[rows, got.ids] = got.counts
    assert (counts.sum(axis=1) == 50).all()
    assert np.abs(counts - 50 * np.exp(log_p)).max() < 1  # systematic
    np.testing.assert_allclose(got.entropy, -(np.exp(log_p) * log_p).sum(axis=1), rtol=1e-6)

    def drawn(records: list[list[int]], **change: Any) -> codecs.Sampled:
        packed = teacher.label(records, codec=codec, **change).packed()
        assert isinstance(packed, codecs.Sampled)
        return packed

    np.testing.assert_array_equal(drawn(RECORDS).ids, got.ids)
    alone = drawn([RECORDS[2]])
    np.testing.assert_array_equal(alone.ids, got.rows(4, ROWS).ids)
    np.testing.assert_array_equal(alone.offsets, got.rows(4, ROWS).offsets)
    assert not np.array_equal(drawn(RECORDS, draw=1).ids, got.ids)


def test_scores_and_classes(teacher: TeacherClient, logits: Logits) -> None:
    asked = [[0, 299] * len(record) for record in RECORDS]
    got = teacher.label(RECORDS, codec=Codec("scores", temperature=2.0), score_ids=asked).packed()
    assert isinstance(got, codecs.Scores)
    np.testing.assert_allclose(got.log_p.reshape(ROWS, 2), log_softmax(logits, 2.0)[:, [0, 299]], rtol=1e-5)
    np.testing.assert_array_equal(teacher.label(RECORDS, codec="classes")["logits"], logits.argmax(axis=1))


def test_hidden_and_head_make_the_logits(teacher: TeacherClient, logits: Logits) -> None:
    states = teacher.label(RECORDS, codec="hidden_head")["logits"]
    assert states.shape == (ROWS, 24)
    head = load_safetensors(teacher.head())
    made = states @ head["weight"].T + head["bias"]
    np.testing.assert_allclose(made, logits, atol=0.01 * np.abs(logits).max())


def test_a_stream_carries_packed_labels(teacher: TeacherClient) -> None:
    codec = Codec("top_k", k=3)
    batches = [Batch([[i, i + 1]]) for i in range(5)]
    streamed = [labels.packed() for labels in teacher.label_stream(batches, codec=codec)]
    for i, packed in enumerate(streamed):
        alone = teacher.label([[i, i + 1]], codec=codec).packed()
        assert isinstance(packed, codecs.TopK)
        assert isinstance(alone, codecs.TopK)
        np.testing.assert_array_equal(packed.ids, alone.ids)


def test_refuses_what_makes_no_sense(teacher: TeacherClient) -> None:
    with pytest.raises(ValueError, match="needs k"):
        teacher.label(RECORDS, codec="top_k")
    with pytest.raises(ValueError, match="needs draws"):
        teacher.label(RECORDS, codec="sampled")
    with pytest.raises(TeacherRefused, match=r"spec\.k is 301; write 1 to 300"):
        teacher.label(RECORDS, codec=Codec("top_k", k=301))
    with pytest.raises(TeacherRefused, match="score_ids"):
        teacher.label(RECORDS, codec="classes", score_ids=[[1]] * 3)
    with pytest.raises(TypeError, match=r"labels\.packed"):
        teacher.label(RECORDS, codec=Codec("top_k", k=3))["logits"]


# Whole runs: a student of words learns from a teacher of words by each codec.

TASK = "token_classification"
LOSSES: dict[str, dict[str, Any]] = {
    "dense_fp32": {},
    "dense_bf16": {},
    "dense_int8": {},
    "top_k": {"k": 2},
    "sampled": {"draws_per_token": 64},
    "per_epoch": {"codec": "sampled", "draws_per_token": 16, "draws": "per_epoch"},
    "hidden_head": {},
    "classes": {"kind": "hard_label"},
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and, in run/, what training a teacher on it left."""
    folder = tmp_path_factory.mktemp("words")
    task_corpora.write(TASK, folder / "corpus")
    spec = task_corpora.run_file(TASK, folder / "corpus", folder / "run")
    spec["student"]["epochs"] = 0.1
    run(folder, spec | {"baselines": []})
    return folder


def spec_of(words: Path, folder: Path, loss: dict[str, Any]) -> dict[str, Any]:
    spec = task_corpora.run_file(TASK, words / "corpus", folder / "run")
    teacher = words / "run/models/teacher-teacher"
    spec["teachers"] = [{"name": "teacher", "package": str(teacher)}]
    spec["tokenizer"] |= {"path": str(teacher / "tokenizer.model")}
    spec["student"]["losses"] = [{"kind": "soft_label"} | loss]
    spec["student"]["epochs"] = 10
    if "temperature" not in loss and loss.get("kind") != "hard_label":
        spec["student"]["losses"][0]["temperature"] = 2.0
    return spec | {"baselines": []}


@pytest.fixture(scope="module")
def reports(words: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Codec -> the report of a run by it."""
    reports = {}
    for name, loss in LOSSES.items():
        folder = tmp_path_factory.mktemp(name)
        run(folder, spec_of(words, folder, {"codec": name} | loss))
        reports[name] = json.loads((folder / "run/report.json").read_text())
    return reports


def accuracy(report: dict[str, Any]) -> float:
    return float(report["mean"]["distilled"]["accuracy"])


@pytest.mark.parametrize("name", LOSSES)
def test_a_student_learns_by_each_codec(reports: dict[str, dict[str, Any]], name: str) -> None:
    report = reports[name]
    assert report["labels"]["codec"] == LOSSES[name].get("codec", name)
    assert accuracy(report) >= accuracy(reports["dense_fp32"]) - 0.05
    assert report["labels"]["count"] == reports["dense_fp32"]["labels"]["count"]


def test_the_bytes_are_those_of_the_format(reports: dict[str, dict[str, Any]]) -> None:
    """Of three logits and a head of 32 numbers, row for row."""
    rows = reports["dense_fp32"]["labels"]["bytes"] / 12
    assert rows == int(rows)
    sizes = {"dense_bf16": 6, "dense_int8": 11, "top_k": 1 + 4 + 4, "hidden_head": 64, "classes": 4}
    for name, size in sizes.items():
        assert reports[name]["labels"]["bytes"] == rows * size, name
    assert rows * 6 <= reports["sampled"]["labels"]["bytes"] <= rows * math.ceil(5 + 3 * 14 / 8)


def test_the_dry_run_foretells_labels_and_memory(words: Path, tmp_path: Path) -> None:
    spec = spec_of(words, tmp_path, {"codec": "top_k", "k": 2})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(spec))
    done = polystill("run", tmp_path / "run.yaml", "--dry-run")
    assert done.returncode == 0, said(done)
    assert "soft labels: at most" in done.stdout
    assert "logits and losses: at most" in done.stdout


def test_a_step_that_does_not_fit_its_memory_is_refused(words: Path, tmp_path: Path) -> None:
    spec = spec_of(words, tmp_path, {"codec": "dense_fp32"})
    spec["student"] |= {"loss_memory_mb": 1, "batch_size": 50_000, "micro_batch": 0, "workers": 1, "epochs": 300}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(spec))
    done = polystill("run", tmp_path / "run.yaml")
    assert done.returncode != 0
    assert "student.loss_memory_mb, 1; lower student.micro_batch" in said(done)


def test_a_codec_that_does_not_serve_a_loss_is_refused(words: Path, tmp_path: Path) -> None:
    spec = spec_of(words, tmp_path, {"codec": "classes"})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(spec))
    done = polystill("check", tmp_path / "run.yaml")
    assert done.returncode != 0
    assert "student.losses.0.codec: classes does not carry what soft_label needs" in said(done)
    assert len(LABELS[TASK]) == 3
