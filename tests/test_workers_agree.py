"""Design promises 1 and 2: the records of a step and the trained weights do not depend on the number of workers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from processes import SAMPLE, Cluster
from safetensors.numpy import load_file

STEPS = 200
BATCH = 16


def write_spec(path: Path, **changes: object) -> Path:
    spec = yaml.safe_load(SAMPLE.read_text())
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        node = spec
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node[name]
        node[last] = value
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def run(folder: Path, spec: Path, workers: int, replicas: int) -> Path:
    """A whole run with processes started by hand; returns the run's folder."""
    output = folder / "run"
    with Cluster(folder, spec, [f"output={output}"]) as cluster:
        cluster.start_coordinator()
        for replica in range(replicas):
            cluster.start_teacher("english", replica)
        for worker in range(workers):
            cluster.start_student(worker, "--trace-records", str(folder / f"trace-{worker}.jsonl"))
        assert cluster.wait("coordinator") == 0, cluster.log("coordinator")
        for name in list(cluster.processes):
            assert cluster.wait(name) == 0, f"{name}:\n{cluster.log(name)}"
    return output


def steps_of(folder: Path, workers: int) -> dict[int, list[str]]:
    """Step -> record ids of the whole global batch, in rank order, of the distillation."""
    slices: dict[int, dict[int, list[str]]] = {}
    for worker in range(workers):
        for line in (folder / f"trace-{worker}.jsonl").read_text().splitlines():
            entry = json.loads(line)
            if entry["job"] != "distilled" or entry["event"] != "slice":
                continue
            digest = hashlib.sha256("\n".join(entry["ids"]).encode()).hexdigest()
            assert entry["digest"] == digest
            slices.setdefault(entry["step"], {})[entry["rank"]] = entry["ids"]
    return {step: [i for rank in sorted(parts) for i in parts[rank]] for step, parts in slices.items()}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher package, trained once for all cases."""
    folder = tmp_path_factory.mktemp("teacher")
    spec = write_spec(
        folder / "run.yaml", student__epochs=0.1, student__workers=1, teachers__0__replicas=1, baselines=[]
    )
    return run(folder, spec, workers=1, replicas=1) / "models" / "teacher-english"


def distil(folder: Path, teacher: Path, workers: int) -> tuple[dict[int, list[str]], dict[str, np.ndarray]]:
    folder.mkdir()
    spec = yaml.safe_load(SAMPLE.read_text())
    spec["teachers"][0].pop("train")
    spec["teachers"][0] |= {"package": str(teacher), "replicas": 2}
    spec["tokenizer"] |= {"path": str(teacher / "tokenizer.model")}
    spec["baselines"] = []
    spec["student"] |= {"dtype": "float64", "batch_size": BATCH, "workers": workers}
    spec["student"]["losses"][0]["codec"] = "dense_fp32"
    spec["student"]["epochs"] = STEPS * BATCH / len(records_of(spec))
    (folder / "run.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    output = run(folder, folder / "run.yaml", workers, replicas=2)
    weights = load_file(output / "models" / "distilled" / "model.safetensors")
    return steps_of(folder, workers), weights


def records_of(spec: dict[str, dict[str, dict[str, str]]]) -> dict[str, str]:
    """Id -> language of the records that the student learns from, read straight from the corpus."""
    wanted = {"split": "train"} | spec["student"]["where"]
    targets = spec["student"]["languages"]["targets"]
    records = {}
    for file in sorted(Path(SAMPLE.parent / "sample").glob("*.jsonl")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            if record["language"] in targets and all(record[key] == value for key, value in wanted.items()):
                records[record["id"]] = record["language"]
    return records


def test_records_and_weights_do_not_depend_on_the_number_of_workers(tmp_path: Path, teacher: Path) -> None:
    steps, weights = distil(tmp_path / "one", teacher, 1)
    assert sorted(steps) == list(range(STEPS))
    assert all(len(ids) == BATCH for ids in steps.values())
    for workers in (2, 3):
        other_steps, other_weights = distil(tmp_path / str(workers), teacher, workers)
        assert other_steps == steps
        assert other_weights.keys() == weights.keys()
        for name, tensor in weights.items():
            assert tensor.dtype == np.float64
            scale = np.abs(tensor).max()
            assert np.abs(other_weights[name] - tensor).max() <= 1e-9 * scale, name


def test_every_record_once_a_pass(tmp_path: Path, teacher: Path) -> None:
    steps, _ = distil(tmp_path / "two", teacher, 2)
    counts = Counter(i for step in sorted(steps) for i in steps[step])
    languages = records_of(yaml.safe_load(SAMPLE.read_text()))
    assert set(counts) == set(languages)
    by_language: dict[str, list[int]] = {}
    for record, count in counts.items():
        by_language.setdefault(languages[record], []).append(count)
    for language, seen in by_language.items():
        assert max(seen) - min(seen) <= 1, (language, Counter(seen))
