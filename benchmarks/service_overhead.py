"""A student whose labels come from a teacher server's cache against the same one with labels that lie in its memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.corpora import write_corpus, write_package
from benchmarks.ours import BIN, on_core, output_of, seconds_of_steps, write_run_file
from benchmarks.pairing import Ratio, measure
from benchmarks.teacher_server import serving


def run(workload: dict[str, Any], folder: Path, pairs: int) -> list[Ratio]:
    """The student and its coordinator on one core, the server on the other.

    Without a server the labels come from a label store, which the student holds in memory after its first pass.
    Counted from the wait for the first batch on; what the server computes is on its own core.
    """
    settings = workload["service_overhead"]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise RuntimeError("this benchmark needs two cores: one for the student, one for the server")
    first, second = cores[:2]
    package = write_package(folder / "teacher", workload, settings["teacher"])
    ratios = []
    for name, of_student in settings["students"].items():
        here = folder / name
        corpus = write_corpus(here, workload, of_student["records"])
        store = here / "store"
        words = ["--teacher", str(package), "--corpus", str(corpus), "--where", "split=train", "--codec", "dense_fp32"]
        output_of([str(BIN / "polystill"), "label", *words, "--out", str(store)])
        with serving(package, 1, "--cache", str(here / "cache"), on=second) as address:
            served = {"name": "teacher", "address": address}
            stored = {"name": "teacher", "store": str(store)}
            specs = [
                write_run_file(
                    here / kind,
                    workload,
                    corpus,
                    workload["models"][name],
                    {
                        "teachers": [teacher],
                        "losses": [{"kind": "soft_label", "temperature": 2.0, "codec": "dense_fp32"}],
                        "epochs": settings["epochs"],
                    },
                )
                for kind, teacher in (("served", served), ("preloaded", stored))
            ]
            sides = {
                kind: lambda spec=spec: seconds_of_steps(
                    spec, "distilled", with_making_ready=False, prefix=on_core(first)
                )
                for kind, spec in zip(("served", "preloaded"), specs, strict=True)
            }
            ratios.append(measure(Ratio(f"vs_preloaded.{name}", over="preloaded", under="served"), sides, pairs))
    return ratios
