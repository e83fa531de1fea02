"""A teacher server against its model called in one process: saturated, record by record, texts of mixed lengths."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.corpora import read_training, write_corpus, write_package
from benchmarks.ours import BIN, REPO, address_in, on_core, output_of
from benchmarks.pairing import Ratio, measure


def load(*arguments: str) -> float:
    """What the program teacher-load prints."""
    return float(output_of([str(BIN / "teacher-load"), *arguments]))


@contextmanager
def serving(package: Path, threads: int, *words: str, on: int | None = None) -> Iterator[str]:
    """The address of a server of the package, which may be bound to a core."""
    address = package.parent / "address"
    address.unlink(missing_ok=True)
    command = [str(BIN / "polystill-teacher"), "--package", str(package), "--address-file", str(address)]
    command = [*([] if on is None else on_core(on)), *command, "--threads", str(threads), *words]
    process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, text=True)
    try:
        yield address_in(address, process)
    finally:
        process.terminate()
        process.communicate()


def write_rows(path: Path, rows: list[list[int]]) -> str:
    """As teacher-load reads them: a record a line."""
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    return str(path)


def padded_in_arrival_order(lengths: list[int], most_tokens: int) -> int:
    """Tokens of all batches, each filled up to its longest; a batch is what comes one after the other and fits."""
    tokens = rows = longest = 0
    for length in lengths:
        if max(longest, length) * (rows + 1) > most_tokens:
            tokens += rows * longest
            rows = longest = 0
        rows, longest = rows + 1, max(longest, length)
    return tokens + rows * longest


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
    """What the server gains on texts of mixed lengths over batches in arrival order, padded to their longest.

    By what can be gained by arithmetic, the padded tokens by the true ones: the seconds of the padded side are divided
    by that. (Attention, whose cost is quadratic, gains more, which is why the quotient may exceed 1.)
    """
    mixed = workload["teacher_server"]["mixed"]
    workload = workload | {"lengths": mixed["lengths"]}
    ids, _ = read_training(write_corpus(folder, workload, mixed["records"]))
    lengths = [len(row) for row in ids]
    ceiling = padded_in_arrival_order(lengths, mixed["padded_tokens"]) / sum(lengths)
    print(f"bucketing: padding in arrival order makes {ceiling:.3f} times the tokens: the ceiling of the gain")
    rows = write_rows(folder / "rows.txt", ids)
    package = write_package(folder / "teacher", workload, workload["teacher_server"]["model"])
    padded = ["--package", str(package), "--threads", str(workload["cores"])]
    padded += ["--padded-tokens", str(mixed["padded_tokens"])]
    with serving(package, workload["cores"]) as address:
        sides = {
            "padded, by ceiling": lambda: load(*padded, "--rows", rows) / ceiling,
            "served": lambda: load("--address", address, "--batch", str(workload["batch_size"]), "--rows", rows),
        }
        return measure(Ratio("bucketing_vs_ceiling", over="padded, by ceiling", under="served"), sides, pairs)
