"""From the command to the first optimiser step of two workers, against Python's DistributedDataParallel."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.corpora import write_corpus
from benchmarks.ours import seconds_to_first_step, write_run_file
from benchmarks.pairing import Ratio, measure
from benchmarks.rivals.start import number_from

WORKERS = 2


def run(workload: dict[str, Any], folder: Path, pairs: int) -> list[Ratio]:
    settings = workload["startup"]
    model = workload["models"][settings["model"]]
    corpus = write_corpus(folder, workload, settings["records"])
    spec = write_run_file(folder, workload, corpus, model, {"losses": [{"kind": "task"}], "workers": WORKERS})
    rival = {"workload": workload, "corpus": str(corpus), "model": model, "workers": WORKERS, "first_step": True}

    def python() -> float:
        start = time.monotonic()
        return number_from("ddp", rival) - start

    sides = {"polystill": lambda: seconds_to_first_step(spec), "python": python}
    return [measure(Ratio("startup_vs_python", over="polystill", under="python"), sides, pairs)]
