"""The statistics of `./polystill bench codecs` against PyTorch's autograd on whole rows, and its logits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.label_logits import student_of, zipf_chunks
from benchmarks.label_statistics import (
    Exact,
    Products,
    bytes_for,
    error_at,
    sampled_products,
    top_k_products,
    worst_of_unbiased,
)

ROWS, CLASSES = 5, 40


def logits(seed: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(seed))


def gradient(student: Tensor, loss: Any) -> Tensor:
    z = student.double().requires_grad_()
    loss(z).backward()
    assert z.grad is not None
    return z.grad


def dense_products(estimate: Tensor, exact: Tensor) -> Tensor:
    return torch.stack([(estimate**2).sum(1), (estimate * exact).sum(1), ((estimate - exact) ** 2).sum(1)], 1)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_exact_gradient_is_that_of_the_divergence(temperature: float) -> None:
    teacher, student = logits(1), logits(2)
    exact = Exact.of(teacher, [student], temperature)
    p = torch.softmax(teacher.double() / temperature, 1)

    def loss(z: Tensor) -> Tensor:
        return temperature**2 * torch.nn.functional.kl_div(torch.log_softmax(z / temperature, 1), p, reduction="sum")

    torch.testing.assert_close(exact.students[0].gradient, gradient(student, loss))
    assert exact.students[0].divergence.sum().item() * temperature**2 == pytest.approx(loss(student.double()).item())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_products_of_sampled_labels(temperature: float) -> None:
    teacher, student, draws = logits(1), logits(2), 12
    exact = Exact.of(teacher, [student], temperature)
    generator = torch.Generator().manual_seed(3)
    drawn = torch.multinomial(exact.p, draws, replacement=True, generator=generator)
    counts = torch.zeros(ROWS, CLASSES, dtype=torch.int64).scatter_add_(1, drawn, torch.ones_like(drawn))
    rows, ids = counts.nonzero(as_tuple=True)
    offsets = torch.tensor([0, *torch.bincount(rows, minlength=ROWS).cumsum(0).tolist()])

    def loss(z: Tensor) -> Tensor:
        return -(temperature**2) * (counts / draws * torch.log_softmax(z / temperature, 1)).sum()

    expected = dense_products(gradient(student, loss), exact.students[0].gradient)
    torch.testing.assert_close(sampled_products(exact, 0, ids.int(), counts[rows, ids], offsets, draws), expected)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("k", [1, 7, CLASSES - 1])
def test_products_of_top_k_labels(temperature: float, k: int) -> None:
    teacher, student = logits(1), logits(2)
    exact = Exact.of(teacher, [student], temperature)
    known, ids = exact.p.topk(k)
    log_p, log_rest = known.log(), (1 - known.sum(1)).log()

    def loss(z: Tensor) -> Tensor:
        q = torch.softmax(z / temperature, 1)
        on = q.gather(1, ids)
        rest = log_rest.exp()
        ghost = (known * (log_p - on.log())).sum() + (rest * (log_rest - (1 - on.sum(1)).log())).sum()
        return temperature**2 * ghost

    expected = dense_products(gradient(student, loss), exact.students[0].gradient)
    torch.testing.assert_close(top_k_products(exact, 0, ids.int(), log_p, log_rest), expected)


def test_what_is_said_of_a_gradient() -> None:
    generator = torch.Generator().manual_seed(5)
    exact = torch.randn(2000, 30, dtype=torch.float64, generator=generator)
    noise = torch.randn(2000, 30, dtype=torch.float64, generator=generator)
    unbiased, biased = Products(), Products()
    for rows in (slice(0, 700), slice(700, 2000)):
        squares = (exact[rows] ** 2).sum(1)
        unbiased.add(dense_products(exact[rows] + 0.5 * noise[rows], exact[rows]), squares)
        biased.add(dense_products(0.9 * exact[rows] + 0.5 * noise[rows], exact[rows]), squares)
    assert unbiased.error() == pytest.approx(0.5, rel=0.03)
    assert unbiased.degrees() == pytest.approx(math.degrees(math.atan(0.5)), rel=0.03)
    assert unbiased.norm() == pytest.approx(math.sqrt(1.25), rel=0.02)
    assert abs(unbiased.bias_in_se()) < 3
    assert biased.bias() == pytest.approx(-0.1, abs=0.01)
    # The noise along the gradient has a standard error of 0.5 |g| / sqrt(rows) a row.
    assert biased.bias_in_se() == pytest.approx(-0.1 * 30 / (0.5 * math.sqrt(30) / math.sqrt(2000)), rel=0.15)


def test_the_worst_of_many_unbiased_numbers() -> None:
    assert worst_of_unbiased(1) == pytest.approx(1.95996, abs=1e-4)
    below = torch.randn(20_000, 36, generator=torch.Generator().manual_seed(1)).abs().amax(1) < worst_of_unbiased(36)
    assert below.float().mean().item() == pytest.approx(0.95, abs=0.006)


def test_sizes_between_those_that_were_measured() -> None:
    falling = [(100.0, 20.0), (400.0, 10.0), (1600.0, 5.0)]  # as the root of the bytes
    assert bytes_for(10.0, falling) == "400"
    assert bytes_for(math.sqrt(200), falling) == "200"
    assert bytes_for(4.0, falling) == "> 1600"
    assert bytes_for(30.0, falling) == "<= 100"
    assert error_at(200.0, falling) == pytest.approx(math.sqrt(200))
    assert error_at(6400.0, falling) == pytest.approx(2.5)


@pytest.mark.parametrize("divergence", [0.1, 2.0])
def test_students_are_as_far_away_as_asked(divergence: float) -> None:
    teacher = next(iter(zipf_chunks(3000, 4.0, 16, 1))).teacher
    student = student_of(teacher, divergence, 9)
    q, p = torch.log_softmax(student.double(), 1), torch.log_softmax(teacher.double(), 1)
    torch.testing.assert_close(
        (p.exp() * (p - q)).sum(1), torch.full((16,), divergence, dtype=torch.float64), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("entropy", [1.0, 7.0])
def test_synthetic_logits_have_the_entropy_asked_for(entropy: float) -> None:
    chunk = next(iter(zipf_chunks(3000, entropy, 4, 1)))
    log_p = torch.log_softmax(chunk.teacher.double(), 1)
    torch.testing.assert_close(
        -(log_p.exp() * log_p).sum(1), torch.full((4,), entropy, dtype=torch.float64), rtol=1e-4, atol=0
    )
    assert not torch.equal(chunk.teacher[0], chunk.teacher[1])
