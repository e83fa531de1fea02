"""The step time of two student workers against DistributedDataParallel with Gloo: the same model, batch and threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.corpora import write_corpus
from benchmarks.ours import seconds_of_steps, write_run_file
from benchmarks.pairing import Ratio, measure
from benchmarks.rivals.start import number_from

WORKERS = 2


def run(workload: dict[str, Any], folder: Path, pairs: int) -> list[Ratio]:
    ratios = []
    for name, settings in workload["ddp"]["models"].items():
        model = workload["models"][name]
        here = folder / name
        corpus = write_corpus(here, workload, settings["records"])
        spec = write_run_file(here, workload, corpus, model, {"losses": [{"kind": "task"}], "workers": WORKERS})
        rival = {
            "workload": workload,
            "corpus": str(corpus),
            "model": model,
            "workers": WORKERS,
            "first_step": False,
        }
        ratio = Ratio(f"step_time_vs_python.{name}", over="polystill", under="python")
        sides = {
            "polystill": lambda spec=spec: seconds_of_steps(spec, "distilled", with_making_ready=True),
            "python": lambda rival=rival: number_from("ddp", rival),
        }
        ratios.append(measure(ratio, sides, pairs))
    return ratios
