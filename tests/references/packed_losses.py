"""References of the losses on packed labels: values and gradients in float64, from the formulas, not from the C++ code.

    python -m tests.references.packed_losses losses/testdata/packed_references.json

writes the file that losses/packed_losses_test.cc reads. Gradients come from their closed forms, which PyTorch's
autograd of the values confirms where the values can be written without losing digits.
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.references.losses import draw, log_probabilities

Case = dict[str, Any]


def complement(log_q: Tensor, inside: Tensor) -> Tensor:
    """log of the sum of q over the ids that are not `inside`, a row at a time by math.fsum of exact scalings."""
    logs = []
    for row, mask in zip(log_q.tolist(), inside.tolist(), strict=True):
        rest = [x for x, known in zip(row, mask, strict=True) if not known]
        top = max(rest)
        logs.append(top + math.log(math.fsum(math.exp(x - top) for x in rest)))
    return torch.tensor(logs, dtype=torch.float64)


def ghost(student: Tensor, teacher: Tensor, k: int, temperature: float) -> dict[str, Any]:
    """Labels of the k largest logits, and T^2 (sum_K p log(p/q) + (1-P) log((1-P)/(1-Q))) with its gradient."""
    classes = student.shape[1]
    log_p, log_q = log_probabilities(teacher, temperature), log_probabilities(student, temperature)
    ids = torch.sort(torch.argsort(teacher, dim=1, descending=True, stable=True)[:, :k], dim=1).values
    inside = torch.zeros(student.shape, dtype=torch.bool).scatter(1, ids, True)
    known, q = log_p.gather(1, ids), log_q.exp()
    value = (known.exp() * (known - log_q.gather(1, ids))).sum()
    gradient = temperature * torch.where(inside, q - log_p.exp(), torch.zeros_like(q))
    log_rest = torch.full((student.shape[0],), -math.inf, dtype=torch.float64)
    if k < classes and student.shape[0] > 0:
        log_rest, log_rest_q = complement(log_p, inside), complement(log_q, inside)
        value = value + (log_rest.exp() * (log_rest - log_rest_q)).sum()
        # T q_j (P - Q) / (1 - Q) = T (q_j P - R q_j Q / (1 - Q)), with q_j / (1 - Q) as one exponential.
        share = (log_q - log_rest_q.unsqueeze(1)).exp()
        mass_p = known.exp().sum(dim=1, keepdim=True)
        mass_q = log_q.gather(1, ids).exp().sum(dim=1, keepdim=True)
        outside = temperature * (q * mass_p - log_rest.exp().unsqueeze(1) * share * mass_q)
        gradient = torch.where(inside, gradient, outside)
    return {
        "kind": "ghost_top_k",
        "temperature": temperature,
        "ids": ids.tolist(),
        "log_p": known.tolist(),
        "log_rest": [max(x, -1e300) for x in log_rest.tolist()],
        "value": temperature**2 * value.item(),
        "gradient": gradient.tolist(),
    }


def sampled(student: Tensor, counts: Tensor, entropies: Tensor, temperature: float) -> dict[str, Any]:
    """T^2 (-sum (c/N) log q - H) and T (q - c/N)."""
    log_q = log_probabilities(student, temperature)
    draws = 16.0
    value = -(counts / draws * log_q).sum() - entropies.sum()
    return {
        "kind": "sampled",
        "temperature": temperature,
        "counts": counts.tolist(),
        "entropies": entropies.tolist(),
        "draws": draws,
        "value": temperature**2 * value.item(),
        "gradient": (temperature * (log_q.exp() - counts / draws)).tolist(),
    }


def confirm(student: Tensor, expected: dict[str, Any]) -> None:
    """The closed form of a gradient against autograd's."""
    leaf = student.clone().requires_grad_()
    log_q = log_probabilities(leaf, expected["temperature"])
    if expected["kind"] == "sampled":
        value = -(torch.tensor(expected["counts"], dtype=torch.float64) / expected["draws"] * log_q).sum()
    else:
        ids = torch.tensor(expected["ids"])
        log_p = torch.tensor(expected["log_p"], dtype=torch.float64)
        inside = log_q.gather(1, ids)
        value = -(log_p.exp() * inside).sum()
        if ids.shape[1] < leaf.shape[1]:
            rest = torch.tensor(expected["log_rest"], dtype=torch.float64).exp()
            value = value - (rest * torch.log1p(-inside.exp().sum(dim=1))).sum()
    (expected["temperature"] ** 2 * value).backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, torch.tensor(expected["gradient"], dtype=torch.float64).view_as(leaf))


def references() -> list[Case]:
    generator = random.Random(20261203)
    cases = []
    for name, rows, classes, scale, ks in (
        ("usual", 6, 12, 2.0, (1, 4, 12)),
        ("one row", 1, 7, 2.0, (3,)),
        ("two classes", 4, 2, 2.0, (1, 2)),
        ("one class", 3, 1, 2.0, (1,)),
        ("many classes", 2, 300, 1.0, (20,)),
        ("empty batch", 0, 5, 1.0, (2,)),
        ("far logits", 5, 9, 40.0, (2,)),
        ("extreme logits", 4, 6, 3000.0, (1, 3)),
    ):
        student = torch.tensor(draw(generator, rows, classes, scale), dtype=torch.float64).reshape(rows, classes)
        teacher = torch.tensor(draw(generator, rows, classes, scale), dtype=torch.float64).reshape(rows, classes)
        counts = torch.zeros(rows, classes, dtype=torch.float64)
        for row in range(rows):
            for _ in range(16):
                counts[row, generator.randrange(classes)] += 1
        losses = []
        for temperature in (1.0, 2.0, 8.0):
            losses += [ghost(student, teacher, k, temperature) for k in ks]
            log_p = log_probabilities(teacher, temperature)
            losses.append(
                sampled(student, counts, -torch.special.xlogy(log_p.exp(), log_p.exp()).sum(dim=1), temperature)
            )
        if rows and scale <= 2:
            for expected in losses:
                confirm(student, expected)
        cases.append({"name": name, "classes": classes, "student": student.tolist(), "losses": losses})
    return cases


def main() -> None:
    lines = ",\n".join(json.dumps(case) for case in references())
    Path(sys.argv[1]).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
