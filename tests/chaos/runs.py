"""Run files of the chaos suite, its teacher, and runs that nothing disturbs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from processes import SAMPLE, Cluster

from chaos.history import History

JOB = "distilled"
RECORDS = 96  # of pool B in the targets' languages
BATCH = 16


@dataclass(frozen=True)
class Size:
    steps: int
    workers: int
    max_workers: int
    teachers: int


def run_file(package: Path, output: Path, size: Size, seed: int) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "run.yaml").read_text())
    spec["seed"] = seed
    spec["tokenizer"]["path"] = str(package / "tokenizer.model")
    spec["teachers"][0] |= {"package": str(package), "replicas": size.teachers}
    spec["student"] |= {
        "epochs": size.steps * BATCH / RECORDS,
        "batch_size": BATCH,
        "workers": size.workers,
        "min_workers": 1,
        "max_workers": size.max_workers,
    }
    spec["output"] = str(output)
    return spec


def write(spec: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def undisturbed(folder: Path, spec: Path, trace: Path | None = None, seconds: float = 120) -> None:
    """A whole run with one worker and one teacher server, on loopback. RuntimeError when it fails."""
    words = [] if trace is None else ["--trace-records", str(trace)]
    with Cluster(folder, spec) as cluster:
        cluster.start_coordinator()
        cluster.start_teacher("english")
        cluster.start_student(0, *words)
        for name in ("coordinator", "student-0"):
            if (code := cluster.wait(name, seconds)) != 0:
                raise RuntimeError(f"{name} of an undisturbed run ended with {code}:\n{cluster.log(name)}")


def train_teacher(folder: Path) -> Path:
    """A package, by a run on the sample that is as short as can be."""
    spec = yaml.safe_load(SAMPLE.read_text())
    spec["teachers"][0]["replicas"] = 1
    spec["teachers"][0]["train"]["epochs"] = 2
    spec["student"] |= {"epochs": 0.2, "workers": 1}
    spec["baselines"] = []
    spec["output"] = str(folder / "run")
    folder.mkdir(parents=True)
    undisturbed(folder, write(spec, folder / "run.yaml"))
    package = folder / "package"
    shutil.copytree(folder / "run" / "models" / "teacher-english", package)
    return package


def plan_run(folder: Path, package: Path, steps: int, seed: int) -> History:
    """The history of an undisturbed run of the same run file, but for the number of workers."""
    folder.mkdir(parents=True)
    spec = run_file(package, folder / "run", Size(steps, workers=1, max_workers=1, teachers=1), seed)
    history = History(folder / "history.jsonl", killed=False)
    undisturbed(folder, write(spec, folder / "run.yaml"), history.path, seconds=120 + steps / 20)
    return history
