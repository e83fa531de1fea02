"""Workers die, come and come back while a training goes on: no position is lost or taken twice, and nothing is read
back from the disk as long as somebody holds the state."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import SAMPLE, Cluster

BATCH = 16
RECORDS = 96  # of pool B in the targets' languages
JOB = "distilled"

Entry = dict[str, Any]
Steps = dict[int, tuple[list[str], float]]


def write_spec(path: Path, teacher: Path, steps: int, **student: object) -> Path:
    spec = yaml.safe_load(SAMPLE.read_text())
    spec["teachers"][0].pop("train")
    spec["teachers"][0] |= {"package": str(teacher), "replicas": 1}
    spec["tokenizer"] |= {"path": str(teacher / "tokenizer.model")}
    spec["baselines"] = []
    spec["student"] |= {"batch_size": BATCH, "epochs": steps * BATCH / RECORDS, "checkpoint_every": 0} | student
    spec["output"] = str(path.parent / "run")
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def teacher(sample_run: Path) -> Path:
    return sample_run / "models" / "teacher-english"


def trace_of(cluster: Cluster, worker: int) -> Path:
    return cluster.folder / f"trace-{worker}.jsonl"


def start_student(cluster: Cluster, worker: int) -> None:
    cluster.start_student(worker, "--trace-records", str(trace_of(cluster, worker)))


def read(cluster: Cluster, worker: int) -> list[Entry]:
    path = trace_of(cluster, worker)
    entries = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # killed while it wrote
        if entry["job"] == JOB:
            entries.append(entry)
    return entries


def wait_until(cluster: Cluster, what: str, holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        logs = "\n".join(f"{name}:\n{cluster.log(name)[-3000:]}" for name in cluster.processes)
        assert cluster.processes["coordinator"].poll() is None, f"{what}: the run has ended\n{logs}"
        assert time.monotonic() < deadline, f"{what}\n{logs}"
        time.sleep(0.02)


def applied(cluster: Cluster, worker: int) -> int:
    """Steps that a worker has applied, by what it has written."""
    return max((entry["step"] + 1 for entry in read(cluster, worker) if entry["event"] == "applied"), default=0)


def generation_of(cluster: Cluster, worker: int) -> int:
    """The last generation in which a worker has applied a step."""
    return max((entry["generation"] for entry in read(cluster, worker) if entry["event"] == "applied"), default=0)


def finish(cluster: Cluster, gone: tuple[str, ...] = ()) -> None:
    assert cluster.wait("coordinator", 300) == 0, cluster.log("coordinator")
    for name in set(cluster.processes) - set(gone):
        assert cluster.wait(name) == 0, f"{name}:\n{cluster.log(name)}"


def lineage(cluster: Cluster, workers: int, steps: int) -> Steps:
    """Step -> the ids of its batch in rank order and its mean loss, on the lineage of the final state; each generation
    counts from where it began to where the next one that went on from it did."""
    begins: dict[int, Entry] = {}
    ids: dict[tuple[int, int], dict[int, list[str]]] = {}
    losses: dict[tuple[int, int], dict[int, float]] = {}
    for worker in range(workers):
        for entry in read(cluster, worker):
            generation = entry["generation"]
            if entry["event"] == "agreed":
                known = begins.setdefault(generation, entry)
                for key in ("steps", "digest", "from_generation", "from_checkpoint"):
                    assert known[key] == entry[key], (known, entry)
            elif entry["event"] == "slice":
                digest = hashlib.sha256("\n".join(entry["ids"]).encode()).hexdigest()
                assert entry["digest"] == digest
                ids.setdefault((generation, entry["step"]), {})[entry["rank"]] = entry["ids"]
            elif entry["event"] == "applied":
                losses.setdefault((generation, entry["step"]), {})[entry["rank"]] = entry["loss"]
    committed: Steps = {}
    generation, end = max(begins), steps
    while generation > 0:
        begin = begins[generation]["steps"]
        assert begin <= end
        for step in range(begin, end):
            parts = ids[generation, step]
            assert sorted(parts) == list(range(len(parts)))
            assert step not in committed
            assert sum(len(part) for part in parts.values()) == BATCH, (generation, step, sorted(parts))
            by_rank = losses.get((generation, step), {})
            loss = sum(by_rank.get(rank, float("nan")) * len(part) for rank, part in parts.items())
            committed[step] = ([record for rank in sorted(parts) for record in parts[rank]], loss / BATCH)
        generation, end = begins[generation]["from_generation"], begin
    assert sorted(committed) == list(range(steps))
    return committed


def run_fixed(folder: Path, teacher: Path, workers: int, steps: int, **student: object) -> Steps:
    folder.mkdir()
    spec = write_spec(folder / "run.yaml", teacher, steps, workers=workers, **student)
    with Cluster(folder, spec) as cluster:
        cluster.start_coordinator()
        cluster.start_teacher("english")
        for worker in range(workers):
            start_student(cluster, worker)
        finish(cluster)
        return lineage(cluster, workers, steps)


def test_a_killed_worker_is_done_without_and_another_takes_its_place(tmp_path: Path, teacher: Path) -> None:
    steps = 2000
    spec = write_spec(tmp_path / "run.yaml", teacher, steps, workers=3, min_workers=2)
    with Cluster(tmp_path, spec) as cluster:
        cluster.start_coordinator()
        cluster.start_teacher("english")
        for worker in range(3):
            start_student(cluster, worker)
        wait_until(cluster, "three train", lambda: applied(cluster, 1) > 100)
        cluster.processes["student-1"].send_signal(signal.SIGKILL)
        first = generation_of(cluster, 0)
        wait_until(cluster, "two go on", lambda: generation_of(cluster, 0) > first, 10)
        step = applied(cluster, 0)
        wait_until(cluster, "two train", lambda: applied(cluster, 0) > step + 100)
        start_student(cluster, 3)
        wait_until(cluster, "a third has come", lambda: applied(cluster, 3) > 0)
        assert re.search("distilled: ready before it joins.*joined run", cluster.log("student-3"), re.DOTALL)
        finish(cluster, gone=("student-1",))
        committed = lineage(cluster, 4, steps)
        assert not any(entry.get("from_checkpoint") for worker in range(4) for entry in read(cluster, worker))
    expected = run_fixed(tmp_path / "plain", teacher, 1, steps)
    assert {step: ids for step, (ids, _) in committed.items()} == {step: ids for step, (ids, _) in expected.items()}
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["labels"]["count"] == steps * BATCH


def test_a_worker_that_stands_still_is_left_and_comes_back(tmp_path: Path, teacher: Path) -> None:
    steps = 5000
    spec = write_spec(tmp_path / "run.yaml", teacher, steps, workers=3, min_workers=1)
    with Cluster(tmp_path, spec) as cluster:
        cluster.start_coordinator()
        cluster.start_teacher("english")
        for worker in range(3):
            start_student(cluster, worker)
        wait_until(cluster, "three train", lambda: applied(cluster, 2) > 100)
        first = generation_of(cluster, 0)
        cluster.processes["student-2"].send_signal(signal.SIGSTOP)
        # Silence is death after 5 s.
        wait_until(cluster, "two go on", lambda: generation_of(cluster, 0) > first, 12)
        cluster.processes["student-2"].send_signal(signal.SIGCONT)
        wait_until(cluster, "it comes back", lambda: generation_of(cluster, 2) > first)
        finish(cluster)
        lineage(cluster, 3, steps)


def test_losses_do_not_depend_on_who_computes_them(tmp_path: Path, teacher: Path) -> None:
    """World sizes 1, 2, 3, and a run that goes from one worker to three to two."""
    # Wide enough that the steps of one worker take longer than two others take to start.
    steps, settings = 200, {"dtype": "float64", "model": {"kind": "subword_bag", "width": 2048}}
    alone = run_fixed(tmp_path / "1", teacher, 1, steps, **settings)
    others = [run_fixed(tmp_path / str(workers), teacher, workers, steps, **settings) for workers in (2, 3)]
    folder = tmp_path / "resized"
    folder.mkdir()
    spec = write_spec(folder / "run.yaml", teacher, steps, workers=1, min_workers=1, max_workers=3, **settings)
    with Cluster(folder, spec) as cluster:
        cluster.start_coordinator()
        cluster.start_teacher("english")
        start_student(cluster, 0)
        wait_until(cluster, "one trains", lambda: applied(cluster, 0) > 5)
        start_student(cluster, 1)
        start_student(cluster, 2)
        wait_until(cluster, "three train", lambda: applied(cluster, 1) > 0 and applied(cluster, 2) > 0)
        cluster.processes["student-1"].send_signal(signal.SIGKILL)
        finish(cluster, gone=("student-1",))
        others.append(lineage(cluster, 3, steps))
    for other in others:
        for step, (ids, loss) in alone.items():
            assert other[step][0] == ids, step
            # The last loss of a rank that was killed may be unknown.
            assert other[step][1] != other[step][1] or abs(other[step][1] - loss) <= 1e-9 * abs(loss), step


def test_a_training_waits_for_a_teacher_that_is_gone(tmp_path: Path, teacher: Path) -> None:
    steps = 3000
    spec = write_spec(tmp_path / "run.yaml", teacher, steps, workers=2)
    with Cluster(tmp_path, spec) as cluster:
        cluster.start_coordinator()
        cluster.start_teacher("english")
        for worker in range(2):
            start_student(cluster, worker)
        wait_until(cluster, "two train", lambda: applied(cluster, 0) > 100)
        cluster.processes["teacher-english-0"].send_signal(signal.SIGKILL)
        cluster.wait("teacher-english-0")
        time.sleep(2)  # what was asked for before is used up
        stood = applied(cluster, 0)
        time.sleep(1)
        assert applied(cluster, 0) == stood
        cluster.start_teacher("english", 1)  # at another port
        wait_until(cluster, "it goes on", lambda: applied(cluster, 0) > stood)
        finish(cluster, gone=("teacher-english-0",))
        lineage(cluster, 2, steps)
        entries = read(cluster, 0) + read(cluster, 1)
        assert {entry["generation"] for entry in entries} == {generation_of(cluster, 0)}, "no new generation"


def test_a_coordinator_may_die_while_workers_go_on(tmp_path: Path, teacher: Path) -> None:
    steps = 4000
    spec = write_spec(tmp_path / "run.yaml", teacher, steps, workers=2)
    with Cluster(tmp_path, spec) as cluster:
        coordinator = cluster.start_coordinator()
        address = cluster.address
        cluster.start_teacher("english")
        for worker in range(2):
            start_student(cluster, worker)
        wait_until(cluster, "two train", lambda: applied(cluster, 0) > 100)
        coordinator.send_signal(signal.SIGKILL)
        coordinator.wait()
        before = applied(cluster, 0)
        time.sleep(1)
        assert applied(cluster, 0) > before, "no step waits for the coordinator"
        (cluster.folder / "coordinator.address").unlink()
        cluster.start_coordinator("--resume", "--listen", address)
        wait_until(cluster, "it has found them", lambda: "still in generation" in cluster.log("coordinator"), 30)
        finish(cluster)
        lineage(cluster, 2, steps)
        assert len({entry["generation"] for entry in read(cluster, 0) if entry["event"] == "slice"}) == 1
