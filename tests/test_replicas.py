"""Replicas of a teacher that die, stall or lie under a student: no record is lost, doubled or labelled wrongly."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from liar import Liar
from processes import SAMPLE, Cluster
from safetensors.numpy import load_file
from test_workers_agree import records_of, run, write_spec

BATCH, STEPS = 16, 600
REQUEST_TIMEOUT_SECONDS = 30


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher package, trained once for all cases."""
    folder = tmp_path_factory.mktemp("teacher")
    spec = write_spec(
        folder / "run.yaml", student__epochs=0.1, student__workers=1, teachers__0__replicas=1, baselines=[]
    )
    return run(folder, spec, workers=1, replicas=1) / "models" / "teacher-english"


def write_distillation(path: Path, teacher: Path, output: Path, replicas: int = 2) -> Path:
    """A student of one worker and one teacher, whose labels are dense_fp32: repeatable to the bit."""
    spec = yaml.safe_load(SAMPLE.read_text())
    spec["teachers"][0].pop("train")
    spec["teachers"][0] |= {"package": str(teacher), "replicas": replicas}
    spec["tokenizer"] |= {"path": str(teacher / "tokenizer.model")}
    spec["baselines"] = []
    spec["student"] |= {"batch_size": BATCH, "workers": 1}
    spec["student"]["losses"][0]["codec"] = "dense_fp32"
    spec["student"]["epochs"] = STEPS * BATCH / len(records_of(spec))
    spec["output"] = str(output)
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


@contextmanager
def distilling(folder: Path, teacher: Path, servers: int = 2) -> Iterator[Cluster]:
    """A run with `servers` of its two teacher servers."""
    folder.mkdir()
    spec = write_distillation(folder / "run.yaml", teacher, folder / "run")
    with Cluster(folder, spec) as cluster:
        cluster.start_coordinator()
        for replica in range(servers):
            cluster.start_teacher("english", replica)
        yield cluster
        assert cluster.wait("coordinator") == 0, cluster.log("coordinator") + cluster.log("student-0")
        assert cluster.wait("student-0") == 0, cluster.log("student-0")


def ids_of(folder: Path) -> list[list[str]]:
    """The records of each step that was applied, in order."""
    steps = []
    for line in (folder / "trace.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] != "slice":
            continue
        assert entry["step"] == len(steps)
        steps.append(entry["ids"])
    return steps


def start_student(cluster: Cluster) -> None:
    cluster.start_student(0, "--trace-records", str(cluster.folder / "trace.jsonl"))


def wait_for_step(cluster: Cluster, step: int) -> None:
    trace = cluster.folder / "trace.jsonl"
    deadline = time.monotonic() + 60
    while not trace.exists() or trace.read_bytes().count(b'"applied"') < step:
        assert time.monotonic() < deadline, cluster.log("student-0")
        time.sleep(0.002)


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "run" / "models" / "distilled" / "model.safetensors")


def assert_same(one: Path, two: Path) -> None:
    """The same records in the same steps, and the same weights bit for bit."""
    assert len(ids_of(one)) == STEPS
    assert ids_of(one) == ids_of(two)
    expected = weights(one)
    for name, tensor in weights(two).items():
        assert tensor.tobytes() == expected[name].tobytes(), name


def counted(cluster: Cluster) -> tuple[int, int, int, int]:
    """Requests, hedges, hedges that were first, and requests sent again, as the student says at the end."""
    found = re.search(
        r"distilled: (\d+) requests for labels, (\d+) of them to a second replica \(hedged\), which won (\d+); "
        r"(\d+) were sent again",
        cluster.log("student-0"),
    )
    assert found is not None, cluster.log("student-0")
    requests, hedges, wins, again = (int(number) for number in found.groups())
    return requests, hedges, wins, again


@pytest.fixture(scope="module")
def undisturbed(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    with distilling(folder, teacher) as cluster:
        start_student(cluster)
    assert counted(cluster)[3] == 0
    return folder


def test_a_replica_killed_in_the_middle_loses_and_doubles_nothing(
    teacher: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with distilling(tmp_path / "killed", teacher) as cluster:
        start_student(cluster)
        wait_for_step(cluster, STEPS // 4)
        cluster.processes["teacher-english-1"].send_signal(signal.SIGKILL)
    assert "is lost" in cluster.log("student-0")
    assert_same(undisturbed, tmp_path / "killed")


def test_a_replica_that_stalls_is_hedged_long_before_the_time_out(
    teacher: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with distilling(tmp_path / "stalled", teacher) as cluster:
        start_student(cluster)
        wait_for_step(cluster, STEPS // 2)
        stalled = cluster.processes["teacher-english-1"]
        stalled.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        wait_for_step(cluster, STEPS)
        assert time.monotonic() - stopped_at < REQUEST_TIMEOUT_SECONDS / 3
        stalled.send_signal(signal.SIGCONT)
    requests, hedges, wins, _ = counted(cluster)
    assert 1 <= wins <= hedges <= requests / 20
    assert_same(undisturbed, tmp_path / "stalled")


def test_a_replica_that_lies_under_the_right_digest_is_refused_by_name(
    teacher: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with distilling(tmp_path / "lied-to", teacher, servers=1) as cluster:
        honest = cluster.processes["teacher-english-0"]
        # The honest one registers first, so that it is the first in the student's list.
        deadline = time.monotonic() + 60
        while "english joined at" not in cluster.log("coordinator"):
            assert time.monotonic() < deadline and honest.poll() is None, cluster.log("teacher-english-0")
            time.sleep(0.02)
        with Liar(cluster, "english", error=0.25) as liar:
            start_student(cluster)
            assert cluster.wait("coordinator") == 0, cluster.log("coordinator")
    log = cluster.log("student-0")
    refusals = [line for line in log.splitlines() if "is not used" in line]
    assert len(refusals) == 1, log
    assert f"teacher replica {liar.address} is not used" in refusals[0]
    difference = re.search(r"by up to ([0-9.]+), more than parity_tolerance 0.001", refusals[0])
    assert difference is not None and float(difference.group(1)) == pytest.approx(0.25, abs=1e-4), refusals[0]
    assert liar.requests == 1  # the canary
    assert_same(undisturbed, tmp_path / "lied-to")
