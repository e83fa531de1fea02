"""Reference of the transformer: logits and gradients by torch.nn.TransformerEncoderLayer in float64.

python -m tests.references.transformer models/testdata/transformer.json
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY, WIDTH, HEADS, LAYERS, FEED_FORWARD, CLASSES, MAX_LENGTH = 11, 8, 2, 2, 12, 3, 20
# Lengths below, at and above a power of two, and the longest.
LENGTHS = [1, 3, 16, 17, 20, 5]


def rows() -> list[list[int]]:
    return [[(7 * row + 3 * i * i) % VOCABULARY for i in range(length)] for row, length in enumerate(LENGTHS)]


def shapes() -> dict[str, list[int]]:
    """Names and shapes of the parameters, in the model's order."""
    named = {"embedding.weight": [VOCABULARY, WIDTH], "position.weight": [MAX_LENGTH, WIDTH]}
    norm, linear = ([WIDTH], [WIDTH]), lambda outputs, inputs: ([outputs, inputs], [outputs])
    pairs: list[tuple[str, tuple[list[int], list[int]]]] = []
    for layer in (f"layer.{i}." for i in range(LAYERS)):
        pairs += [
            (layer + "attention_norm", norm),
            (layer + "attention.qkv", linear(3 * WIDTH, WIDTH)),
            (layer + "attention.output", linear(WIDTH, WIDTH)),
            (layer + "feed_forward_norm", norm),
            (layer + "feed_forward.inner", linear(FEED_FORWARD, WIDTH)),
            (layer + "feed_forward.outer", linear(WIDTH, FEED_FORWARD)),
        ]
    pairs += [("norm", norm), ("head", linear(CLASSES, WIDTH))]
    for name, (weight, bias) in pairs:
        named[f"{name}.weight"] = weight
        named[f"{name}.bias"] = bias
    return named


def parameters() -> dict[str, Tensor]:
    """Numbers that the test in C++ computes by the same formula."""
    made: dict[str, Tensor] = {}
    for place, (name, shape) in enumerate(shapes().items()):
        flat = torch.arange(math.prod(shape), dtype=torch.float64)
        value = 0.4 * torch.sin(0.9 * flat + 1.7 * place)
        made[name] = (value + float(name.endswith("norm.weight"))).reshape(shape).requires_grad_()
    return made


def encoder_layer(made: dict[str, Tensor], prefix: str) -> tuple[nn.Module, dict[str, Tensor]]:
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, FEED_FORWARD, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    theirs = {
        "self_attn.in_proj_": "attention.qkv.",
        "self_attn.out_proj.": "attention.output.",
        "linear1.": "feed_forward.inner.",
        "linear2.": "feed_forward.outer.",
        "norm1.": "attention_norm.",
        "norm2.": "feed_forward_norm.",
    }
    values = {a + kind: made[prefix + b + kind] for a, b in theirs.items() for kind in ("weight", "bias")}
    assert values.keys() == dict(layer.named_parameters()).keys()
    return layer, values


def forward(made: dict[str, Tensor]) -> Tensor:
    longest = max(LENGTHS)
    ids = torch.zeros(len(LENGTHS), longest, dtype=torch.int64)
    mask = torch.zeros(len(LENGTHS), longest, dtype=torch.bool)
    for row, tokens in enumerate(rows()):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = True
    x = made["embedding.weight"][ids] + made["position.weight"][:longest]
    for i in range(LAYERS):
        layer, values = encoder_layer(made, f"layer.{i}.")
        x = torch.func.functional_call(layer, values, (x,), {"src_key_padding_mask": ~mask})
    x = nn.functional.layer_norm(x, (WIDTH,), made["norm.weight"], made["norm.bias"], 1e-5)
    mean = torch.stack([x[row, :length].mean(0) for row, length in enumerate(LENGTHS)])
    return nn.functional.linear(mean, made["head.weight"], made["head.bias"])


def reference() -> dict[str, Any]:
    made = parameters()
    logits = forward(made)
    probe = torch.cos(torch.arange(logits.numel(), dtype=torch.float64)).reshape(logits.shape)
    (logits * probe).sum().backward()
    gradients = {name: value.grad.flatten().tolist() for name, value in made.items() if value.grad is not None}
    return {
        "vocabulary": VOCABULARY,
        "width": WIDTH,
        "heads": HEADS,
        "layers": LAYERS,
        "feed_forward": FEED_FORWARD,
        "classes": CLASSES,
        "max_length": MAX_LENGTH,
        "rows": rows(),
        "logits": logits.tolist(),
        "gradients": gradients,
    }


def main() -> None:
    Path(sys.argv[1]).write_text(json.dumps(reference()) + "\n")


if __name__ == "__main__":
    main()
