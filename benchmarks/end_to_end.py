"""The first epoch of a distillation against the same in one process of PyTorch, for teachers of three costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.corpora import write_corpus, write_package
from benchmarks.ours import seconds_of_steps, write_run_file
from benchmarks.pairing import Ratio, measure
from benchmarks.rivals.start import number_from


def run(workload: dict[str, Any], folder: Path, pairs: int) -> list[Ratio]:
    settings = workload["end_to_end"]
    student = workload["models"][settings["student"]]
    corpus = write_corpus(folder, workload, settings["records"])
    ratios = []
    for cost, teacher in settings["teachers"].items():
        here = folder / f"teacher-{cost}"
        package = write_package(here / "teacher", workload, teacher)
        loss = {"kind": "soft_label", "temperature": settings["temperature"], "codec": "dense_fp32"}
        changes = {
            "teachers": [{"name": "teacher", "package": str(package)}],
            "losses": [loss],
            "workers": settings["workers"],
        }
        spec = write_run_file(here, workload, corpus, student, changes)
        rival = {
            "workload": workload,
            "corpus": str(corpus),
            "teacher": teacher,
            "student": student,
            "temperature": settings["temperature"],
            "micro_batch": workload["batch_size"] // settings["workers"],
        }
        ratio = Ratio(f"first_epoch_vs_python.{cost}", over="python", under="polystill")
        sides = {
            "python": lambda rival=rival: number_from("distil", rival),
            "polystill": lambda spec=spec: seconds_of_steps(spec, "distilled", with_making_ready=True),
        }
        ratios.append(measure(ratio, sides, pairs))
    return ratios
