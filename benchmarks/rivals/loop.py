"""The training loop that a PyTorch user writes, eager, without anything that slows it.

Texts are token ids in memory; batches of similar lengths are drawn together (a window of 16 batches is sorted by
length), each is padded to its longest text alone; AdamW and clipping are the fused ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch
from polystill.native_models import SubwordBag
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW = 16


class FastBag(nn.Module):
    """SubwordBag on nn.EmbeddingBag, which never makes the embeddings of single tokens."""

    def __init__(self, bag: SubwordBag) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag.from_pretrained(
            bag.embedding.weight.detach(), freeze=False, mode="mean", include_last_offset=True
        )
        self.norm, self.hidden, self.head = bag.norm, bag.hidden, bag.head

    def logits(self, rows: list[list[int]]) -> Tensor:
        offsets = [0]
        for row in rows:
            offsets.append(offsets[-1] + len(row))
        ids = torch.tensor([token for row in rows for token in row])
        x = self.norm(self.embedding(ids, torch.tensor(offsets)))
        for layer in self.hidden:
            x = F.gelu(layer(x))
        given: Tensor = self.head(x)
        return given

    forward = logits


class Padded(nn.Module):
    """A transformer on rows that are padded to the longest."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: list[list[int]]) -> Tensor:
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.arange(longest) < torch.tensor([len(row) for row in rows]).unsqueeze(1)
        given: Tensor = self.model(ids, mask)["logits"]
        return given


def on_rows(model: nn.Module) -> nn.Module:
    return FastBag(model) if isinstance(model, SubwordBag) else Padded(model)


def batches(rows: list[list[int]], size: int, seed: int) -> Iterator[list[int]]:
    """Places of the rows of each batch: shuffled, then sorted by length within windows, batches shuffled again."""
    generator = random.Random(seed)
    order = list(range(len(rows)))
    generator.shuffle(order)
    cut = []
    for first in range(0, len(order), size * WINDOW):
        window = sorted(order[first : first + size * WINDOW], key=lambda place: len(rows[place]))
        cut += [window[i : i + size] for i in range(0, len(window), size)]
    generator.shuffle(cut)
    yield from (batch for batch in cut if len(batch) == size)


def make_optimizer(model: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=float(settings["lr"]), weight_decay=0.01, fused=True)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"], foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
