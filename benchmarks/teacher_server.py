"""A teacher server against its model called in one process: saturated, record by record, texts of mixed lengths."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.corpora import read_training, write_corpus, write_package
from benchmarks.ours import BIN, REPO, address_in, output_of
from benchmarks.pairing import Ratio, measure


def load(*arguments: str) -> float:
    """What the program teacher-load prints."""
    return float(output_of([str(BIN / "teacher-load"), *arguments]))


@contextmanager
def serving(package: Path, threads: int) -> Iterator[str]:
    """The address of a server of the package."""
    address = package.parent / "address"
    address.unlink(missing_ok=True)
    command = [str(BIN / "polystill-teacher"), "--package", str(package), "--address-file", str(address)]
    process = subprocess.Popen([*command, "--threads", str(threads)], cwd=REPO, stderr=subprocess.PIPE, text=True)
    try:
        yield address_in(address, process)
    finally:
        process.terminate()
        process.communicate()


def write_rows(path: Path, rows: list[list[int]]) -> str:
    """As teacher-load reads them: a record a line."""
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    return str(path)


def padded_in_arrival_order(rows: list[list[int]], most_tokens: int) -> list[list[int]]:
    """Rows filled up to the longest of their batch; a batch is what comes one after the other and fits the budget."""
    padded: list[list[int]] = []
    batch: list[list[int]] = []
    for row in [*rows, None]:
        longest = max(map(len, [*batch, row or []]))
        if row is None or longest * (len(batch) + 1) > most_tokens:
            width = max(map(len, batch))
            padded += [some + [0] * (width - len(some)) for some in batch]
            batch = []
        if row is not None:
            batch.append(row)
    return padded


def run(workload: dict[str, Any], folder: Path, pairs: int) -> list[Ratio]:
    settings = workload["teacher_server"]
    ids, _ = read_training(write_corpus(folder, workload, settings["records"]))
    rows = write_rows(folder / "rows.txt", ids)
    few = write_rows(folder / "few.txt", ids[: settings["latency_records"]])
    threads, batch = str(workload["cores"]), ["--batch", str(workload["batch_size"])]
    package = write_package(folder / "teacher", workload, settings["model"])
    direct = ["--package", str(package), "--threads", threads, *batch]
    with serving(package, workload["cores"]) as address:
        served = ["--address", address, *batch]
        saturated = {
            "direct": lambda: load(*direct, "--rows", rows),
            "served": lambda: load(*served, "--rows", rows),
        }
        alone = {
            "served": lambda: load(*served, "--rows", few, "--one-by-one"),
            "direct": lambda: load(*direct, "--rows", few, "--one-by-one"),
        }
        ratios = [
            measure(Ratio("vs_direct", over="direct", under="served"), saturated, pairs),
            measure(Ratio("one_record_vs_direct", over="served", under="direct"), alone, pairs),
        ]
    return [*ratios, bucketing(workload, folder / "mixed", pairs)]


def bucketing(workload: dict[str, Any], folder: Path, pairs: int) -> Ratio:
    """What the server gains on texts of mixed lengths over padding them in arrival order, by what can be gained.

    That ceiling is the padded tokens by the true ones. The seconds of the padded side are divided by it, so that the
    ratio is gain by ceiling.
    """
    mixed = workload["teacher_server"]["mixed"]
    workload = workload | {"lengths": mixed["lengths"]}
    ids, _ = read_training(write_corpus(folder, workload, mixed["records"]))
    padded = padded_in_arrival_order(ids, mixed["padded_tokens"])
    ceiling = sum(map(len, padded)) / sum(map(len, ids))
    print(f"bucketing: padding in arrival order makes {ceiling:.3f} times the tokens: the ceiling of the gain")
    true_rows, padded_rows = write_rows(folder / "rows.txt", ids), write_rows(folder / "padded.txt", padded)
    package = write_package(folder / "teacher", workload, workload["teacher_server"]["model"])
    batch = ["--batch", str(workload["batch_size"])]
    threads = str(workload["cores"])
    with serving(package, workload["cores"]) as address:
        sides = {
            "padded, by ceiling": lambda: (
                load("--package", str(package), "--threads", threads, *batch, "--rows", padded_rows) / ceiling
            ),
            "served": lambda: load("--address", address, *batch, "--rows", true_rows),
        }
        return measure(Ratio("bucketing_vs_ceiling", over="padded, by ceiling", under="served"), sides, pairs)
