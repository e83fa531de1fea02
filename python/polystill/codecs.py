"""How a teacher's logits travel, byte by byte as soft_labels/FORMAT.md says; decoded with numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS = {
    "dense_fp32": 1,
    "dense_fp16": 2,
    "dense_bf16": 3,
    "dense_int8": 4,
    "top_k": 5,
    "sampled": 6,
    "hidden_head": 7,
    "scores": 8,
    "classes": 9,
}
# Codec -> dtype of the message's tensor, layout of its numbers.
_TENSORS = {"dense_fp32": (1, "<f4"), "dense_fp16": (2, "<f2"), "dense_bf16": (4, "<u2"), "hidden_head": (2, "<f2")}
_PACKED = ("top_k", "sampled", "scores")
_TEMPERED = ("top_k", "sampled", "scores")


@dataclass(frozen=True)
class Codec:
    """A codec with what it depends on: p = softmax(logits / temperature) of top_k, sampled and scores; the k likeliest
    ids; so many draws a row, which follow from the seed.
    """

    name: str
    temperature: float = 1.0
    k: int = 0
    draws: int = 0
    seed: int = 0

    def check(self) -> None:
        """ValueError says what is missing; the server checks the rest."""
        if self.name not in NUMBERS:
            raise ValueError(f"codec {self.name!r} is not known; known are {', '.join(NUMBERS)}")
        if self.name == "top_k" and self.k < 1:
            raise ValueError("codec top_k needs k: write Codec('top_k', k=32)")
        if self.name == "sampled" and self.draws < 1:
            raise ValueError("codec sampled needs draws: write Codec('sampled', draws=64)")

    @property
    def packed(self) -> bool:
        """Whether what comes back is no array of numbers."""
        return self.name in _PACKED

    def spec(self) -> dict[str, Any]:
        """Its part of a LabelSpec."""
        spec: dict[str, Any] = {"codec": NUMBERS[self.name]}
        if self.name in _TEMPERED:
            spec["temperature"] = self.temperature
        if self.name == "top_k":
            spec["k"] = self.k
        if self.name == "sampled":
            spec |= {"draws": self.draws, "seed": self.seed}
        return spec

    def row_bytes(self, width: int, head_width: int, scores: int) -> int:
        """Of one row of `width` numbers, or `scores` ids asked for; with sampled at most."""
        match self.name:
            case "dense_int8":
                return 8 + width
            case "top_k":
                return (self.k * id_bits(width) + 7) // 8 + 2 * self.k + 4
            case "sampled":
                spread = max(0, math.ceil(math.log2(width / self.draws)))
                return 9 + (self.draws * (4 + spread) + 7) // 8
            case "scores":
                return 4 * scores
            case "classes":
                return 4
            case "hidden_head":
                return 2 * head_width
            case _:
                return np.dtype(_TENSORS[self.name][1]).itemsize * width


@dataclass(frozen=True)
class TopK:
    """The k likeliest ids of each row, ascending, and the log of what all others share (-inf when there are none)."""

    ids: NDArray[np.int32]  # [rows, k]
    log_p: NDArray[np.float32]  # [rows, k]
    log_rest: NDArray[np.float32]  # [rows]

    def rows(self, first: int, last: int) -> TopK:
        return TopK(self.ids[first:last], self.log_p[first:last], self.log_rest[first:last])


@dataclass(frozen=True)
class Sampled:
    """Row i drew ids[offsets[i]:offsets[i + 1]], so often as `counts` says; `entropy` of p in nats."""

    ids: NDArray[np.int32]
    counts: NDArray[np.int32]
    offsets: NDArray[np.int64]  # [rows + 1]
    entropy: NDArray[np.float32]  # [rows]

    def rows(self, first: int, last: int) -> Sampled:
        begin, end = self.offsets[first], self.offsets[last]
        return Sampled(
            self.ids[begin:end],
            self.counts[begin:end],
            self.offsets[first : last + 1] - begin,
            self.entropy[first:last],
        )


@dataclass(frozen=True)
class Scores:
    """log p of row i at its ids: log_p[offsets[i]:offsets[i + 1]]."""

    log_p: NDArray[np.float32]
    offsets: NDArray[np.int64]  # [rows + 1]

    def rows(self, first: int, last: int) -> Scores:
        begin, end = self.offsets[first], self.offsets[last]
        return Scores(self.log_p[begin:end], self.offsets[first : last + 1] - begin)


Packed = TopK | Sampled | Scores
Decoded = NDArray[Any] | Packed


def concatenate(parts: Sequence[Decoded]) -> Decoded:
    """The rows of all parts, which are of one kind."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, np.ndarray):
        return np.concatenate([part for part in parts if isinstance(part, np.ndarray)])
    values = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(first) if name != "offsets"
    }
    if "offsets" in vars(first):
        sizes = [np.diff(part.offsets) for part in parts if isinstance(part, Sampled | Scores)]
        values["offsets"] = offsets_of(np.concatenate(sizes))
    return type(first)(**values)


def offsets_of(sizes: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def id_bits(width: int) -> int:
    return max(1, (width - 1).bit_length())


def expect(holds: bool, what: str) -> None:
    """ValueError, which names what an answer lacks."""
    if not holds:
        raise ValueError(what)


def decode(message: Any, codec: Codec, width: int, head_width: int, scores: Sequence[int]) -> Decoded:
    """`scores`: for each row, how many ids were asked for (0 but with scores). ValueError says what is wrong."""
    expect(message.codec == NUMBERS[codec.name], f"came by codec {message.codec}, not by {codec.name}")
    match codec.name:
        case "top_k":
            return _top_k(message.packed, len(scores), codec.k, width)
        case "sampled":
            return _sampled(message, len(scores), codec.draws, width)
        case "scores":
            expect(len(message.packed) == 4 * sum(scores), f"has {len(message.packed)} bytes, not {4 * sum(scores)}")
            return Scores(_log_p(np.frombuffer(message.packed, "<f4")), offsets_of(scores))
        case "classes":
            expect(len(message.packed) == 4 * len(scores), f"has {len(message.packed)} bytes, not {4 * len(scores)}")
            classes = np.frombuffer(message.packed, "<u4")
            expect(bool((classes < width).all()), f"holds a class beyond {width}")
            return classes.astype(np.int32)
        case "dense_int8":
            return _int8(message.packed, len(scores), width)
        case _:
            return _tensor(message.dense, codec.name, len(scores), head_width if codec.name == "hidden_head" else width)


def _tensor(dense: Any, name: str, rows: int, width: int) -> NDArray[np.float32]:
    dtype, layout = _TENSORS[name]
    size = rows * width * np.dtype(layout).itemsize
    holds = dense.dtype == dtype and list(dense.shape) == [rows, width]
    expect(holds, f"is no {name} {[rows, width]}, but dtype {dense.dtype} {list(dense.shape)}")
    expect(len(dense.data) == size, f"has {len(dense.data)} bytes, not {size}")
    numbers = np.frombuffer(dense.data, layout)
    if name == "dense_bf16":
        numbers = (numbers.astype("<u4") << 16).view("<f4")
    return _finite(numbers.reshape(rows, width).astype(np.float32))


def _int8(packed: bytes, rows: int, width: int) -> NDArray[np.float32]:
    expect(len(packed) == rows * (8 + width), f"has {len(packed)} bytes, not {rows * (8 + width)}")
    row = np.dtype([("centre", "<f4"), ("scale", "<f4"), ("steps", "i1", (width,))])
    values = np.frombuffer(packed, row)
    scale = _finite(values["scale"])
    expect(bool((scale >= 0).all()), "holds a scale below 0")
    return _finite(values["centre"][:, None] + scale[:, None] * values["steps"].astype(np.float32))


def _finite(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    expect(bool(np.isfinite(numbers).all()), "holds numbers that are not finite")
    return numbers


def _log_p(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    expect(bool((numbers <= 0).all()), "holds logarithms that are no probability's")
    return _finite(numbers)


def _top_k(packed: bytes, rows: int, k: int, width: int) -> TopK:
    bits = id_bits(width)
    id_bytes = (k * bits + 7) // 8
    size = rows * (id_bytes + 2 * k + 4)
    expect(len(packed) == size, f"has {len(packed)} bytes, not {size}")
    row = np.dtype([("ids", "u1", (id_bytes,)), ("log_p", "<f2", (k,)), ("log_rest", "<f4")])
    values = np.frombuffer(packed, row)
    spread = np.unpackbits(values["ids"].reshape(rows, id_bytes), axis=1, bitorder="little")[:, : k * bits]
    ids = (spread.reshape(rows, k, bits) << np.arange(bits, dtype=np.int64)).sum(axis=2).astype(np.int32)
    expect(
        bool((ids < width).all() and (np.diff(ids, axis=1) > 0).all()), f"holds ids that do not ascend below {width}"
    )
    rest = values["log_rest"].astype(np.float32)
    expect(
        bool(np.isneginf(rest).all() if k == width else (np.isfinite(rest) & (rest <= 0)).all()),
        "holds a rest that is none",
    )
    return TopK(ids, _log_p(values["log_p"].astype(np.float32).reshape(rows, k)), rest)


class _Bits:
    """The bits of a row, the lowest of a byte first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def read(self, count: int) -> int:
        expect(count <= self._left, "ends within a row")
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return value

    def ones(self) -> int:
        run = (~self._value & (self._value + 1)).bit_length() - 1
        self.read(run + 1)
        return run

    def at_end(self) -> bool:
        return self._left < 8 and self._value == 0


def _sampled(message: Any, rows: int, draws: int, width: int) -> Sampled:
    expect(len(message.row_bytes) == rows, f"has {len(message.row_bytes)} rows, not {rows}")
    expect(sum(message.row_bytes) == len(message.packed), "has other bytes than its rows")
    ids: list[int] = []
    counts: list[int] = []
    sizes: list[int] = []
    entropy = np.zeros(rows, np.float32)
    begin = 0
    for row, size in enumerate(message.row_bytes):
        expect(size >= 5, "holds a row of less than 5 bytes")
        data = message.packed[begin : begin + size]
        begin += size
        entropy[row] = np.frombuffer(data, "<f4", 1)[0]
        bits, rice, golomb = _Bits(data[5:]), data[4] & 31, data[4] >> 5
        before, left, drawn = -1, draws, len(ids)
        while left > 0:
            quotient = bits.ones()
            before += 1 + (quotient << rice | bits.read(rice))
            low = golomb + bits.ones()
            count = 1 + ((1 << low | bits.read(low)) - (1 << golomb))
            expect(before < width and count <= left, f"holds id {before}, {count} times, of {width} and {left} draws")
            ids.append(before)
            counts.append(count)
            left -= count
        expect(bits.at_end(), "holds a row with more bytes than its draws")
        sizes.append(len(ids) - drawn)
    expect(bool((entropy >= 0).all()), "holds an entropy that is none")
    return Sampled(np.array(ids, np.int32), np.array(counts, np.int32), offsets_of(sizes), _finite(entropy))
