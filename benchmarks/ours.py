"""Our side of the benchmarks: the real programs, started as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("POLYSTILL_BIN", REPO / "build" / "release" / "bin"))


def write_run_file(
    folder: Path, workload: dict[str, Any], corpus: Path, model: dict[str, Any], student: dict[str, Any]
) -> Path:
    spec = {
        "version": 1,
        "name": "benchmark",
        "seed": 7,
        "corpus": {"path": str(corpus), "labels": [f"label-{label}" for label in range(workload["labels"])]},
        "tokenizer": {
            "kind": "ids",
            "vocab_size": workload["vocab_size"],
            "max_length": workload["lengths"]["max"],
        },
        "teachers": student.pop("teachers", []),
        "student": {
            "model": model,
            "optimizer": workload["optimizer"],
            "batch_size": workload["batch_size"],
            "epochs": 1,
            "checkpoint_every": 0,
            **student,
        },
        "evaluate": {"bootstrap": 0},
        "output": str(folder / "run"),
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def run(spec: Path) -> None:
    command = [str(BIN / "polystill"), "run", str(spec), "--overwrite"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def seconds_of(spec: Path, stage: str) -> float:
    """Runs; how long a stage took, from the workers' assignment to the package on the disk."""
    run(spec)
    report = json.loads((spec.parent / "run" / "report.json").read_text())
    return float(report["seconds"][stage])


def seconds_to_first_step(spec: Path) -> float:
    """From the start of the command until the run's status counts a step; it is written at most 5 times a second."""
    command = [str(BIN / "polystill"), "run", str(spec), "--overwrite"]
    status = spec.parent / "run" / "status.json"
    status.unlink(missing_ok=True)
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None:
            if _has_stepped(status):
                return time.monotonic() - start
            time.sleep(0.01)
    finally:
        process.terminate()
        errors = process.communicate()[1]
    raise RuntimeError(f"{' '.join(command)} ended before a step:\n{errors}")


def _has_stepped(status: Path) -> bool:
    try:
        stages = json.loads(status.read_text())["stages"]
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return any(stage["name"] == "distilled" and int(stage["done"]) > 0 for stage in stages)
