"""The benchmarks' statistics, and each benchmark on a workload of seconds."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import REPO

from benchmarks.pairing import Ratio, measure, table, write

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


@pytest.mark.parametrize("name", sorted(RATIOS))
def test_a_benchmark_measures_both_sides(name: str, tmp_path: Path) -> None:
    ratios = importlib.import_module(f"benchmarks.{name}").run(TINY, tmp_path, 1)
    assert [ratio.name for ratio in ratios] == RATIOS[name]
    for ratio in ratios:
        assert set(ratio.samples) == {ratio.over, ratio.under}
        assert all(0 < value < 60 for values in ratio.samples.values() for value in values)


def test_the_workloads_name_every_benchmark() -> None:
    workload = yaml.safe_load((REPO / "benchmarks" / "workloads.yaml").read_text())
    assert set(RATIOS) <= set(workload)
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
    assert all(name in listed.stdout for name in RATIOS)
    for wrong in (["nothing"], ["ddp", "--pairs", "2"]):
        refused = bench(*wrong)
        assert refused.returncode == 2
        assert "ddp" in refused.stderr or "--pairs" in refused.stderr
