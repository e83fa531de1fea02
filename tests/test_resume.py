"""A run that is killed or stopped and resumed ends as one that nobody touched, bit for bit; and what it refuses."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from processes import BIN, REPO, SAMPLE, Cluster, wait_for_file
from safetensors.numpy import load_file

WORKERS = 3
KILLS = 5
BATCH = 16
EPOCHS = 150
RECORDS = 96  # of pool B in the targets' languages
STEPS = RECORDS * EPOCHS // BATCH
USAGE, INTERRUPTED = 2, 130

# The slices of a trace: generation -> step -> rank -> ids.
Trace = dict[int, dict[int, dict[int, list[str]]]]


def polystill(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "polystill"), *arguments], cwd=REPO, capture_output=True, text=True, timeout=timeout
    )


def said(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout + result.stderr


def write_spec(path: Path, output: Path, **student: object) -> Path:
    spec = yaml.safe_load(SAMPLE.read_text())
    spec["teachers"][0] |= {"replicas": 1}
    spec["teachers"][0]["train"] |= {"epochs": 2}
    spec["student"] |= {"workers": WORKERS, "epochs": EPOCHS, "checkpoint_every": 50} | student
    spec["baselines"] = []
    spec["output"] = str(output)
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


@dataclass
class Life:
    """The processes of one run from their start to their end or death, with the traces that they leave."""

    folder: Path
    spec: Path
    number: int

    def traces(self) -> list[Path]:
        return [self.folder / f"trace-{self.number}-{worker}.jsonl" for worker in range(WORKERS)]

    def start(self, cluster: Cluster) -> None:
        cluster.start_coordinator(*(["--resume"] if self.number > 0 else []))
        cluster.start_teacher("english")
        for worker, trace in enumerate(self.traces()):
            cluster.start_student(worker, "--trace-records", str(trace))

    def run(self) -> None:
        with Cluster(self.folder / f"life-{self.number}", self.spec) as cluster:
            self.start(cluster)
            assert cluster.wait("coordinator") == 0, cluster.log("coordinator")
            for name in list(cluster.processes):
                assert cluster.wait(name) == 0, f"{name}:\n{cluster.log(name)}"

    def run_and_kill_after(self, step: int) -> None:
        with Cluster(self.folder / f"life-{self.number}", self.spec) as cluster:
            self.start(cluster)
            deadline = time.monotonic() + 120
            while not any(self.has_applied(trace, step) for trace in self.traces()):
                assert time.monotonic() < deadline, cluster.log("coordinator")
                assert cluster.processes["coordinator"].poll() is None, cluster.log("coordinator")
                time.sleep(0.005)
            for process in cluster.processes.values():
                process.send_signal(signal.SIGKILL)

    @staticmethod
    def has_applied(trace: Path, step: int) -> bool:
        if not trace.exists():
            return False
        found = re.findall(rb'"applied","job":"distilled",.*"step":(\d+),', trace.read_bytes()[-20_000:])
        return bool(found) and int(found[-1]) >= step


def read_traces(paths: list[Path]) -> Trace:
    trace: Trace = {}
    for path in paths:
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the process was killed while it wrote
            if entry["job"] == "distilled" and entry["event"] == "slice":
                trace.setdefault(entry["generation"], {}).setdefault(entry["step"], {})[entry["rank"]] = entry["ids"]
    return trace


def surviving(trace: Trace, starts: dict[int, int]) -> dict[int, list[str]]:
    """Step -> ids of its batch, on the lineage: each generation from its first step to where the next one began."""
    steps: dict[int, list[str]] = {}
    generations = sorted(starts)
    for generation, following in zip(generations, [*generations[1:], None], strict=True):
        end = STEPS if following is None else starts[following]
        for step in range(starts[generation], end):
            parts = trace[generation][step]
            assert sorted(parts) == list(range(WORKERS)), (generation, step, sorted(parts))
            assert step not in steps
            steps[step] = [i for rank in sorted(parts) for i in parts[rank]]
    return steps


def weights(output: Path) -> dict[str, np.ndarray]:
    return load_file(output / "models" / "distilled" / "model.safetensors")


def digests_of(output: Path) -> dict[str, str]:
    with sqlite3.connect(f"file:{output / 'coordinator.sqlite'}?mode=ro", uri=True) as state:
        return dict(state.execute("SELECT job, weights_digest FROM finished_jobs"))


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def admitted(output: Path) -> list[Path]:
    """The checkpoints of the distillation that count, by step."""
    with sqlite3.connect(f"file:{output / 'coordinator.sqlite'}?mode=ro", uri=True) as state:
        paths = state.execute("SELECT path FROM checkpoints WHERE job = 'distilled' ORDER BY step")
        return [Path(path) for (path,) in paths]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    Life(folder, write_spec(folder / "run.yaml", folder / "run"), 0).run()
    return folder


def test_killed_at_five_random_steps_it_ends_bit_equal(unbroken: Path, tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "run.yaml", tmp_path / "run")
    random_steps = random.Random(20261121)
    step = 0
    lives = [Life(tmp_path, spec, number) for number in range(KILLS + 1)]
    for life in lives[:-1]:
        step += random_steps.randrange(30, STEPS // (KILLS + 1))
        life.run_and_kill_after(step)
    lives[-1].run()

    output = tmp_path / "run"
    assert digests_of(output) == digests_of(unbroken / "run")
    expected = weights(unbroken / "run")
    for name, tensor in weights(output).items():
        assert tensor.tobytes() == expected[name].tobytes(), name
    assert (output / "predictions.parquet").read_bytes() == (unbroken / "run" / "predictions.parquet").read_bytes()

    trace = read_traces([path for life in lives for path in life.traces() if path.exists()])
    starts = {generation: min(steps) for generation, steps in trace.items()}
    assert min(starts.values()) == 0
    assert len(starts) > KILLS - 1, starts
    assert all(start % 50 == 0 for start in starts.values()), starts
    steps = surviving(trace, starts)
    plain = read_traces(Life(unbroken, spec, 0).traces())
    assert len(plain) == 1
    assert steps == surviving(plain, {generation: 0 for generation in plain})

    # What the report counts, it counts once.
    report = json.loads((output / "report.json").read_text())
    reference = json.loads((unbroken / "run" / "report.json").read_text())
    assert report["labels"] == reference["labels"]
    assert report["labels"]["count"] == RECORDS * EPOCHS
    assert report["mean"] == reference["mean"]
    kept = list((output / "checkpoints" / "distilled").iterdir())
    assert kept == admitted(output)
    assert step_of(kept[0]) == STEPS

    # A package that is damaged later is made again from the checkpoint that stayed.
    model = output / "models" / "distilled" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    (output / "report.json").unlink()
    result = polystill("run", str(spec), "--resume")
    assert result.returncode == 0, said(result)
    assert "its package is damaged" in (output / "logs" / "coordinator.log").read_text()
    assert weights(output).keys() == expected.keys()
    assert all(tensor.tobytes() == expected[name].tobytes() for name, tensor in weights(output).items())
    assert json.loads((output / "report.json").read_text())["labels"] == reference["labels"]


def running_command(spec: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(BIN / "polystill"), "run", str(spec), *arguments],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def status_of(output: Path) -> dict[str, Any]:
    result = polystill("status", str(output), "--json")
    assert result.returncode == 0, said(result)
    status: dict[str, Any] = json.loads(result.stdout)
    return status


def wait_for_step(process: subprocess.Popen[str], output: Path, step: int) -> None:
    wait_for_file(output / "coordinator.address", process)  # type: ignore[arg-type]
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        status = status_of(output)
        stages = {stage["name"]: stage for stage in status["stages"]}
        if int(stages["distilled"]["done"]) >= step:
            return


def wait_for_rate(output: Path) -> subprocess.CompletedProcess[str]:
    """Status gives a rate only after a while: that of a stage's first moments says nothing."""
    deadline = time.monotonic() + 60
    while True:
        text = polystill("status", str(output))
        if "records/s" in text.stdout:
            return text
        assert time.monotonic() < deadline, said(text)
        time.sleep(0.1)


def test_status_stop_and_ctrl_c(unbroken: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    # So long that it is certainly under way; what can be compared is that it goes on.
    # Without periodic checkpoints, those that are there are of the stops.
    spec = write_spec(tmp_path / "run.yaml", output, epochs=1e5, checkpoint_every=0)
    process = running_command(spec)
    wait_for_step(process, output, 20)
    again = polystill("run", str(spec), "--resume")
    assert again.returncode != 0
    assert "another run" in said(again)
    text = wait_for_rate(output)
    assert "package-topics-sample: running" in text.stdout, said(text)

    stopped = polystill("stop", str(output))
    assert stopped.returncode == 0, said(stopped)
    assert "stopped by polystill stop" in stopped.stdout and "--resume" in stopped.stdout
    assert process.wait(30) == INTERRUPTED
    assert "--resume" in process.communicate()[0]
    status = status_of(output)
    assert status["state"] == "STATE_STOPPED"
    folders = sorted((output / "checkpoints" / "distilled").iterdir())
    first = step_of(folders[-1])
    assert first >= 20
    assert polystill("stop", str(output)).returncode == 1

    process = running_command(spec, "--resume")
    wait_for_step(process, output, first + 20)
    process.send_signal(signal.SIGINT)
    output_text = process.communicate(timeout=60)[0]
    assert process.returncode == INTERRUPTED, output_text
    assert f"go on with: polystill run {spec} --resume" in output_text
    last = sorted((output / "checkpoints" / "distilled").iterdir())[-1]
    assert step_of(last) >= first + 20

    # Its newest checkpoint is torn now: the one before is taken, aloud.
    model = last / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    process = running_command(spec, "--resume", "--set", "student.workers=2")
    wait_for_step(process, output, first + 1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    log = (output / "logs" / "coordinator.log").read_text()
    assert f"passing over the checkpoint of step {step_of(last)}" in log
    assert str(model) in log

    # Its newest is whole, but another than what was admitted.
    older, newest = admitted(output)[-2:]
    shutil.rmtree(newest)
    shutil.copytree(older, newest)
    process = running_command(spec, "--resume")
    wait_for_step(process, output, first + 1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    log = (output / "logs" / "coordinator.log").read_text()
    assert f"{newest}: has step {step_of(older)}, admitted was" in log


def start_coordinator(spec: Path, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(
            [str(BIN / "polystill-coordinator"), "--spec", str(spec), *arguments], cwd=REPO, stdout=out, stderr=out
        )


def test_a_killed_runs_address_does_not_lead_to_another_run(tmp_path: Path) -> None:
    killed, other = tmp_path / "killed", tmp_path / "other"
    for output in (killed, other):
        write_spec(tmp_path / f"{output.name}.yaml", output)
    process = start_coordinator(tmp_path / "killed.yaml", tmp_path / "killed.log")
    address = wait_for_file(killed / "coordinator.address", process).split()[0]
    process.kill()
    process.wait(10)
    process = start_coordinator(tmp_path / "other.yaml", tmp_path / "other.log", "--listen", address)
    try:
        wait_for_file(other / "coordinator.address", process)
        status = polystill("status", str(killed))
        assert "its coordinator is gone without a word" in status.stdout, said(status)
        stopped = polystill("stop", str(killed))
        assert stopped.returncode == 1, said(stopped)
        assert f"{killed}: no run is under way here" in stopped.stderr
        assert status_of(other)["state"] == "STATE_RUNNING"
        assert polystill("stop", str(other)).returncode == 0
        process.wait(30)
    finally:
        process.kill()
        process.wait(10)


def test_a_done_run_shows_its_table(unbroken: Path) -> None:
    before = (unbroken / "run" / "report.json").stat().st_mtime_ns
    result = polystill("run", str(unbroken / "run.yaml"), "--resume")
    assert result.returncode == 0, said(result)
    assert "done already" in result.stdout
    assert result.stdout.splitlines()[-1] == str(unbroken / "run" / "report.json")
    assert (unbroken / "run" / "report.json").stat().st_mtime_ns == before
    coordinator = subprocess.run(
        [BIN / "polystill-coordinator", "--spec", unbroken / "run.yaml", "--resume"],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert coordinator.returncode == 0, coordinator.stderr


def test_dry_run_says_what_the_run_did_and_writes_nothing(unbroken: Path, tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "run.yaml", tmp_path / "run")
    result = polystill("run", str(spec), "--dry-run")
    assert result.returncode == 0, said(result)
    report = json.loads((unbroken / "run" / "report.json").read_text())
    steps = {job: int(count) for job, count in re.findall(r"^(\S+): (\d+) steps of", result.stdout, re.MULTILINE)}
    assert steps == {job: taken["planned"] for job, taken in report["steps"].items()}
    for language in ("de", "fr", "es", "ja"):
        assert re.search(rf"^  {language} +24 records +{EPOCHS}\.00 passes$", result.stdout, re.MULTILINE), (
            result.stdout
        )
    # Dense fp16 of four classes, without the envelope that the report counts.
    assert f"soft labels: {RECORDS * EPOCHS * 4 * 2 / 1000:.1f} KB" in result.stdout
    assert f"1 coordinator, 1 teacher servers, {WORKERS} student workers" in result.stdout
    assert not (tmp_path / "run").exists()
    wrong = polystill("run", str(spec), "--dry-run", "--set", "student.epoch=1")
    assert wrong.returncode == USAGE


def test_nothing_to_resume(tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "run.yaml", tmp_path / "run")
    result = polystill("run", str(spec), "--resume")
    assert result.returncode == USAGE
    assert "no run to resume" in said(result) and str(tmp_path / "run") in said(result)
    assert not (tmp_path / "run").exists()


def test_another_run_file_is_refused_by_its_keys(unbroken: Path) -> None:
    spec = str(unbroken / "run.yaml")
    result = polystill("run", spec, "--resume", "--set", "student.optimizer.lr=0.5", "--set", "student.workers=1")
    assert result.returncode == USAGE
    assert "another student.optimizer.lr;" in said(result)


def test_another_corpus_is_refused(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(SAMPLE.parent / "sample", corpus)
    output = tmp_path / "run"
    spec = write_spec(tmp_path / "run.yaml", output, epochs=1e5)
    process = running_command(spec, "--set", f"corpus.path={corpus}")
    wait_for_step(process, output, 1)
    assert polystill("stop", str(output)).returncode == 0
    process.wait(60)
    file = sorted(corpus.glob("*.jsonl"))[0]
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[1:], lines[0]]) + "\n")
    result = polystill("run", str(spec), "--set", f"corpus.path={corpus}", "--resume")
    assert result.returncode == 1, said(result)
    assert "the corpus has changed" in said(result)


def test_another_teacher_or_tokenizer_is_refused(sample_run: Path, tmp_path: Path) -> None:
    package = tmp_path / "english"
    shutil.copytree(sample_run / "models" / "teacher-english", package)
    tokenizer = tmp_path / "my.model"
    shutil.copy(package / "tokenizer.model", tokenizer)
    output = tmp_path / "run"
    path = write_spec(tmp_path / "run.yaml", output, epochs=1e5, workers=1)
    spec = yaml.safe_load(path.read_text())
    spec["tokenizer"]["path"] = str(tokenizer)
    spec["teachers"] = [{"name": "english", "package": str(package), "reads": "source_text"}]
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    process = running_command(path)
    wait_for_step(process, output, 1)
    assert polystill("stop", str(output)).returncode == 0
    process.wait(60)
    for key, file in (("teachers.0.package", package / "teacher.yaml"), ("tokenizer.path", tokenizer)):
        before = file.read_bytes()
        file.write_bytes(before + b"\n")
        result = polystill("run", str(path), "--resume")
        assert result.returncode == 1, said(result)
        assert re.search(rf"{key}: \S+ has changed since the run began.* distilled is still", said(result)), said(
            result
        )
        file.write_bytes(before)
    step = step_of(sorted((output / "checkpoints" / "distilled").iterdir())[-1])
    process = running_command(path, "--resume")
    wait_for_step(process, output, step + 1)
    assert polystill("stop", str(output)).returncode == 0
    process.wait(60)
