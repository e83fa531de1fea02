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


@dataclass
class Exact:
    """Distributions and gradients of some rows, float64."""

    p: Tensor  # [rows, classes]
    q: list[Tensor]
    gradients: list[Tensor]
    temperature: float

    @classmethod
    def of(cls, teacher: Tensor, students: list[Tensor], temperature: float) -> Exact:
        p = torch.softmax(teacher.double() / temperature, 1)
        q = [torch.softmax(student.double() / temperature, 1) for student in students]
        return cls(p, q, [temperature * (one - p) for one in q], temperature)

    def divergences(self) -> list[Tensor]:
        """KL(p || q) of each row."""
        log_p = self.p.clamp_min(1e-300).log()
        return [(self.p * (log_p - one.clamp_min(1e-300).log())).sum(1) for one in self.q]


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
    rows = len(offsets) - 1
    row_of = torch.repeat_interleave(torch.arange(rows), offsets.diff())
    p, q, g = exact.p, exact.q[student], exact.gradients[student]
    t, share, at = exact.temperature, counts.double() / draws, (row_of, ids.long())
    squares = _of_rows(share * share, row_of, rows)
    length = t * t * ((q * q).sum(1) - 2 * _of_rows(q[at] * share, row_of, rows) + squares)
    error = t * t * ((p * p).sum(1) - 2 * _of_rows(p[at] * share, row_of, rows) + squares)
    product = t * ((q * g).sum(1) - _of_rows(g[at] * share, row_of, rows))
    return torch.stack([length, product, error], 1)


def top_k_products(exact: Exact, student: int, ids: Tensor, log_p: Tensor, log_rest: Tensor) -> Tensor:
    """[rows, 3] of the ghost's gradient (losses/packed_losses.h): T (m q - p) on the k, T (m - R /
    (1 - Q)) q beyond them; R the label's rest, m what the label's p and R add up to (1 but for their rounding).
    """
    q, g, t = exact.q[student], exact.gradients[student], exact.temperature
    ids = ids.long()
    known, rest = log_p.double().exp(), log_rest.double().exp()
    q_k, g_k = q.gather(1, ids), g.gather(1, ids)
    whole = known.sum(1) + rest
    on = t * (whole[:, None] * q_k - known)
    beyond = q.scatter(1, ids, 0.0)
    factor = t * (whole - rest / beyond.sum(1).clamp_min(1e-300))
    length = (on * on).sum(1) + factor * factor * (beyond * beyond).sum(1)
    product = (on * g_k).sum(1) + factor * (beyond * g).sum(1)
    return torch.stack([length, product, length - 2 * product + (g * g).sum(1)], 1)


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
