"""Runs a benchmark: ./polystill bench NAME. Without a name: lists them."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.pairing import FEWEST_PAIRS, machine, table, write

HERE = Path(__file__).resolve().parent
MOST_LOAD = 0.5
NAMES = [
    "codecs",
    "coordinator_scale",
    "ddp",
    "elastic",
    "end_to_end",
    "label_stream",
    "service_overhead",
    "startup",
    "teacher_server",
]
EXAMPLES = """examples:
  ./polystill bench                    lists the benchmarks
  ./polystill bench ddp
  ./polystill bench end_to_end --pairs 15

A ratio is the median over pairs of runs, one of each side, in turn; the interval holds that median with 95%.
codecs pairs nothing: its figures are of labels, and its times of one side.
Let nothing else run meanwhile. Exit status: 0 measured, 1 a side failed, 2 wrong arguments."""


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./polystill bench",
        description="Measures Polystill against named rivals.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=NAMES, help="which benchmark; all are listed when left out")
    parser.add_argument("--pairs", type=int, default=FEWEST_PAIRS, help=f"pairs of runs, at least {FEWEST_PAIRS}")
    parser.add_argument(
        "--out", type=Path, default=HERE.parent / "build" / "release", help="where bench-NAME.json goes"
    )
    options = parser.parse_args(arguments)
    if options.pairs < FEWEST_PAIRS:
        parser.error(f"--pairs: fewer than {FEWEST_PAIRS} give no 95% interval of a median")
    return options


def settings_of(workload: dict[str, Any], name: str) -> dict[str, Any]:
    """What of the workloads the benchmark reads."""
    return {key: value for key, value in workload.items() if key not in NAMES} | {name: workload[name]}


def main() -> int:
    options = parse(sys.argv[1:])
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in NAMES}
    if options.name is None:
        for name, module in modules.items():
            print(f"{name:16} {module.__doc__}")
        return 0
    workload = yaml.safe_load((HERE / "workloads.yaml").read_text())
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: workload["cores"]])  # of both sides
    about = machine()
    if about["load_before"] > MOST_LOAD:
        print(f"polystill bench: the machine is busy (load {about['load_before']:.1f})", file=sys.stderr)
    folder = options.out / "bench" / options.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        results = modules[options.name].run(workload, folder, options.pairs)
    except (RuntimeError, OSError) as error:
        print(f"polystill bench: {error}", file=sys.stderr)
        return 1
    print(table(results))
    print(write(options.name, results, settings_of(workload, options.name), about, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
