"""The committed references, which the C++ tests read, are what their scripts compute here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.references import feature_losses, feature_step, packed_losses
from tests.references.losses import references
from tests.references.transformer import reference

ROOT = Path(__file__).resolve().parent.parent


def assert_close(committed: Any, computed: Any, where: str) -> None:
    assert type(committed) is type(computed), where
    if isinstance(committed, dict):
        assert committed.keys() == computed.keys(), where
        for key, value in committed.items():
            assert_close(value, computed[key], f"{where}.{key}")
    elif isinstance(committed, list):
        assert len(committed) == len(computed), where
        for index, value in enumerate(committed):
            assert_close(value, computed[index], f"{where}[{index}]")
    elif isinstance(committed, float):
        assert committed == pytest.approx(computed, rel=1e-12, abs=1e-12), where
    else:
        assert committed == computed, where


def test_committed_losses_are_reproduced() -> None:
    assert_close(json.loads((ROOT / "losses/testdata/references.json").read_text()), references(), "references")


def test_committed_packed_losses_are_reproduced() -> None:
    committed = json.loads((ROOT / "losses/testdata/packed_references.json").read_text())
    assert_close(committed, packed_losses.references(), "packed_references")


def test_committed_transformer_is_reproduced() -> None:
    assert_close(json.loads((ROOT / "models/testdata/transformer.json").read_text()), reference(), "transformer")


def test_committed_feature_losses_are_reproduced() -> None:
    committed = json.loads((ROOT / "losses/testdata/feature_references.json").read_text())
    assert_close(committed, feature_losses.references(), "feature references")


def test_committed_feature_step_is_reproduced() -> None:
    committed = json.loads((ROOT / "student_worker/testdata/feature_step.json").read_text())
    assert_close(committed, json.loads(json.dumps(feature_step.reference())), "feature step")
