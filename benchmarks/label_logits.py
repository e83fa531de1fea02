"""Logits that labels are made of: a masked language model's of test records, and synthetic ones; and students."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polystill
import torch
from torch import Tensor

from benchmarks.ours import BIN, REPO
from recipes.package_topics.hidden_tokens import head_inputs, head_of, hide_tokens, read_texts

NUMBERS_OF_A_CHUNK = 2 << 20  # whose float64 the allocator keeps for the next chunk
BISECTIONS = 16


@dataclass(frozen=True)
class Chunk:
    """Logits of some positions after the others."""

    first: int
    teacher: Tensor  # [rows, classes] float32
    # What the output layer reads, with its weight and bias; empty when there is none.
    head: dict[str, Tensor]


def rows_of_a_chunk(classes: int) -> int:
    return max(1, NUMBERS_OF_A_CHUNK // classes)


def ensure_package(settings: dict[str, Any]) -> Path:
    """The package of the recipe's model, which is trained when it is not there."""
    output = REPO / settings["output"]
    package = output / "models" / "distilled"
    if (package / "teacher.yaml").exists():
        return package
    print(f"training the masked language model of {settings['recipe']} into {output}, once", file=sys.stderr)
    command = [str(BIN / "polystill"), "run", settings["recipe"], "--set", f"output={output}", "--overwrite"]
    command += [word for change in settings["set"] for word in ("--set", change)]
    before = os.times()
    done = subprocess.run(command, cwd=REPO, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed with status {done.returncode}")
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"trained in {after.elapsed - before.elapsed:.0f} s; {seconds:.0f} s of CPU time", file=sys.stderr)
    return package


def model_chunks(settings: dict[str, Any], positions: int, seed: int) -> Iterator[Chunk]:
    """Of the model at hidden tokens of test records."""
    model = polystill.load_student(ensure_package(settings))
    tokens = hide_tokens(model, read_texts(REPO / settings["corpus"]), positions, seed)
    weight, bias = head_of(model)
    inputs = torch.cat(list(head_inputs(model, tokens)))
    rows = rows_of_a_chunk(len(bias))
    for first in range(0, positions, rows):
        some = inputs[first : first + rows].clone()
        logits = torch.addmm(bias, some, weight.T)
        yield Chunk(first, logits, {"hidden": some, "head.weight": weight, "head.bias": bias})


def zipf_chunks(classes: int, entropy: float, positions: int, seed: int) -> Iterator[Chunk]:
    """p of rank r is r^-a / sum, a such that the entropy (nats) is as asked; the ids of the ranks are random."""
    logs = torch.arange(1, classes + 1, dtype=torch.float64).log()
    exponent = _bisect(lambda a: -_entropy(-a * logs), -entropy, 0.0, 64.0)
    by_rank = (-exponent * logs).float()
    rows = rows_of_a_chunk(classes)
    for first in range(0, positions, rows):
        logits = torch.empty(min(rows, positions - first), classes)
        for row in range(len(logits)):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + first + row)
            logits[row, torch.randperm(classes, generator=generator)] = by_rank
        yield Chunk(first, logits, {})


def _entropy(logits: Tensor) -> float:
    log_p = torch.log_softmax(logits, 0)
    return -(log_p.exp() * log_p).sum().item()


def _bisect(rising: Any, target: float, low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def student_of(teacher: Tensor, divergence: float, seed: int) -> Tensor:
    """Logits of a student whose KL(p || q) at temperature 1 is `divergence` nats in each row: the teacher's plus noise.

    With noise s e the divergence is log sum p exp(s e) - s sum p e: it rises with s, which is found by bisection.
    """
    noise = torch.randn(teacher.shape, generator=torch.Generator().manual_seed(seed))
    log_p = torch.log_softmax(teacher, 1)
    mean = (log_p.exp() * noise).sum(1)

    tilted = torch.empty_like(log_p)

    def of(scale: Tensor) -> Tensor:
        torch.addcmul(log_p, noise, scale[:, None], out=tilted)
        most = tilted.amax(1, keepdim=True)
        return tilted.sub_(most).exp_().sum(1).log() + most[:, 0] - scale * mean

    low, high = torch.zeros(len(teacher)), torch.full((len(teacher),), math.sqrt(2 * divergence))
    while (short := of(high) < divergence).any():
        low, high = torch.where(short, high, low), torch.where(short, 2 * high, high)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        short = of(middle) < divergence
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return torch.addcmul(teacher, noise, ((low + high) / 2)[:, None])
