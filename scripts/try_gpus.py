"""Tries everything that needs a GPU, and says what ran on which device.

python scripts/try_gpus.py [--gpus N]: on a machine with NVIDIA GPUs, after `./polystill setup --test` and
`./polystill build`. With one GPU: teacher and student on it. With more: as many student workers, whose gradients NCCL
reduces. Each run is compared with the same one on the CPU, in float64: the same records, weights that differ by
rounding alone. Exit status: 0 all as it should be, 1 something is not, 2 there is no GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

REPO = Path(__file__).resolve().parent.parent
SAMPLE = "recipes/package_topics/sample.yaml"
# Sums in another order, over some hundred steps in float64.
TOLERANCE = 1e-6


def gpus() -> list[str]:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    return listed.stdout.splitlines() if listed.returncode == 0 else []


def run(output: Path, workers: int, *settings: str) -> tuple[dict[str, np.ndarray], float]:
    """The student's weights, and seconds."""
    command = ["./polystill", "run", SAMPLE, "--overwrite"]
    changes = [f"output={output}", f"student.workers={workers}", "student.dtype=float64", "baselines=[]", *settings]
    for change in changes:
        command += ["--set", change]
    start = time.monotonic()
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return load_file(output / "models" / "distilled" / "model.safetensors"), time.monotonic() - start


def apart(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The largest difference of two models' weights, by the largest weight of the tensor."""
    return max(float(np.abs(one[name] - other[name]).max() / np.abs(one[name]).max()) for name in one)


def tries(count: int) -> list[tuple[str, int, list[str]]]:
    """Name, student workers, settings."""
    on_gpu = ["student.device=cuda"]
    both = [*on_gpu, "teachers.0.device=cuda", "teachers.0.replicas=1"]
    transformer = ["student.model={kind: transformer, width: 32, layers: 2, heads: 2, dropout: 0.1}"]
    named = [
        ("student on a GPU, teachers on the CPU", 1, on_gpu),
        ("teacher and student on a GPU", 1, both),
        ("transformer with dropout on a GPU", 1, [*both, *transformer]),
    ]
    for workers in range(2, count + 1):
        named.append((f"{workers} students, NCCL", workers, both))
        named.append((f"{workers} students, transformer, NCCL", workers, [*both, *transformer]))
    return named


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, help="how many to use; all when left out")
    options = parser.parse_args()
    found = gpus()
    if not found:
        print("there is no NVIDIA GPU here: nvidia-smi -L lists none", file=sys.stderr)
        return 2
    print("\n".join(found))
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for name, workers, settings in tries(options.gpus or len(found)):
            on_cpu = [setting for setting in settings if "device" not in setting]
            try:
                expected, cpu_seconds = run(Path(folder) / "cpu", workers, *on_cpu)
                given, seconds = run(Path(folder) / "gpu", workers, *settings)
            except RuntimeError as error:
                print(f"{name}: FAILED: {error}")
                failed = True
                continue
            difference = apart(expected, given)
            passed = difference <= TOLERANCE
            failed |= not passed
            verdict = "passed" if passed else "FAILED"
            print(f"{name}: {verdict}: weights differ by {difference:.1e}; {seconds:.1f} s (CPU {cpu_seconds:.1f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
