"""Hidden tokens of test records, the same for every model of one tokeniser, and what models say of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from polystill.student import Student, pad
from torch import Tensor
from torch.nn import functional as F

SHARE = 0.15  # of a record's tokens
RECORDS_OF_A_FORWARD = 32


@dataclass(frozen=True)
class HiddenTokens:
    """Rows of token ids with <mask> at `places` of each, and the tokens that stood there."""

    rows: list[list[int]]
    places: list[list[int]]
    gold: Tensor  # [tokens] int64

    def __len__(self) -> int:
        return len(self.gold)


def read_texts(corpus: Path, split: str = "test") -> list[str]:
    """Of all languages, by id."""
    files = sorted(corpus.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{corpus}: has no *.parquet; make it by `python -m recipes.package_topics.prepare`")
    table = pq.read_table(files, columns=["id", "split", "text"], filters=[("split", "=", split)])
    texts: list[str] = table.sort_by("id").column("text").to_pylist()
    return texts


def hide_tokens(model: Student, texts: list[str], count: int, seed: int) -> HiddenTokens:
    """The first `count` hidden tokens of the texts in a random order. Which, follows from the seed alone."""
    generator = np.random.default_rng(seed)
    mask_id, tokenizer = model.signature.mask_id, model.tokenizer
    assert mask_id is not None and tokenizer is not None
    rows: list[list[int]] = []
    places: list[list[int]] = []
    gold: list[int] = []
    for number in generator.permutation(len(texts)):
        ids = tokenizer.encode(texts[number])
        wanted = min(round(SHARE * len(ids)), count - len(gold))
        if wanted == 0:
            continue
        hidden = sorted(generator.choice(len(ids), wanted, replace=False).tolist())
        gold += [ids[place] for place in hidden]
        rows.append([mask_id if place in hidden else token for place, token in enumerate(ids)])
        places.append(hidden)
        if len(gold) == count:
            return HiddenTokens(rows, places, torch.tensor(gold))
    raise ValueError(f"{len(texts)} texts have {len(gold)} tokens to hide, fewer than {count}")


def head_inputs(model: Student, tokens: HiddenTokens) -> Iterator[Tensor]:
    """What the output layer reads at the hidden tokens of some records after the others, [tokens, width]."""
    transformer = model.model
    for first in range(0, len(tokens.rows), RECORDS_OF_A_FORWARD):
        last = first + RECORDS_OF_A_FORWARD
        batch = pad(tokens.rows[first:last])
        with torch.inference_mode():
            outputs = model.outputs(batch.ids, batch.mask)
            states = outputs[max((name for name in outputs if name.startswith("hidden.")), key=_layer)]
            judged = [states[row, places] for row, places in enumerate(tokens.places[first:last])]
            inputs = transformer.transform_norm(F.gelu(transformer.transform(torch.cat(judged))))
        yield inputs  # outside: a generator that waits would leave its caller in inference mode


def _layer(name: str) -> int:
    return int(name.removeprefix("hidden."))


def head_of(model: Student) -> tuple[Tensor, Tensor]:
    """Weight [ids, width] and bias [ids] of the output layer."""
    return model.model.embedding.weight.detach(), model.model.head.bias.detach()


def logits_of(model: Student, tokens: HiddenTokens) -> Iterator[Tensor]:
    """[tokens, ids], as head_inputs."""
    weight, bias = head_of(model)
    for inputs in head_inputs(model, tokens):
        with torch.inference_mode():
            logits = F.linear(inputs, weight, bias)
        yield logits
