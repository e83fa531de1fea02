"""Apache Arrow Flight: the same labels as record batches, by pyarrow's own server and client.

python -m benchmarks.rivals.flight SETTINGS_JSON: with `serve` (a file for the address) a server, until SIGTERM; with
`address` a reader, which prints the seconds that DoGet took for `messages` batches of 1 MiB.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import flight

ROWS, CLASSES = 64, 4096
WARM_UP = 32
SCHEMA = pa.schema([("logits", pa.list_(pa.float32(), CLASSES))])


class Server(flight.FlightServerBase):
    """Gives one batch of labels as often as the ticket says."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        numbers = np.random.default_rng(7).standard_normal(ROWS * CLASSES).astype(np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(numbers), CLASSES)
        self.batch = pa.record_batch([column], schema=SCHEMA)

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.RecordBatchStream:
        return flight.RecordBatchStream(pa.Table.from_batches([self.batch] * int(ticket.ticket)))


def read(address: str, messages: int) -> float:
    client = flight.FlightClient(f"grpc://{address}")

    def get(count: int) -> None:
        rows = sum(chunk.data.num_rows for chunk in client.do_get(flight.Ticket(str(count).encode())))
        if rows != count * ROWS:
            raise RuntimeError(f"{rows} rows came, {count * ROWS} were asked for")

    get(WARM_UP)
    start = time.perf_counter()
    get(messages)
    return time.perf_counter() - start


def main(settings: dict[str, Any]) -> None:
    if "address" in settings:
        print(read(settings["address"], settings["messages"]))
        return
    server = Server()
    path = Path(settings["serve"])
    part = path.with_suffix(".part")
    part.write_text(f"127.0.0.1:{server.port}\n")
    part.rename(path)
    server.serve()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
