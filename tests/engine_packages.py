"""Packages of models in other processes, written from docs alone, and what they must answer, by numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

VOCABULARY, WIDTH, CLASSES, MAX_LENGTH = 300, 12, 3, 40
LABELS = ["net", "games", "science"]

# A row that begins with SPECIAL twice makes it do what the third id says; what it did once lies beside the package.
MODEL = """
import os, signal, sys, time
from pathlib import Path
import numpy as np

SPECIAL = 7


def load(folder, device):
    beside = Path(folder).parent
    table = np.sin(np.arange(300 * 12, dtype=np.float64)).reshape(300, 12)
    head = np.cos(np.arange(12 * 3, dtype=np.float64)).reshape(12, 3)

    def special(what):
        if what == 1:
            raise ValueError("no such word")
        if what == 2 and not (beside / "killed").exists():
            (beside / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if what == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if what == 4:
            time.sleep(1000)
        if what == 9:  # what it started prints its number, and lives on
            if os.fork() == 0:
                print("child", os.getpid(), flush=True)
                time.sleep(1000)
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        if what == 10:
            while True:
                print("again and again", "x" * 4000)
        if what in (5, 6):  # until the other is here too
            (beside / f"here-{what}").touch()
            while not (beside / f"here-{11 - what}").exists():
                time.sleep(0.01)

    def answer(ids, mask):
        kind = type(ids).__module__
        ids, mask = np.asarray(ids), np.asarray(mask)
        print("batch", *ids.shape, ids.dtype, mask.dtype, kind, flush=True)
        for row in ids:
            if row[0] == SPECIAL and row[1] == SPECIAL:
                special(row[2])
        x = table[ids]
        embedding = (x * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
        logits = embedding @ head
        logits[(ids[:, :3] == [SPECIAL, SPECIAL, 8]).all(1)] = np.nan
        return {"logits": logits, "embedding": embedding, "hidden.0": x}

    return answer
"""


def expected(row: list[int]) -> dict[str, NDArray[np.float64]]:
    """What the model says of a record."""
    table = np.sin(np.arange(VOCABULARY * WIDTH, dtype=np.float64)).reshape(VOCABULARY, WIDTH)
    head = np.cos(np.arange(WIDTH * CLASSES, dtype=np.float64)).reshape(WIDTH, CLASSES)
    hidden = table[row]
    embedding = hidden.mean(0)
    return {"logits": embedding @ head, "embedding": embedding, "hidden.0": hidden}


def write_manifest(folder: Path, **keys: Any) -> Path:
    signature = {"input": "ids", "vocab_size": VOCABULARY, "max_length": MAX_LENGTH, "labels": LABELS}
    manifest = {"format": "polystill.package/1", "name": "judge", "signature": signature} | keys
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "teacher.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder


def python_package(folder: Path, source: str = MODEL, **python: Any) -> Path:
    write_manifest(folder, backend="python", python={"module": "judge"} | python)
    (folder / "judge.py").write_text(source)
    return folder


def upstream_package(folder: Path, address: str, signature: dict[str, Any] | None = None, **upstream: Any) -> Path:
    keys: dict[str, Any] = {"backend": "open_inference", "upstream": {"address": address, "model": "judge"} | upstream}
    return write_manifest(folder, **keys, **({"signature": signature} if signature else {}))
