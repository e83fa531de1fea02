"""What gradients of compressed labels are worth, against the exact ones in float64; computed here, not by Polystill.

At temperature T the gradient of the loss to a row of the student's logits is T (q - p), q the student's and p the
teacher's softmax at T. All rows of a table's line are one long vector: its error, angle and norm are reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

DEGREES = 5.0


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Of each row."""
    return torch.einsum("ij,ij->i", one, other)


@dataclass
class Student:
    """One student's exact gradient, with what sums over all ids are needed of it and of q, [rows] each."""

    gradient: Tensor  # [rows, classes]
    divergence: Tensor  # KL(p || q)
    gg: Tensor
    qq: Tensor
    qg: Tensor


@dataclass
class Exact:
    """The teacher's distribution and the students' gradients of some rows, float64."""

    p: Tensor  # [rows, classes]
    entropy: Tensor  # [rows], nats
    pp: Tensor
    temperature: float
    students: list[Student]

    @classmethod
    def of(cls, teacher: Tensor, students: list[Tensor], temperature: float) -> Exact:
        z = teacher.double() / temperature
        p = torch.softmax(z, 1)
        entropy = torch.logsumexp(z, 1) - _dot(p, z)
        exact = cls(p, entropy, _dot(p, p), temperature, [])
        for student in students:
            exact._add(student)
        return exact

    def _add(self, student: Tensor) -> None:
        z = student.double() / self.temperature
        divergence = torch.logsumexp(z, 1) - _dot(self.p, z) - self.entropy
        q = torch.softmax(z, 1)
        qq = _dot(q, q)
        gradient = q.sub_(self.p).mul_(self.temperature)
        gg = _dot(gradient, gradient)
        qg = gg / self.temperature + _dot(self.p, gradient)
        self.students.append(Student(gradient, divergence, gg, qq, qg))

    def q_at(self, student: int, at: tuple[Tensor, Tensor]) -> Tensor:
        return self.students[student].gradient[at] / self.temperature + self.p[at]


@dataclass
class Products:
    """For each row |g'|^2, <g', g> and |g' - g|^2 of an estimated gradient g' and the exact one g, and |g|^2."""

    rows: list[Tensor] = field(default_factory=list)  # [rows, 4] each

    def add(self, products: Tensor, exact: Tensor) -> None:
        """[rows, 3], and the exact gradient's |g|^2."""
        self.rows.append(torch.cat([products, exact[:, None]], 1))

    def all(self) -> Tensor:
        return torch.cat(self.rows)

    def error(self) -> float:
        """Relative: |g' - g| / |g|."""
        _, _, error, exact = self.all().sum(0).tolist()
        return math.sqrt(error / exact)

    def norm(self) -> float:
        length, _, _, exact = self.all().sum(0).tolist()
        return math.sqrt(length / exact)

    def degrees(self) -> float:
        length, product, _, exact = self.all().sum(0).tolist()
        if length == 0:
            return 90.0
        return math.degrees(math.acos(min(1.0, product / math.sqrt(length * exact))))

    def bias(self) -> float:
        """Mean of <g' - g, g>, relative to the mean of |g|^2: what is too much or too little along the gradient."""
        _, product, _, exact = self.all().sum(0).tolist()
        return product / exact - 1

    def bias_in_se(self) -> float:
        """The same mean in its standard errors, which follow from how it differs from row to row (and pass to pass):
        normal with variance 1 where nothing is biased, since each row's draws are its own.
        """
        along = (self.all()[:, 1] - self.all()[:, 3]).numpy()
        spread = along.std(ddof=1) / math.sqrt(len(along))
        return float(along.mean() / spread) if spread > 0 else 0.0


def worst_of_unbiased(count: int, confidence: float = 0.95) -> float:
    """What the worst of so many independent normal numbers stays below with that confidence."""
    quantile = torch.special.ndtri(torch.tensor((1 + confidence ** (1 / count)) / 2, dtype=torch.float64))
    return float(quantile)


def _of_rows(values: Tensor, row_of: Tensor, rows: int) -> Tensor:
    return torch.zeros(rows, dtype=torch.float64).index_add_(0, row_of, values)


def sampled_products(exact: Exact, student: int, ids: Tensor, counts: Tensor, offsets: Tensor, draws: int) -> Tensor:
    """[rows, 3] of T (q - c / N), whose parts beyond the ids that were drawn are sums over all ids."""
    rows, t, one = len(offsets) - 1, exact.temperature, exact.students[student]
    row_of = torch.repeat_interleave(torch.arange(rows), offsets.diff())
    share, at = counts.double() / draws, (row_of, ids.long())
    squares = _of_rows(share * share, row_of, rows)
    length = t * t * (one.qq - 2 * _of_rows(exact.q_at(student, at) * share, row_of, rows) + squares)
    error = t * t * (exact.pp - 2 * _of_rows(exact.p[at] * share, row_of, rows) + squares)
    product = t * (one.qg - _of_rows(one.gradient[at] * share, row_of, rows))
    return torch.stack([length, product, error], 1)


def top_k_products(exact: Exact, student: int, ids: Tensor, log_p: Tensor, log_rest: Tensor) -> Tensor:
    """[rows, 3] of the ghost's gradient (losses/packed_losses.h): T (m q - p) on the k, T (m - R / (1 - Q)) q beyond
    them; R the label's rest, m what the label's p and R add up to (1 but for their rounding).
    """
    t, one = exact.temperature, exact.students[student]
    at = (torch.arange(len(ids))[:, None], ids.long())
    known, rest = log_p.double().exp(), log_rest.double().exp()
    q, g = exact.q_at(student, at), one.gradient[at]
    whole = known.sum(1) + rest
    on = t * (whole[:, None] * q - known)
    factor = t * (whole - rest / (1 - q.sum(1)).clamp_min(1e-300))
    length = _dot(on, on) + factor * factor * (one.qq - _dot(q, q))
    product = _dot(on, g) + factor * (one.qg - _dot(q, g))
    return torch.stack([length, product, length - 2 * product + one.gg], 1)


def bytes_for(degrees: float, sizes: list[tuple[float, float]]) -> str:
    """Bytes at which the angle falls to `degrees`, from (bytes, angle): between the two sizes around it on logarithmic
    axes; beyond the largest only that it is more.
    """
    ordered = sorted(sizes)
    if ordered[0][1] <= degrees:
        return f"<= {ordered[0][0]:.0f}"
    for (few, wide), (many, narrow) in pairwise(ordered):
        if narrow <= degrees:
            share = math.log(wide / degrees) / math.log(wide / max(narrow, 1e-12))
            return f"{few * (many / few) ** share:.0f}"
    return f"> {ordered[-1][0]:.0f}"


def error_at(size: float, sizes: list[tuple[float, float]]) -> float:
    """The error at `size` bytes, from (bytes, error) at several: on logarithmic axes, by the two nearest sizes."""
    ordered = sorted(sizes)
    logs = np.log(np.array(ordered))
    place = int(np.clip(np.searchsorted(logs[:, 0], math.log(size)), 1, len(ordered) - 1))
    (x0, y0), (x1, y1) = logs[place - 1], logs[place]
    slope: Any = (y1 - y0) / (x1 - x0) if x1 > x0 else 0.0
    return float(math.exp(y0 + slope * (math.log(size) - x0)))
