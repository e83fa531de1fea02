"""A coordinator of 10,000 workers and 2,000 teachers on one core, and a plan over 10^11 records."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.corpora import write_corpus, write_package
from benchmarks.ours import BIN, REPO, on_core, output_of, write_run_file
from benchmarks.pairing import Figure, aligned

TEACHER = "teacher"
DIGEST = "0" * 64  # which the simulated teachers agree upon
START_WITHIN = 30  # seconds


@contextmanager
def coordinating(spec: Path, core: int) -> Iterator[tuple[str, int]]:
    """Address and process id of a coordinator of the run, on one core."""
    address, log = spec.parent / "address", spec.parent / "coordinator.log"
    address.unlink(missing_ok=True)
    words = ["--spec", str(spec), "--overwrite", "--address-file", str(address)]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*on_core(core), str(BIN / "polystill-coordinator"), *words], cwd=REPO, stderr=out, text=True
        )
    try:
        deadline = time.monotonic() + START_WITHIN
        while not address.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the coordinator does not listen:\n{log.read_text()}")
            time.sleep(0.01)
        yield address.read_text().strip(), process.pid
    finally:
        process.terminate()
        process.wait()


def loaded(workload: dict[str, Any], folder: Path, workers: int) -> dict[str, Any]:
    """What coordinator-load tells of a coordinator that leads so many workers."""
    settings = workload["coordinator_scale"]["coordinator"]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise RuntimeError("this benchmark needs two cores: one for the coordinator, one for those whom it leads")
    teachers = workers // settings["workers_per_teacher"]
    package = write_package(folder / TEACHER, workload, workload["models"]["bag"])
    spec = write_run_file(
        folder / str(workers),
        workload,
        write_corpus(folder, workload, settings["records"]),
        workload["models"]["bag"],
        {
            "teachers": [{"name": TEACHER, "package": str(package), "replicas": teachers}],
            "losses": [{"kind": "soft_label"}],
            "workers": workers,
            "min_workers": 1,
            "last_call_seconds": 60,
            "epochs": 1000,
        },
    )
    with coordinating(spec, cores[0]) as (address, pid):
        words = ["--address", address, "--pid", str(pid), "--digest", DIGEST, "--teacher", TEACHER]
        words += ["--workers", str(workers), "--teachers", str(teachers), "--seconds", str(settings["seconds"])]
        words += ["--kills", str(settings["kills"]), "--probe-every-ms", str(settings["probe_every_ms"])]
        words += ["--streams-per-connection", str(settings["streams_per_connection"])]
        told: dict[str, Any] = json.loads(output_of([*on_core(cores[1]), str(BIN / "coordinator-load"), *words]))
        return told


def planned(settings: dict[str, Any], records: int, block_records: int) -> dict[str, Any]:
    """What plan-scale tells."""
    words = ["--records", str(records), "--block-records", str(block_records)]
    words += ["--languages", str(settings["languages"]), "--batch", str(settings["batch"])]
    words += ["--tau", str(settings["tau"]), "--epochs", str(settings["epochs"]), "--steps", str(settings["steps"])]
    told: dict[str, Any] = json.loads(output_of([str(BIN / "plan-scale"), *words]))
    return told


def printed(rows: list[dict[str, Any]]) -> None:
    cells = [[f"{max(v) if isinstance(v, list) else v:.4g}" for v in row.values()] for row in rows]
    print(aligned([list(rows[0]), *cells]), end="\n\n", flush=True)


def run(workload: dict[str, Any], folder: Path, pairs: int) -> list[Figure]:
    """Of sizes, not of pairs: what grows, and how. Lists of seconds are printed by their worst."""
    del pairs
    settings = workload["coordinator_scale"]
    sizes = [(int(float(records)), settings["plan"]["block_records"]) for records in settings["plan"]["records"]]
    smaller = [(sizes[-1][0], block_records) for block_records in settings["plan"]["smaller_blocks"]]
    plans = [planned(settings["plan"], records, block_records) for records, block_records in sizes + smaller]
    printed(plans)
    loads = [loaded(workload, folder, workers) for workers in settings["coordinator"]["workers"]]
    printed(loads)
    plan, most = plans[-1], loads[-1]  # of the most blocks, of the most members
    resident = plan["index_resident_bytes"] + plan["plan_resident_bytes"]
    tables = {"plans": plans, "coordinators": loads}
    return [
        Figure("index_gb", resident / 1e9, "index and plan in memory, of the most blocks", tables),
        Figure("slice_worst_ms", plan["slice_worst_ms"], "a whole global batch of any step"),
        Figure("heartbeat_p99_ms", most["answer_p99_ms"], f"{most['workers']} workers, {most['teachers']} teachers"),
        Figure("generation_seconds", max(most["after_death_seconds"]), "after a death, worst"),
    ]
