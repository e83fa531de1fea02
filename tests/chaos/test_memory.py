"""Slopes of lists whose slope is known, and what counts as flat."""

from __future__ import annotations

import os
import random

import pytest

from chaos.memory import DESCRIPTORS, KIB, SHORTEST, Bounds, Samples, Slope, judge


def test_slopes() -> None:
    generator = random.Random(1)
    seconds = [float(second) for second in range(1800)]
    flat = Slope.of(seconds, [50_000 + generator.gauss(0, 100) for _ in seconds])
    grows = Slope.of(seconds, [50_000 + second / 60 * 20 + generator.gauss(0, 100) for second in seconds])
    assert flat is not None and grows is not None
    assert flat.is_flat(KIB) and abs(flat.per_minute) < 5
    assert not grows.is_flat(KIB) and grows.per_minute == pytest.approx(20, abs=5)
    # The beginning does not count.
    begins = Slope.of(seconds, [min(second, 200) * 100 for second in seconds])
    assert begins == Slope(0, 0)
    fades = [min(second, 900) for second in seconds]
    assert Slope.of(seconds, fades) != Slope(0, 0) and Slope.of(seconds, fades, skipped=0.5) == Slope(0, 0)
    assert Slope.of(seconds[:20], seconds[:20]) is None


def test_samples_are_of_living_processes() -> None:
    samples = Samples("this", os.getpid())
    samples.take(1.0)
    descriptor = os.open("/dev/null", os.O_RDONLY)
    samples.take(2.0)
    os.close(descriptor)
    assert samples.seconds == [1.0, 2.0]
    assert samples.descriptors[1] == samples.descriptors[0] + 1
    assert samples.kib[0] > 1000
    assert samples.minutes == pytest.approx(1 / 60)
    gone = Samples("gone", 1 << 22)
    gone.take(1.0)
    assert gone.seconds == []


@pytest.mark.parametrize(
    ("per_minute", "standard_error", "flat"),
    [
        (-50, 1, True),
        (9, 1, True),  # beyond noise, but little
        (11, 1, False),
        (11, 4, True),  # noise
        (99, 40, True),
        (101, 1000, False),  # too much, whatever the noise
    ],
)
def test_flat(per_minute: float, standard_error: float, flat: bool) -> None:
    assert Slope(per_minute, standard_error).is_flat(Bounds(small=10, large=100)) is flat


def lived(minutes: float, kib_a_minute: float = 0, descriptors_a_minute: float = 0) -> Samples:
    generator = random.Random(2)
    seconds = [float(second) for second in range(round(minutes * 60) + 1)]
    kib = [round(50_000 + t / 60 * kib_a_minute + generator.gauss(0, 50)) for t in seconds]
    return Samples("teacher-0", 1, seconds, kib, [round(20 + t / 60 * descriptors_a_minute) for t in seconds])


def test_who_grows_is_a_violation() -> None:
    entries, wrong = judge([lived(30)])
    assert entries[0]["flat"] is True and wrong == []
    entries, wrong = judge([lived(30), lived(30, kib_a_minute=2 * KIB.small)])
    assert [entry["flat"] for entry in entries] == [True, False]
    assert [violation.kind for violation in wrong] == ["memory"] and "teacher-0 grows" in wrong[0].message
    entries, wrong = judge([lived(30, descriptors_a_minute=3 * DESCRIPTORS.small)])
    assert entries[0]["flat"] is False and len(wrong) == 1


def test_who_lived_too_briefly_is_not_judged() -> None:
    entries, wrong = judge([lived(SHORTEST - 1, kib_a_minute=10 * KIB.large), lived(0.2)])
    assert [entry["flat"] for entry in entries] == [None]
    assert wrong == []
