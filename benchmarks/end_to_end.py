"""Distillation against one process of PyTorch: first epochs with teachers of several costs, and three epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.corpora import write_corpus, write_package
from benchmarks.ours import seconds_of_steps, write_run_file
from benchmarks.pairing import Ratio, measure
from benchmarks.rivals.start import number_from

EPOCHS = 3


def run(workload: dict[str, Any], folder: Path, pairs: int) -> list[Ratio]:
    settings = workload["end_to_end"]
    ratios = []
    for cost, teacher in settings["teachers"].items():
        ours, rival = sides_of(workload, folder / f"teacher-{cost}", teacher, settings["records"], 1)
        ratios.append(compare(f"first_epoch_vs_python.{cost}", ours, rival, pairs))
    for cost, teacher in settings["costly"].items():
        records = settings["records_of_costly"]
        ours, rival = sides_of(workload, folder / f"costly-{cost}", teacher, records, 1)
        ratios.append(compare(f"first_epoch_vs_python.{cost}", ours, rival, pairs))
        ours, rival = sides_of(workload, folder / f"three-{cost}", teacher, records, EPOCHS)
        ratios.append(compare(f"three_epochs_vs_python.{cost}", ours, rival, pairs))
        ratios.append(compare(f"three_epochs_vs_caching_python.{cost}", ours, rival | {"caches": True}, pairs))
    return ratios


def sides_of(
    workload: dict[str, Any], here: Path, teacher: dict[str, Any], records: int, epochs: int
) -> tuple[Path, dict[str, Any]]:
    """Our run file, and the rival's settings."""
    settings = workload["end_to_end"]
    student = workload["models"][settings["student"]]
    package = write_package(here / "teacher", workload, teacher)
    corpus = write_corpus(here, workload, records)
    changes = {
        "teachers": [{"name": "teacher", "package": str(package)}],
        "losses": [{"kind": "soft_label", "temperature": settings["temperature"], "codec": "dense_fp32"}],
        "workers": settings["workers"],
        "epochs": epochs,
    }
    rival = {
        "workload": workload,
        "corpus": str(corpus),
        "teacher": teacher,
        "student": student,
        "temperature": settings["temperature"],
        "micro_batch": workload["batch_size"] // settings["workers"],
        "epochs": epochs,
        "caches": False,
    }
    return write_run_file(here, workload, corpus, student, changes), rival


def compare(name: str, ours: Path, rival: dict[str, Any], pairs: int) -> Ratio:
    sides = {
        "python": lambda: number_from("distil", rival),
        "polystill": lambda: seconds_of_steps(ours, "distilled", with_making_ready=True),
    }
    return measure(Ratio(name, over="python", under="polystill"), sides, pairs)
