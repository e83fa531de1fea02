"""References of the feature losses: values and gradients in float64, from the formulas and not from the C++ code.

    python -m tests.references.feature_losses losses/testdata/feature_references.json

writes the file that losses/feature_losses_test.cc reads. Values are sums over rows; gradients are with respect to the
student's features and the projection.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Case = dict[str, Any]
Rows = list[list[float]]


def mse(projected: Tensor, teacher: Tensor) -> Tensor:
    """Sum over rows of the mean over channels of the squared difference."""
    terms = [((p - t) ** 2).sum() / len(t) for p, t in zip(projected, teacher, strict=True)]
    return sum(terms, start=0.0 * projected.sum())


def cosine(projected: Tensor, teacher: Tensor) -> Tensor:
    """Sum over rows of 1 - cos; a zero vector has cosine 0 with every other."""
    terms = []
    for p, t in zip(projected, teacher, strict=True):
        zero = not bool(p.any()) or not bool(t.any())
        terms.append(1.0 - (0.0 * p.sum() if zero else (p @ t) / (torch.linalg.norm(p) * torch.linalg.norm(t))))
    return sum(terms, start=0.0 * projected.sum())


LOSSES = {"mse": mse, "cosine": cosine}


def draw(generator: random.Random, rows: int, width: int, scale: float = 1.0) -> Rows:
    return [[scale * generator.gauss(0.0, 1.0) for _ in range(width)] for _ in range(rows)]


def inputs() -> Iterator[Case]:
    generator = random.Random(20240921)

    def case(name: str, student: Rows, projection: Rows, teacher: Rows) -> Case:
        return {"name": name, "student": student, "projection": projection, "teacher": teacher}

    def drawn(name: str, rows: int, student_width: int, width: int, scale: float = 1.0) -> Case:
        return case(
            name,
            draw(generator, rows, student_width, scale),
            draw(generator, width, student_width),
            draw(generator, rows, width, scale),
        )

    yield drawn("usual", 7, 6, 9)
    yield drawn("one row", 1, 6, 9)
    yield drawn("one channel", 5, 3, 1)
    yield drawn("narrow student", 4, 1, 8)
    yield drawn("empty batch", 0, 4, 6)
    yield drawn("far", 5, 4, 6, 1e4)
    yield drawn("near zero", 5, 4, 6, 1e-6)
    identity = [[float(row == column) for column in range(4)] for row in range(4)]
    same = draw(generator, 3, 4)
    yield case("student is the teacher", same, identity, same)
    yield case("opposite", same, identity, [[-x for x in row] for row in same])
    zeros = [[0.0] * 4, [1.0, 2.0, 0.0, -1.0], [0.0] * 4]
    yield case("zero vectors", zeros, identity, [[1.0, 0.0, 2.0, 0.0], [0.0] * 4, [0.0] * 4])
    yield case("zero projection", same, [[0.0] * 4] * 5, draw(generator, 3, 5))


def tensor(rows: Rows, width: int) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), width)


def expected(case: Case) -> dict[str, Any]:
    projection_width = len(case["projection"][0])
    teacher = tensor(case["teacher"], len(case["projection"]))
    results = {}
    for name, loss in LOSSES.items():
        student = tensor(case["student"], projection_width).requires_grad_()
        projection = tensor(case["projection"], projection_width).requires_grad_()
        value = loss(student @ projection.T, teacher)
        value.backward()
        assert student.grad is not None
        assert projection.grad is not None
        results[name] = {
            "value": value.item(),
            "student_gradient": student.grad.tolist(),
            "projection_gradient": projection.grad.tolist(),
        }
    return results


def references() -> list[Case]:
    return [case | {"losses": expected(case)} for case in inputs()]


def main() -> None:
    lines = ",\n".join(json.dumps(case) for case in references())
    Path(sys.argv[1]).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
