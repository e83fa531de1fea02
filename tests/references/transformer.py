"""Reference of the transformer: logits and gradients of each head, and features, by torch.nn.TransformerEncoderLayer in
float64.

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
TASKS = ("classification", "token_classification", "masked_lm")


def rows() -> list[list[int]]:
    return [[(7 * row + 3 * i * i) % VOCABULARY for i in range(length)] for row, length in enumerate(LENGTHS)]


def positions() -> list[list[int]]:
    """The tokens that are judged; none in the first row."""
    return [list(range(row, length, 3)) for row, length in enumerate([0, *LENGTHS[1:]])]


def shapes(task: str) -> dict[str, list[int]]:
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
    pairs.append(("norm", norm))
    if task == "masked_lm":
        pairs += [("transform", linear(WIDTH, WIDTH)), ("transform_norm", norm)]
    else:
        pairs.append(("head", linear(CLASSES, WIDTH)))
    for name, (weight, bias) in pairs:
        named[f"{name}.weight"] = weight
        named[f"{name}.bias"] = bias
    if task == "masked_lm":
        named["head.bias"] = [VOCABULARY]
    return named


def parameters(task: str) -> dict[str, Tensor]:
    """Numbers that the test in C++ computes by the same formula."""
    made: dict[str, Tensor] = {}
    for place, (name, shape) in enumerate(shapes(task).items()):
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


def hidden_states(made: dict[str, Tensor]) -> list[Tensor]:
    """[rows, longest, width] before the first layer and after each, the last one after the norm."""
    longest = max(LENGTHS)
    ids = torch.zeros(len(LENGTHS), longest, dtype=torch.int64)
    mask = torch.zeros(len(LENGTHS), longest, dtype=torch.bool)
    for row, tokens in enumerate(rows()):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = True
    x = made["embedding.weight"][ids] + made["position.weight"][:longest]
    states = [x]
    for i in range(LAYERS):
        layer, values = encoder_layer(made, f"layer.{i}.")
        x = torch.func.functional_call(layer, values, (x,), {"src_key_padding_mask": ~mask})
        states.append(x)
    states[-1] = nn.functional.layer_norm(x, (WIDTH,), made["norm.weight"], made["norm.bias"], 1e-5)
    return states


def embedding(states: list[Tensor]) -> Tensor:
    return torch.stack([states[-1][row, :length].mean(0) for row, length in enumerate(LENGTHS)])


def logits_of(task: str, made: dict[str, Tensor]) -> Tensor:
    states = hidden_states(made)
    if task == "classification":
        return nn.functional.linear(embedding(states), made["head.weight"], made["head.bias"])
    judged = torch.stack([states[-1][row, place] for row, places in enumerate(positions()) for place in places])
    if task == "token_classification":
        return nn.functional.linear(judged, made["head.weight"], made["head.bias"])
    transformed = nn.functional.gelu(nn.functional.linear(judged, made["transform.weight"], made["transform.bias"]))
    normed = nn.functional.layer_norm(
        transformed, (WIDTH,), made["transform_norm.weight"], made["transform_norm.bias"], 1e-5
    )
    return normed @ made["embedding.weight"].T + made["head.bias"]


def of_task(task: str) -> dict[str, Any]:
    made = parameters(task)
    logits = logits_of(task, made)
    probe = torch.cos(torch.arange(logits.numel(), dtype=torch.float64)).reshape(logits.shape)
    (logits * probe).sum().backward()
    gradients = {name: value.grad.flatten().tolist() for name, value in made.items() if value.grad is not None}
    return {"logits": logits.tolist(), "gradients": gradients}


def features() -> dict[str, Any]:
    with torch.no_grad():
        states = hidden_states(parameters("classification"))
        tokens = {
            f"hidden.{layer}": [state[row, place].tolist() for row, n in enumerate(LENGTHS) for place in range(n)]
            for layer, state in enumerate(states)
        }
        return {"embedding": embedding(states).tolist()} | tokens


def reference() -> dict[str, Any]:
    return {
        "vocabulary": VOCABULARY,
        "width": WIDTH,
        "heads": HEADS,
        "layers": LAYERS,
        "feed_forward": FEED_FORWARD,
        "classes": CLASSES,
        "max_length": MAX_LENGTH,
        "rows": rows(),
        "positions": positions(),
        "tasks": {task: of_task(task) for task in TASKS},
        "features": features(),
    }


def main() -> None:
    Path(sys.argv[1]).write_text(json.dumps(reference()) + "\n")


if __name__ == "__main__":
    main()
