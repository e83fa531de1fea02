"""Students that learn from a teacher's features, with all the processes of a run."""

from __future__ import annotations

import copy
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from processes import BIN, REPO, SAMPLE, Cluster
from safetensors.numpy import load_file

TEACHER = {"kind": "transformer", "width": 24, "layers": 2, "heads": 2}
STUDENT = {"kind": "transformer", "width": 16, "layers": 1, "heads": 2}
HIDDEN = {
    "kind": "hidden",
    "distance": "cosine",
    "layers": [{"student": 0, "teacher": 0}, {"student": 1, "teacher": 2}],
}
SOFT_LABEL = {"kind": "soft_label", "temperature": 2.0}


def write_spec(folder: Path, teacher: dict[str, Any], **student: object) -> Path:
    spec = yaml.safe_load(SAMPLE.read_text())
    spec["tokenizer"] |= {"max_length": 24}
    spec["teachers"][0].pop("train")
    spec["teachers"][0] |= copy.deepcopy(teacher)
    spec["teachers"][0] |= {"reads": "text", "replicas": 1}
    spec["student"] |= {"epochs": 2, "batch_size": 16, "checkpoint_every": 10} | student
    spec["baselines"] = []
    spec["output"] = str(folder / "run")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def start(cluster: Cluster, workers: int, *arguments: str) -> None:
    cluster.start_coordinator(*arguments)
    cluster.start_teacher("english")
    for worker in range(workers):
        cluster.start_student(worker, "--trace-records", str(cluster.folder / f"trace-{worker}.jsonl"))


def run(spec: Path, workers: int, *arguments: str) -> Path:
    folder = spec.parent / f"processes-{time.monotonic_ns()}"
    with Cluster(folder, spec) as cluster:
        start(cluster, workers, *arguments)
        assert cluster.wait("coordinator") == 0, cluster.log("coordinator")
        for name in list(cluster.processes):
            assert cluster.wait(name) == 0, f"{name}:\n{cluster.log(name)}"
    return spec.parent / "run"


def last_checkpoint(output: Path) -> Path:
    return sorted((output / "checkpoints" / "distilled").glob("step-*"))[-1]


def differences(one: Path, other: Path) -> list[str]:
    ours, theirs = load_file(one), load_file(other)
    assert ours.keys() == theirs.keys()
    return [name for name, value in ours.items() if not np.array_equal(value, theirs[name])]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A transformer, trained on the sample once, as the teacher of a bag that follows its embedding."""
    folder = tmp_path_factory.mktemp("teacher")
    train = {"model": TEACHER, "where": {"pool": "A"}, "epochs": 1, "batch_size": 16}
    losses = [SOFT_LABEL, {"kind": "embedding", "distance": "cosine", "weight": 2.0}]
    output = run(write_spec(folder, {"train": train}, losses=losses, workers=1), workers=1)
    projections = load_file(last_checkpoint(output) / "projections.safetensors")
    assert {name: value.shape for name, value in projections.items()} == {"projection.1.0.weight": (24, 32)}
    assert not any("projection" in name for name in load_file(output / "models" / "distilled" / "model.safetensors"))
    return {"package": str(output / "models" / "teacher-english")}


def of_two_workers(folder: Path, teacher: dict[str, Any], **student: object) -> Path:
    defaults: dict[str, object] = {"model": STUDENT, "losses": [HIDDEN, SOFT_LABEL], "workers": 2, "micro_batch": 3}
    spec = write_spec(folder, teacher, **(defaults | student))
    text = yaml.safe_load(spec.read_text())
    text["tokenizer"]["path"] = str(Path(teacher["package"]) / "tokenizer.model")
    spec.write_text(yaml.safe_dump(text, sort_keys=False))
    return spec


def test_hidden_states_do_not_depend_on_the_number_of_workers(tmp_path: Path, teacher: dict[str, Any]) -> None:
    weights = []
    for workers in (1, 2):
        spec = of_two_workers(tmp_path / str(workers), teacher, workers=workers, dtype="float64", epochs=1)
        output = run(spec, workers)
        weights.append(
            load_file(output / "models" / "distilled" / "model.safetensors")
            | load_file(last_checkpoint(output) / "projections.safetensors")
        )
    assert weights[0].keys() == weights[1].keys()
    assert "projection.0.1.weight" in weights[0]
    for name, value in weights[0].items():
        assert np.abs(weights[1][name] - value).max() <= 1e-9 * np.abs(value).max(), name


def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, teacher: dict[str, Any]) -> None:
    unbroken = run(of_two_workers(tmp_path / "unbroken", teacher, epochs=30), 2)
    spec = of_two_workers(tmp_path / "killed", teacher, epochs=30)
    folder = spec.parent / "first"
    with Cluster(folder, spec) as cluster:
        start(cluster, 2)
        deadline = time.monotonic() + 120
        # The first was admitted when the second is written.
        while len(list((spec.parent / "run" / "checkpoints" / "distilled").glob("step-*"))) < 2:
            assert time.monotonic() < deadline, cluster.log("coordinator")
            assert cluster.processes["coordinator"].poll() is None, cluster.log("coordinator")
            time.sleep(0.005)
        for process in cluster.processes.values():
            process.send_signal(signal.SIGKILL)
    assert not (spec.parent / "run" / "models" / "distilled").exists()
    resumed = run(spec, 2, "--resume")
    log = max(spec.parent.glob("processes-*/coordinator.log")).read_text()
    assert "passing over" not in log
    assert "distilled: goes on after step" in log
    assert differences(*(o / "models" / "distilled" / "model.safetensors" for o in (unbroken, resumed))) == []
    assert differences(*(last_checkpoint(o) / "projections.safetensors" for o in (unbroken, resumed))) == []


def test_a_teacher_with_another_tokeniser_is_refused_before_the_first_step(
    tmp_path: Path, teacher: dict[str, Any]
) -> None:
    spec = write_spec(tmp_path, teacher, model=STUDENT, losses=[HIDDEN, SOFT_LABEL], workers=1)
    with Cluster(tmp_path / "processes", spec) as cluster:
        start(cluster, 1)
        assert cluster.wait("coordinator") != 0
        assert re.search(r"its tokeniser .* is not the student's .* give tokenizer.path", cluster.log("coordinator"))
    assert not list((tmp_path / "run").glob("checkpoints/distilled/step-*"))


def test_mistakes_are_found_before_anything_starts(tmp_path: Path, teacher: dict[str, Any]) -> None:
    hidden = copy.deepcopy(HIDDEN)
    hidden["layers"][1]["student"] = 2
    spec = write_spec(tmp_path, teacher, model=STUDENT, losses=[hidden, SOFT_LABEL])
    result = subprocess.run(
        [str(BIN / "polystill"), "check", str(spec)], cwd=REPO, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert "student.losses.0.layers.1.student" in result.stdout + result.stderr
