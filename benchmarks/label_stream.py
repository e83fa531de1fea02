"""Dense labels of 1 MiB an answer, from server to client, against gRPC with byte buffers alone and Arrow Flight."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.ours import BIN, address_in, environment_of_rivals, output_of
from benchmarks.pairing import Ratio, measure

PROGRAM = str(BIN / "label-stream")
FLIGHT = [sys.executable, "-m", "benchmarks.rivals.flight"]


@contextmanager
def server(command: list[str], address: Path) -> Iterator[str]:
    """Its address, while it runs."""
    process = subprocess.Popen(command, env=environment_of_rivals(), stderr=subprocess.PIPE, text=True)
    try:
        yield address_in(address, process)
    finally:
        process.terminate()
        process.communicate()


def run(workload: dict[str, Any], folder: Path, pairs: int) -> list[Ratio]:
    settings = workload["label_stream"]
    files = {name: folder / f"{name}.address" for name in ("labels", "raw", "flight")}

    def served(kind: str) -> list[str]:
        return [PROGRAM, "--serve", kind, "--address-file", str(files[kind])]

    with (
        server(served("labels"), files["labels"]) as labels,
        server(served("raw"), files["raw"]) as raw,
        server([*FLIGHT, json.dumps({"serve": str(files["flight"])})], files["flight"]) as flight,
    ):
        messages = settings["messages"]
        counted = ["--messages", str(messages), "--window", str(settings["window"])]
        of_flight = json.dumps({"address": flight, "messages": messages})
        sides = {
            "polystill": lambda: float(output_of([PROGRAM, "--read", "labels", "--address", labels, *counted])),
            "raw gRPC": lambda: float(output_of([PROGRAM, "--read", "raw", "--address", raw, *counted])),
            "Arrow Flight": lambda: float(output_of([*FLIGHT, of_flight])),
        }
        return [
            measure(Ratio("vs_raw_grpc", over="raw gRPC", under="polystill"), sides, pairs),
            measure(Ratio("vs_arrow_flight", over="Arrow Flight", under="polystill"), sides, pairs),
        ]
