"""Steps/s of undisturbed elastic training against plain c10d data parallel: same model, batches, step and Reducer."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.corpora import write_corpus
from benchmarks.ours import BIN, REPO, seconds_of_steps, write_run_file
from benchmarks.pairing import Ratio, measure

WORKERS = 2


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def plain(spec: Path) -> float:
    """Seconds of rank 0's steps, as those of our first worker."""
    command = [str(BIN / "plain-c10d"), "--spec", str(spec), "--world-size", str(WORKERS)]
    command += ["--store-port", str(free_port())]
    ranks = [
        subprocess.Popen(
            [*command, "--rank", str(rank)], cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(WORKERS)
    ]
    told = [rank.communicate() for rank in ranks]
    if any(rank.returncode != 0 for rank in ranks):
        statuses = [rank.returncode for rank in ranks]
        raise RuntimeError(f"plain-c10d ended with {statuses}:\n" + "".join(errors for _, errors in told))
    return float(told[0][0])


def run(workload: dict[str, Any], folder: Path, pairs: int) -> list[Ratio]:
    """As `ddp`, with two workers of one thread each on gold labels; a checkpoint at the end alone."""
    ratios = []
    for name, settings in workload["elastic"]["models"].items():
        here = folder / name
        corpus = write_corpus(here, workload, settings["records"])
        student = {"losses": [{"kind": "task"}], "workers": WORKERS, "min_workers": 1, "epochs": settings["epochs"]}
        spec = write_run_file(here, workload, corpus, workload["models"][name], student)
        ratio = Ratio(f"vs_plain_c10d.{name}", over="plain", under="elastic")
        sides = {
            "plain": lambda spec=spec: plain(spec),
            "elastic": lambda spec=spec: seconds_of_steps(spec, "distilled", with_making_ready=True),
        }
        ratios.append(measure(ratio, sides, pairs))
    return ratios
