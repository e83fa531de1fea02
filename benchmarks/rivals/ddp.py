"""Training on gold labels with DistributedDataParallel over Gloo: processes of one thread.

python -m benchmarks.rivals.ddp SETTINGS_JSON: one epoch; prints the seconds of the slowest rank. With
"first_step": true it prints when (time.monotonic) the first step was done instead.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from benchmarks.corpora import make_model, read_training
from benchmarks.rivals.loop import batches, make_optimizer, on_rows, step


def train(rank: int, settings: dict[str, Any], port: int, results: Any) -> None:
    workload, world = settings["workload"], settings["workers"]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    rows, labels = read_training(Path(settings["corpus"]))
    model = DistributedDataParallel(on_rows(make_model(workload, settings["model"])), gradient_as_bucket_view=True)
    optimizer = make_optimizer(model, workload["optimizer"])
    if not settings["first_step"]:
        dist.barrier()
    start = time.perf_counter()
    for places in batches(rows, workload["batch_size"], seed=7):
        mine = places[rank::world]
        loss = F.cross_entropy(model([rows[place] for place in mine]), torch.tensor([labels[place] for place in mine]))
        loss.backward()
        step(model, optimizer, workload["optimizer"])
        if settings["first_step"]:
            results.put(time.monotonic())
            break
    else:
        results.put(time.perf_counter() - start)
    dist.barrier()
    dist.destroy_process_group()


def main(settings: dict[str, Any]) -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = mp.get_context("fork").SimpleQueue()
    mp.start_processes(train, (settings, port, results), nprocs=settings["workers"], start_method="fork")
    return max(results.get() for _ in range(settings["workers"]))


if __name__ == "__main__":
    print(main(json.loads(sys.argv[1])))
