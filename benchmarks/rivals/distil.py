"""Distillation in one process: teacher and student take turns on two threads.

python -m benchmarks.rivals.distil SETTINGS_JSON: one epoch; prints its seconds.
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


def epoch(settings: dict[str, Any]) -> float:
    workload = settings["workload"]
    torch.set_num_threads(THREADS)
    rows, _ = read_training(Path(settings["corpus"]))
    teacher = on_rows(make_model(workload, settings["teacher"])).eval()
    student = on_rows(make_model(workload, settings["student"])).train()
    optimizer = make_optimizer(student, workload["optimizer"])
    temperature = settings["temperature"]
    start = time.perf_counter()
    for places in batches(rows, workload["batch_size"], seed=7):
        for first in range(0, len(places), settings["micro_batch"]):
            some = [rows[place] for place in places[first : first + settings["micro_batch"]]]
            with torch.inference_mode():
                soft = F.log_softmax(teacher(some) / temperature, 1)
            given = F.log_softmax(student(some) / temperature, 1)
            loss = F.kl_div(given, soft, reduction="sum", log_target=True) * temperature**2 / len(places)
            loss.backward()
        step(student, optimizer, workload["optimizer"])
    return time.perf_counter() - start


if __name__ == "__main__":
    print(epoch(json.loads(sys.argv[1])))
