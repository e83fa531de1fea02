"""The benchmarks' statistics, and each benchmark on a workload of seconds."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from processes import REPO

from benchmarks.label_logits import ensure_package
from benchmarks.pairing import Figure, Ratio, measure, table, write

TINY: dict[str, Any] = {
    "vocab_size": 200,
    "labels": 3,
    "lengths": {"median": 8, "sigma": 0.5, "min": 2, "max": 16},
    "batch_size": 16,
    "optimizer": {"lr": 1e-3, "clip_norm": 1.0},
    "models": {
        "bag": {"kind": "subword_bag", "width": 8},
        "transformer": {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "dropout": 0.0},
    },
    "end_to_end": {
        "student": "transformer",
        "records": 64,
        "temperature": 2.0,
        "workers": 2,
        "teachers": {"1": {"kind": "transformer", "width": 8, "layers": 2, "heads": 2}},
        "costly": {"10": {"kind": "transformer", "width": 8, "layers": 3, "heads": 2}},
        "records_of_costly": 32,
    },
    "ddp": {"models": {"bag": {"records": 64}}},
    "startup": {"model": "bag", "records": 64},
    "cores": 2,
    "service_overhead": {
        "teacher": {"kind": "transformer", "width": 8, "layers": 2, "heads": 2},
        "epochs": 2,
        "students": {"bag": {"records": 64}},
    },
    "codecs": {
        "recipe": "recipes/package_topics/masked_lm.yaml",
        "positions": 48,
        "seed": 7,
        "temperature": 1.0,
        "kl": [0.1, 2.0],
        "synthetic": {"classes": 3000, "entropies": [1.0, 4.0]},
        "dense": ["dense_fp32", "dense_fp16", "dense_bf16", "dense_int8"],
        "k": [4, 16],
        "draws": [16, 64],
        "more": [256],
        "passes": 3,
        "timings": 1,
    },
    "label_stream": {"messages": 16, "window": 4},
    "teacher_server": {
        "model": {"kind": "transformer", "width": 8, "layers": 1, "heads": 2},
        "records": 64,
        "latency_records": 9,
        "mixed": {
            "lengths": {"median": 8, "sigma": 0.8, "min": 2, "max": 32},
            "records": 64,
            "padded_tokens": 128,
        },
    },
}
RATIOS = {
    "end_to_end": [
        "first_epoch_vs_python.1",
        "first_epoch_vs_python.10",
        "three_epochs_vs_python.10",
        "three_epochs_vs_caching_python.10",
    ],
    "ddp": ["step_time_vs_python.bag"],
    "label_stream": ["vs_raw_grpc", "vs_arrow_flight"],
    "service_overhead": ["vs_preloaded.bag"],
    "startup": ["startup_vs_python"],
    "teacher_server": ["vs_direct", "one_record_vs_direct", "bucketing_vs_ceiling"],
}


# Ranks that hold the median with at least 95%, from tables of the sign test.
@pytest.mark.parametrize(("pairs", "low", "high"), [(7, 1, 7), (9, 2, 8), (15, 4, 12), (20, 6, 15), (25, 8, 18)])
def test_the_interval_is_that_of_the_sign_test(pairs: int, low: int, high: int) -> None:
    ratio = Ratio("r", "a", "b", {"a": [float(i) for i in range(pairs, 0, -1)], "b": [1.0] * pairs})
    assert ratio.interval() == (low, high)


def test_sides_take_turns_and_the_first_of_each_does_not_count() -> None:
    calls: list[str] = []

    def side(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    ratio = measure(Ratio("r", "a", "b"), {"a": lambda: side("a"), "b": lambda: side("b")}, 3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert ratio.samples == {"a": [3.0, 6.0, 7.0], "b": [4.0, 5.0, 8.0]}
    assert ratio.median() == pytest.approx(7 / 8)


def test_what_is_written(tmp_path: Path) -> None:
    ratio = Ratio("r", "ours", "theirs", {"ours": [1.0, 2.0], "theirs": [2.0, 2.0]})
    path = write("some", [ratio], {"width": 8}, {"cores": 2}, tmp_path)
    assert path.name == "bench-some.json"
    report = json.loads(path.read_text())
    assert report["name"] == "some"
    assert report["ratios"] == {"r": 0.75}
    assert report["samples"]["r"]["ours"] == [1.0, 2.0]
    assert report["settings"] == {"width": 8}
    assert report["machine"] == {"cores": 2}
    assert "0.750" in table([ratio])


def test_figures_are_written_with_their_tables(tmp_path: Path) -> None:
    figures = [Figure("bias", 1.5, "worst of 3", {"lines": [{"k": 1}]}), Figure("error", 0.9)]
    report = json.loads(write("some", figures, {}, {}, tmp_path).read_text())
    assert report["ratios"] == {"bias": 1.5, "error": 0.9}
    assert report["tables"] == {"lines": [{"k": 1}]}
    assert "1.500" in table(figures)
    assert "worst of 3" in table(figures)


@pytest.mark.parametrize("name", sorted(RATIOS))
def test_a_benchmark_measures_both_sides(name: str, tmp_path: Path) -> None:
    ratios = importlib.import_module(f"benchmarks.{name}").run(TINY, tmp_path, 1)
    assert [ratio.name for ratio in ratios] == RATIOS[name]
    for ratio in ratios:
        assert set(ratio.samples) == {ratio.over, ratio.under}
        assert all(0 < value < 60 for values in ratio.samples.values() for value in values)


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Figure]]:
    """The folder with a model of the sample corpus, trained by the benchmark, and what it measured."""
    folder = tmp_path_factory.mktemp("codecs")
    sample = REPO / "recipes" / "package_topics" / "sample"
    records = [json.loads(line) for path in sorted(sample.glob("*.jsonl")) for line in path.read_text().splitlines()]
    (folder / "corpus").mkdir()
    pq.write_table(pa.Table.from_pylist(records), folder / "corpus" / "all.parquet")
    (folder / "corpus" / "SOURCES.json").write_text("{}")  # as prepare leaves one
    changes = [f"corpus.path={folder / 'corpus'}", "tokenizer.vocab_size=800", "student.model.width=16"]
    changes += [f"evaluate.languages.{place}={name}" for place, name in enumerate(("de", "es", "fr", "ja"))]
    settings = TINY["codecs"] | {"output": folder / "model", "corpus": folder / "corpus", "set": changes}
    return folder, importlib.import_module("benchmarks.codecs").run(TINY | {"codecs": settings}, folder, 1)


def test_labels_are_measured_on_logits_of_a_model_and_synthetic_ones(codecs: tuple[Path, list[Figure]]) -> None:
    _, figures = codecs
    assert [figure.name for figure in figures] == ["bias_in_se", "error_vs_multinomial"]
    assert figures[0].value < 5
    assert 0 < figures[1].value < 1.2
    tables = figures[0].tables
    cases = {"model": 800, "zipf, 1.0 nats": 3000, "zipf, 4.0 nats": 3000}
    assert [row["logits"] for row in tables["logits"]] == list(cases)
    assert all(row["kl 0.1"] == pytest.approx(0.1, rel=0.01) for row in tables["logits"])
    assert all(row["kl 2.0"] == pytest.approx(2.0, rel=0.01) for row in tables["logits"])
    of = {(row["logits"], row["student_kl"], row["label"]): row for row in tables["labels"]}
    for (case, _, label), row in of.items():
        if label == "dense_fp32":
            assert row["bytes"] == 4 * cases[case]
        if label.startswith("dense") or label == "hidden_head":
            assert row["degrees"] < 6
            assert row["norm"] == pytest.approx(1, abs=0.01)
        assert row["encode_ns"] > 0
        assert row["decode_ns"] > 0
    assert {case for case, _, label in of if label == "hidden_head"} == {"model"}
    # What top-k leaves out is missing along the gradient; more draws err less.
    for case in ("zipf, 4.0 nats", "model"):
        assert of[case, 2.0, "top_k 4"]["bias_in_se"] < -3
        assert of[case, 2.0, "sampled 64"]["error"] < of[case, 2.0, "sampled 16"]["error"]
    assert len(tables["rivals"]) == len(cases) * len(TINY["codecs"]["draws"])
    assert {row["student_kl"] for row in tables["five_degrees"]} == {0.1, 2.0}


def test_a_model_that_is_there_is_not_trained_again(codecs: tuple[Path, list[Figure]]) -> None:
    folder, _ = codecs
    missing = {"output": folder / "model", "recipe": "none.yaml", "set": []}
    assert ensure_package(missing) == folder / "model" / "models" / "distilled"
    with pytest.raises(RuntimeError, match=r"none\.yaml"):
        ensure_package(missing | {"output": folder / "other"})


def test_the_workloads_name_every_benchmark() -> None:
    workload = yaml.safe_load((REPO / "benchmarks" / "workloads.yaml").read_text())
    assert {*RATIOS, "codecs"} <= set(workload)
    assert set(workload["codecs"]) == {*TINY["codecs"], "output", "corpus", "set"}
    assert {*workload["ddp"]["models"], workload["startup"]["model"], workload["end_to_end"]["student"]} <= set(
        workload["models"]
    )


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(REPO), str(REPO / "python")])
    command = [sys.executable, "-m", "benchmarks", *arguments]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)


def test_the_command_lists_and_refuses() -> None:
    listed = bench()
    assert listed.returncode == 0, listed.stderr
    assert all(name in listed.stdout for name in (*RATIOS, "codecs"))
    for wrong in (["nothing"], ["ddp", "--pairs", "2"]):
        refused = bench(*wrong)
        assert refused.returncode == 2
        assert "ddp" in refused.stderr or "--pairs" in refused.stderr
