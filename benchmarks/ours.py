"""Our side of the benchmarks: the real programs, started as a user starts them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("POLYSTILL_BIN", REPO / "build" / "release" / "bin"))


def environment_of_rivals() -> dict[str, str]:
    """In which Python finds the rivals and polystill's own package.

    With the settings of the C library's allocator that polystill's programs make themselves (runtime/allocator.h): they
    make rivals that move megabytes up to twice as fast.
    """
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "python")]),
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    }


def output_of(command: list[str]) -> str:
    """What a program prints; RuntimeError with its errors when it fails."""
    done = subprocess.run(command, cwd=REPO, env=environment_of_rivals(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def address_in(file: Path, process: subprocess.Popen[str]) -> str:
    """The address that a server writes into a file when it listens."""
    while not file.exists():
        if process.poll() is not None:
            raise RuntimeError(f"a server failed:\n{process.communicate()[1]}")
        time.sleep(0.01)
    return file.read_text().strip()


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
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def on_core(core: int) -> list[str]:
    """What a command begins with that is to run on one core."""
    return ["taskset", "--cpu-list", str(core)]


def seconds_of_steps(spec: Path, stage: str, *, with_making_ready: bool, prefix: Sequence[str] = ()) -> float:
    """How long the steps of a stage took, from the wait for the first batch to the end of the last step.

    With making ready: from the first request for data (and labels), before the group stands. The run is stopped after
    the steps: what follows takes longer and is not measured.
    """
    command = [*prefix, str(BIN / "polystill"), "run", str(spec), "--overwrite"]
    log = spec.parent / "run" / "logs" / "student-0.log"
    log.unlink(missing_ok=True)
    process = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        while process.poll() is None:
            if (told := _told(log, stage)) is not None:
                return told[with_making_ready]
            time.sleep(0.05)
    finally:
        process.terminate()
        output = process.communicate()[0]
    if (told := _told(log, stage)) is not None:
        return told[with_making_ready]
    raise RuntimeError(f"{' '.join(command)} failed:\n{output}")


def _told(log: Path, stage: str) -> tuple[float, float] | None:
    """Seconds of the steps, and with making ready."""
    text = log.read_text() if log.exists() else ""
    told = re.search(rf"{stage}: \d+ steps in ([0-9.]+) s, ([0-9.]+) s with making ready;", text)
    return (float(told[1]), float(told[2])) if told else None


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
