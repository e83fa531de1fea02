"""A teacher server against its model called in one process with the same batches: saturated, and record by record."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.corpora import read_training, write_corpus, write_package
from benchmarks.ours import BIN, REPO
from benchmarks.pairing import Ratio, measure


def load(*arguments: str) -> float:
    """What the program teacher-load prints."""
    done = subprocess.run(
        [str(BIN / "teacher-load"), *arguments], cwd=REPO, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"teacher-load {' '.join(arguments)} failed:\n{done.stderr}")
    return float(done.stdout)


@contextmanager
def serving(package: Path, threads: int) -> Iterator[str]:
    """The address of a server of the package."""
    address = package.parent / "address"
    address.unlink(missing_ok=True)
    command = [str(BIN / "polystill-teacher"), "--package", str(package), "--address-file", str(address)]
    process = subprocess.Popen([*command, "--threads", str(threads)], cwd=REPO, stderr=subprocess.PIPE, text=True)
    try:
        while not address.exists():
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} failed:\n{process.communicate()[1]}")
            time.sleep(0.01)
        yield address.read_text().strip()
    finally:
        process.terminate()
        process.communicate()


def run(workload: dict[str, Any], folder: Path, pairs: int) -> list[Ratio]:
    settings = workload["teacher_server"]
    threads = workload["cores"]
    package = write_package(folder / "teacher", workload, settings["model"])
    ids, _ = read_training(write_corpus(folder, workload, settings["records"]))
    rows = folder / "rows.txt"
    rows.write_text("".join(" ".join(map(str, record)) + "\n" for record in ids))
    few = folder / "few.txt"
    few.write_text("".join(" ".join(map(str, record)) + "\n" for record in ids[: settings["latency_records"]]))
    direct = ["--package", str(package), "--threads", str(threads), "--batch", str(workload["batch_size"])]
    with serving(package, threads) as address:
        served = ["--address", address, "--batch", str(workload["batch_size"])]
        saturated = {
            "direct": lambda: load(*direct, "--rows", str(rows)),
            "served": lambda: load(*served, "--rows", str(rows)),
        }
        alone = {
            "served": lambda: load(*served, "--rows", str(few), "--one-by-one"),
            "direct": lambda: load(*direct, "--rows", str(few), "--one-by-one"),
        }
        return [
            measure(Ratio("vs_direct", over="direct", under="served"), saturated, pairs),
            measure(Ratio("one_record_vs_direct", over="served", under="direct"), alone, pairs),
        ]
