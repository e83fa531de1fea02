"""TensorBoard's own reader reads the curves of a run, and finds in them what the run says of itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from processes import BIN, REPO, SAMPLE
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EPOCHS = 400
RECORDS, BATCH = 96, 16
STEPS = EPOCHS * RECORDS // BATCH
EVERY = 100


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(point.step, point.value) for point in accumulator.Scalars(tag)]


def test_tensorboard_reads_the_curves(tmp_path: Path) -> None:
    output = tmp_path / "run"
    early_stopping = f"student.early_stopping={{every: {EVERY}, patience: 1000}}"
    settings = [f"output={output}", "baselines=[]", f"student.epochs={EPOCHS}", early_stopping]
    words = [word for setting in settings for word in ("--set", setting)]
    result = subprocess.run(
        [str(BIN / "polystill"), "run", str(SAMPLE), *words], cwd=REPO, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert {path.name for path in (output / "events").iterdir()} == {"teacher-english", "distilled"}
    folder = output / "events" / "distilled"

    loss = curve(folder, "loss")
    steps = [step for step, _ in loss]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS
    assert loss[-1][1] < loss[0][1]
    rates = dict(curve(folder, "learning_rate"))
    assert list(rates) == steps
    assert rates[STEPS] < 1e-6 < max(rates.values()) <= 2e-2 * 1.000001  # half a cosine to zero
    assert all(rate > 0 for _, rate in curve(folder, "records_per_second"))
    waits = [seconds for _, seconds in curve(folder, "data_wait_seconds")]
    assert waits == sorted(waits)
    counted = sum(curve(folder, f"records/{language}")[-1][1] for language in ("de", "fr", "es", "ja"))
    assert counted == RECORDS * EPOCHS
    validation = curve(folder, "validation")
    assert validation and all(step % EVERY == 0 and 0 <= value <= 1 for step, value in validation)
    assert max(value for _, value in validation) > 0.6

    status = json.loads((output / "status.json").read_text())
    assert status["state"] == "STATE_DONE"
    distilled = next(stage for stage in status["stages"] if stage["name"] == "distilled")
    assert int(distilled["done"]) == STEPS
