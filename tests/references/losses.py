"""References of the losses: values and gradients in float64, written from the formulas and not from the C++ code.

    python -m tests.references.losses losses/testdata/references.json

writes the file that losses/losses_test.cc reads. Values are sums over rows; gradients are with respect to the student's
logits and come from PyTorch's autograd.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

Case = dict[str, Any]
Rows = list[list[float]]

TEMPERATURES = (0.5, 1.0, 2.0, 8.0)


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / T), by its definition with a log-sum-exp."""
    tempered = logits / temperature
    return tempered - torch.logsumexp(tempered, dim=1, keepdim=True)


def soft_label(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(p || q) = T^2 (cross-entropy of p and q - entropy of p)."""
    log_p = log_probabilities(teacher, temperature)
    p = log_p.exp()
    cross_entropy = -(p * log_probabilities(student, temperature)).sum()
    entropy = -torch.special.xlogy(p, p).sum()
    return temperature**2 * (cross_entropy - entropy)


def cross_entropy(student: Tensor, classes: Tensor) -> Tensor:
    """Sum of -log q_y."""
    log_q = log_probabilities(student)
    terms = [-log_q[row, int(label)] for row, label in enumerate(classes)]
    return sum(terms, start=0.0 * student.sum())


def hard_label(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy with the first of the teacher's largest logits."""
    first = [row.index(max(row)) for row in teacher.tolist()]
    return cross_entropy(student, torch.tensor(first, dtype=torch.int64))


def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum over rows of the variance over classes (divided by their number) of student - teacher: centring both and
    taking the mean square of their difference is the same thing.
    """
    difference = student - teacher
    return ((difference**2).mean(dim=1) - difference.mean(dim=1) ** 2).sum()


def binary(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 times the sum over labels of the KL of two Bernoulli distributions = cross-entropy - entropy."""
    p, not_p = torch.sigmoid(teacher / temperature), torch.sigmoid(-teacher / temperature)
    cross_entropy = binary_cross_entropy_with_logits(student / temperature, p, reduction="sum")
    entropy = -(torch.special.xlogy(p, p) + torch.special.xlogy(not_p, not_p)).sum()
    return temperature**2 * (cross_entropy - entropy)


def binary_task(student: Tensor, holds: Tensor) -> Tensor:
    """Sum over labels of -log q where one holds, -log(1 - q) where not: log(1 + exp(-s)) and log(1 + exp(s))."""
    signed = torch.where(holds > 0, -student, student)
    return torch.logaddexp(signed, torch.zeros_like(signed)).sum()


def binary_hard_label(student: Tensor, teacher: Tensor) -> Tensor:
    return binary_task(
        student, torch.tensor([[float(x > 0) for x in row] for row in teacher.tolist()]).view_as(student)
    )


def binary_logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    return ((student - teacher) ** 2).sum() / student.shape[1]


def draw(generator: random.Random, rows: int, classes: int, scale: float) -> Rows:
    return [[scale * generator.gauss(0.0, 1.0) for _ in range(classes)] for _ in range(rows)]


def inputs() -> Iterator[Case]:
    """Student logits, teacher logits and gold classes of every case."""
    generator = random.Random(20240817)
    holding = random.Random(20261121)

    def case(name: str, student: Rows, teacher: Rows, classes: int) -> Case:
        gold = [generator.randrange(classes) for _ in student]
        holds = [[holding.randrange(2) for _ in range(classes)] for _ in student]
        return {
            "name": name,
            "classes": classes,
            "student": student,
            "teacher": teacher,
            "gold": gold,
            "holds": holds,
        }

    def drawn(name: str, rows: int, classes: int, scale: float) -> Case:
        return case(name, draw(generator, rows, classes, scale), draw(generator, rows, classes, scale), classes)

    yield drawn("usual", 7, 10, 2.0)
    yield drawn("one row", 1, 10, 2.0)
    yield drawn("two classes", 5, 2, 3.0)
    yield drawn("one class", 4, 1, 2.0)
    yield drawn("many classes", 2, 300, 1.0)
    yield drawn("empty batch", 0, 10, 1.0)
    yield drawn("far logits", 6, 10, 40.0)
    extreme = [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4], [0.0, 1e4, 1e4]]
    yield case("extreme logits", extreme, extreme[::-1], 3)
    yield case("extreme student", extreme, draw(generator, 4, 3, 1.0), 3)
    peaked = [[60.0 if column == row else 0.0 for column in range(5)] for row in range(3)]
    yield case("peaked teacher", draw(generator, 3, 5, 1.0), peaked, 5)
    same = draw(generator, 3, 5, 2.0)
    yield case("student is the teacher", same, same, 5)
    yield case("shifted teacher", same, [[x + 100.0 for x in row] for row in same], 5)
    yield case("equal logits", [[0.0] * 4] * 2, [[3.0] * 4] * 2, 4)


def tensor(rows: Rows, classes: int) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), classes)


def evaluate(loss: Callable[[Tensor], Tensor], case: Case) -> dict[str, Any]:
    student = tensor(case["student"], case["classes"]).requires_grad_()
    value = loss(student)
    value.backward()
    assert student.grad is not None
    return {"value": value.item(), "gradient": student.grad.tolist()}


def expected(case: Case) -> list[dict[str, Any]]:
    teacher = tensor(case["teacher"], case["classes"])
    gold = torch.tensor(case["gold"], dtype=torch.int64)
    holds = tensor(case["holds"], case["classes"])
    losses: list[tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = [
        ({"kind": "task"}, lambda student: cross_entropy(student, gold)),
        ({"kind": "hard_label"}, lambda student: hard_label(student, teacher)),
        ({"kind": "logit_mse"}, lambda student: logit_mse(student, teacher)),
        ({"kind": "binary_task"}, lambda student: binary_task(student, holds)),
        ({"kind": "binary_hard_label"}, lambda student: binary_hard_label(student, teacher)),
        ({"kind": "binary_logit_mse"}, lambda student: binary_logit_mse(student, teacher)),
    ]
    results = [label | evaluate(loss, case) for label, loss in losses]
    for temperature in TEMPERATURES:
        for kind, loss in (("soft_label", soft_label), ("binary", binary)):
            result = evaluate(lambda student, t=temperature, f=loss: f(student, teacher, t), case)
            results.append({"kind": kind, "temperature": temperature} | result)
    return results


def references() -> list[Case]:
    return [case | {"losses": expected(case)} for case in inputs()]


def main() -> None:
    lines = ",\n".join(json.dumps(case) for case in references())
    Path(sys.argv[1]).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
