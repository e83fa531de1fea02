"""Reference of a training step on features: the gradients of a transformer and of its projections, in float64.

    python -m tests.references.feature_step student_worker/testdata/feature_step.json

writes the file that student_worker/training_step_test.cc reads. The student is that of tests.references.transformer;
what its teacher says is made up.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.references.feature_losses import cosine, mse
from tests.references.losses import cross_entropy, soft_label
from tests.references.transformer import CLASSES, LENGTHS, WIDTH, embedding, hidden_states, parameters

TOKENS = sum(LENGTHS)
GOLD = [0, 2, 1, 1, 0, 2]
# Of the teacher: output -> rows, numbers of a row.
OUTPUTS = {
    "logits": (len(LENGTHS), CLASSES),
    "embedding": (len(LENGTHS), 5),
    "hidden.1": (TOKENS, 7),
    "hidden.3": (TOKENS, 4),
}
WEIGHTS = {"soft_label": 0.5, "embedding": 2.0, "hidden": 1.5, "task": 0.25}
TEMPERATURE = 2.0
# Student's and teacher's layer, as loss number 2 has them.
LAYERS = [(0, 3), (2, 1)]


def wave(rows: int, width: int, pitch: float) -> Tensor:
    return torch.sin(pitch * torch.arange(rows * width, dtype=torch.float64)).reshape(rows, width)


def teacher() -> dict[str, Tensor]:
    """float32 numbers, as they come over the wire."""
    return {
        name: (2 * wave(rows, width, 0.7 + 0.1 * place)).float().double()
        for place, (name, (rows, width)) in enumerate(OUTPUTS.items())
    }


def projections() -> dict[str, Tensor]:
    outputs = {"projection.1.0.weight": "embedding"}
    outputs |= {f"projection.2.{i}.weight": f"hidden.{layer}" for i, (_, layer) in enumerate(LAYERS)}
    return {
        name: (0.5 * wave(OUTPUTS[output][1], WIDTH, 1.1 + 0.2 * place)).requires_grad_()
        for place, (name, output) in enumerate(outputs.items())
    }


def tokens_of(state: Tensor) -> Tensor:
    return torch.cat([state[row, :length] for row, length in enumerate(LENGTHS)])


def reference() -> dict[str, Any]:
    made, weights, said = parameters("classification"), projections(), teacher()
    states = hidden_states(made)
    pooled = embedding(states)
    logits = nn.functional.linear(pooled, made["head.weight"], made["head.bias"])
    hidden = sum(
        mse(tokens_of(states[own]) @ weights[f"projection.2.{i}.weight"].T, said[f"hidden.{theirs}"])
        for i, (own, theirs) in enumerate(LAYERS)
    )
    # Each a mean over its own rows.
    records = len(LENGTHS)
    losses = {
        "soft_label": soft_label(logits, said["logits"], TEMPERATURE) / records,
        "embedding": cosine(pooled @ weights["projection.1.0.weight"].T, said["embedding"]) / records,
        "hidden": hidden / TOKENS,
        "task": cross_entropy(logits, torch.tensor(GOLD)) / records,
    }
    total = sum(WEIGHTS[kind] * loss for kind, loss in losses.items())
    assert isinstance(total, Tensor)
    total.backward()
    gradients = {
        name: value.grad.flatten().tolist() for name, value in (made | weights).items() if value.grad is not None
    }
    assert len(gradients) == len(made) + len(weights)
    return {
        "loss": total.item(),
        "gold": GOLD,
        "temperature": TEMPERATURE,
        "weights": WEIGHTS,
        "layers": LAYERS,
        "teacher": {
            name: {"width": value.shape[1], "numbers": value.flatten().tolist()} for name, value in said.items()
        },
        "projections": {
            name: {"shape": list(value.shape), "numbers": value.flatten().tolist()} for name, value in weights.items()
        },
        "gradients": gradients,
    }


def main() -> None:
    path = Path(sys.argv[1])
    path.parent.mkdir(exist_ok=True)
    as_lists = json.loads(json.dumps(reference()))
    assert math.isfinite(as_lists["loss"])
    path.write_text(json.dumps(as_lists) + "\n")


if __name__ == "__main__":
    main()
