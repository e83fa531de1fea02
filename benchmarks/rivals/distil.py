"""Distillation in one process: teacher and student take turns on two threads.

python -m benchmarks.rivals.distil SETTINGS_JSON: some epochs; prints their seconds. With `caches` it keeps the
teacher's logits in memory, a tensor for all records, and asks it in the first epoch alone.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.corpora import make_model, read_training
from benchmarks.rivals.loop import batches, make_optimizer, on_rows, step

THREADS = 2


def train(settings: dict[str, Any]) -> float:
    workload = settings["workload"]
    torch.set_num_threads(THREADS)
    rows, _ = read_training(Path(settings["corpus"]))
    teacher = on_rows(make_model(workload, settings["teacher"])).eval()
    student = on_rows(make_model(workload, settings["student"])).train()
    optimizer = make_optimizer(student, workload["optimizer"])
    temperature = settings["temperature"]
    cached = torch.full((len(rows), workload["labels"]), torch.nan) if settings["caches"] else None

    def logits_of(places: list[int]) -> torch.Tensor:
        if cached is not None and not cached[places].isnan().any():
            return cached[places]
        with torch.inference_mode():
            logits: torch.Tensor = teacher([rows[place] for place in places])
        if cached is not None:
            cached[places] = logits
        return logits

    start = time.perf_counter()
    for epoch in range(settings["epochs"]):
        for places in batches(rows, workload["batch_size"], seed=7 + epoch):
            for first in range(0, len(places), settings["micro_batch"]):
                some = places[first : first + settings["micro_batch"]]
                soft = F.log_softmax(logits_of(some) / temperature, 1)
                given = F.log_softmax(student([rows[place] for place in some]) / temperature, 1)
                loss = F.kl_div(given, soft, reduction="sum", log_target=True) * temperature**2 / len(places)
                loss.backward()
            step(student, optimizer, workload["optimizer"])
    return time.perf_counter() - start


if __name__ == "__main__":
    print(train(json.loads(sys.argv[1])))
