"""A worker that is slow for real (stopped most of the time) is named, and left out where the run file says so."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import test_elastic as elastic
from processes import BIN, Cluster

# Steps of some 20 ms.
MODEL = {"kind": "transformer", "layers": 2, "width": 64, "heads": 2}
RUNS_SECONDS, STOPPED_SECONDS = 0.01, 0.09


@pytest.fixture(scope="module")
def teacher(sample_run: Path) -> Path:
    return sample_run / "models" / "teacher-english"


class Slowed:
    """A process that is stopped nine tenths of the time, for as long as the block lasts."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._slow)

    def __enter__(self) -> Slowed:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._process.send_signal(signal.SIGCONT)

    def _slow(self) -> None:
        while not self._over.is_set() and self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)
            time.sleep(STOPPED_SECONDS)
            self._process.send_signal(signal.SIGCONT)
            time.sleep(RUNS_SECONDS)


def status(cluster: Cluster, *arguments: str) -> str:
    command = [str(BIN / "polystill"), "status", str(cluster.folder / "run"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def training(cluster: Cluster) -> dict[str, Any]:
    stages: list[dict[str, Any]] = json.loads(status(cluster, "--json"))["stages"]
    return next(stage for stage in stages if stage["name"] == elastic.JOB)


def slow_pids(cluster: Cluster) -> list[int]:
    return [int(worker["pid"]) for worker in training(cluster)["slow_workers"]]


def start(cluster: Cluster) -> subprocess.Popen[bytes]:
    """Three workers train; the second one."""
    cluster.start_coordinator()
    cluster.start_teacher("english")
    for worker in range(3):
        elastic.start_student(cluster, worker)
    elastic.wait_until(cluster, "three train", lambda: elastic.applied(cluster, 2) > 10)
    return cluster.processes["student-1"]


def test_a_slow_worker_is_named_until_it_keeps_up(tmp_path: Path, teacher: Path) -> None:
    spec = elastic.write_spec(tmp_path / "run.yaml", teacher, 100_000, workers=3, min_workers=1, model=MODEL)
    with Cluster(tmp_path, spec) as cluster:
        slowed = start(cluster)
        with Slowed(slowed):
            elastic.wait_until(cluster, "it is named", lambda: slow_pids(cluster) == [slowed.pid], 90)
            assert f"pid {slowed.pid} on" in status(cluster)
            written = json.loads((tmp_path / "run" / "status.json").read_text())
            assert str(slowed.pid) in json.dumps(written["stages"])
        elastic.wait_until(cluster, "it keeps up again", lambda: slow_pids(cluster) == [], 90)
        assert training(cluster)["workers"] == 3, "nobody is left out without being asked for"
        assert training(cluster)["generation"] == "1"
        assert cluster.log("coordinator").count(f"(pid {slowed.pid} on 127.0.0.1) is slow") == 1


def test_a_slow_worker_is_left_out_and_every_record_counts_once(tmp_path: Path, teacher: Path) -> None:
    steps = 600
    settings = {"workers": 3, "min_workers": 2, "evict_slower_than": 3, "model": MODEL}
    spec = elastic.write_spec(tmp_path / "run.yaml", teacher, steps, **settings)
    with Cluster(tmp_path, spec) as cluster:
        slowed = start(cluster)
        with Slowed(slowed):
            elastic.wait_until(cluster, "two go on", lambda: elastic.generation_of(cluster, 0) == 2, 120)
            elastic.wait_until(cluster, "it waits", lambda: training(cluster)["workers"] == 2)
            step = elastic.applied(cluster, 0)
            elastic.wait_until(cluster, "two train", lambda: elastic.applied(cluster, 0) > step + 20)
        elastic.finish(cluster)
        elastic.lineage(cluster, 3, steps)
        # At a boundary: nobody had gone a step further than the others, and nothing was done again.
        entries = [entry for worker in (0, 2) for entry in elastic.read(cluster, worker)]
        begun = {entry["steps"] for entry in entries if entry["event"] == "agreed"}
        last = max(entry["step"] for entry in elastic.read(cluster, 1) if entry["event"] == "applied")
        assert begun == {0, last + 1}
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [(entry["job"], entry["pid"]) for entry in report["evictions"]] == [(elastic.JOB, slowed.pid)]
    assert report["evictions"][0]["ratio"] > 3
