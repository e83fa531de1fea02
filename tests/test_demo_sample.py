"""A whole run on the committed sample, by real processes: its table, its report, what it may read, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import BIN, REPO, SAMPLE
from recompute_report import check, outside

from recipes.package_topics import compare

LANGUAGES = {"de", "fr", "es", "ja"}
MODELS = {"zero_shot", "no_teacher", "pseudo_label", "distilled", "gold", "gold_all"}
METRICS = {"accuracy", "macro_f1", "micro_f1", "macro_precision", "macro_recall", "top_k"}
CORPUS = REPO / "recipes" / "package_topics" / "sample"
INTERRUPTED = 130


@dataclass
class Finished:
    output: Path
    stdout: str

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.output / "report.json").read_text())
        return report

    def package(self, name: str) -> dict[str, bytes]:
        folder = self.output / "models" / name
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert files, f"{folder} is empty"
        return files


def run(spec: Path, output: Path, *arguments: str) -> Finished:
    command = [str(BIN / "polystill"), "run", str(spec), "--set", f"output={output}", *arguments]
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return Finished(output, result.stdout)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run(SAMPLE, tmp_path_factory.mktemp("sample") / "run")


def test_the_table_has_a_row_for_each_language(finished: Finished) -> None:
    lines = finished.stdout.splitlines()
    assert Path(lines[-1].strip()).resolve() == (finished.output / "report.json").resolve()
    rows: dict[str, str] = {}
    for line in filter(str.strip, lines):
        name = line.split()[0]
        rows[name] = rows.get(name, "") + line  # one table a metric: six models do not fit side by side
    for name, scores in [*finished.report["languages"].items(), ("mean", finished.report["mean"])]:
        for model in MODELS:
            assert f"{100 * scores[model]['accuracy']:.1f}" in rows[name], (name, model, finished.stdout)
    assert all(model in finished.stdout for model in MODELS)


def test_the_report(finished: Finished) -> None:
    report = finished.report
    assert report["run"] == "package-topics-sample"
    assert set(report["languages"]) == LANGUAGES
    for scores in [*report["languages"].values(), report["mean"]]:
        assert set(scores) == MODELS | {"records"}
        assert all(set(scores[model]) == METRICS | {"intervals", "classes"} for model in MODELS)
        assert all(set(scores[model]["intervals"]) == METRICS for model in MODELS)
    assert set(report["differences"]) == MODELS - {"distilled"}
    assert (report["metrics"], report["top_k"]) == (["accuracy", "macro_f1"], 3)
    assert report["bootstrap"]["resamples"] == 1000
    assert report["mean"]["records"] == sum(scores["records"] for scores in report["languages"].values()) == 48
    assert report["labels"]["classes"] == ["net", "games", "av", "graphics"]
    assert report["labels"]["codec"] == "dense_fp16"
    # 96 records of pool B, 20 times each, in steps of 16.
    assert report["labels"]["count"] == 96 * 20
    assert report["labels"]["bytes"] >= 96 * 20 * 4 * 2
    assert report["teacher"]["name"] == "english"
    assert report["teacher"]["reads"] == "source_text"
    assert (report["student"]["reads"], report["student"]["workers"]) == ("text", 2)
    for model in ("teacher", "student"):
        assert len(report[model]["digest"]) == 64
        assert report[model]["parameters"] > 800 * 32
    assert {Path(file["path"]).name for file in report["corpus"]["files"]} == {
        path.name for path in CORPUS.glob("*.jsonl")
    }
    assert {"index", "tokenizer", "teacher:english", "evaluate"} | MODELS - {"zero_shot"} <= set(report["seconds"])


def test_what_teacher_and_student_take(finished: Finished) -> None:
    models = finished.report["models"]
    for role, package in (("teacher", "teacher-english"), ("student", "distilled")):
        assert models[role]["bytes"] == sum(map(len, finished.package(package).values()))
        assert models[role]["parameters"] == finished.report[role]["parameters"]
        for batch in ("batch_1", "batch_32"):
            times = models[role]["latency"][batch]
            assert set(times) == {"forward_ms", "text_ms"}
            assert all(0 < milliseconds < 1000 for milliseconds in times.values())
        assert any(line.startswith(f"{role}   ") and "one text" in line for line in finished.stdout.splitlines())
    slow, fast = (models[role]["latency"]["batch_32"]["text_ms"] for role in ("teacher", "student"))
    assert models["speedup"]["batch_32"]["text"] == pytest.approx(slow / fast)


def test_the_report_agrees_with_the_predictions(finished: Finished) -> None:
    assert check(finished.output) == []


def test_the_intervals_agree_with_the_recipes_comparison(finished: Finished) -> None:
    data = compare.tally([compare.read_run(finished.output / "predictions.parquet")])
    drawn = compare.resampled_scores(data, resamples=4000, seed=5)[:, :, :, 0]
    for row, language in enumerate([*data.languages, "mean"]):
        scores = finished.report["mean"] if language == "mean" else finished.report["languages"][language]
        for column, model in enumerate(data.models):
            assert outside(language, scores[model]["intervals"]["accuracy"], drawn[row, :, column]) == []


def test_the_student_learns_from_the_teacher(finished: Finished) -> None:
    mean = finished.report["mean"]
    chance = 1 / 4
    assert mean["distilled"]["accuracy"] > 0.7
    assert mean["distilled"]["accuracy"] > mean["no_teacher"]["accuracy"] + chance
    assert mean["gold"]["accuracy"] > 0.8


def test_every_role_ran_as_processes_of_its_own(finished: Finished) -> None:
    logs = {path.name for path in (finished.output / "logs").iterdir()}
    assert len([name for name in logs if "teacher" in name]) == 2, logs
    assert len([name for name in logs if "student" in name]) == 2, logs
    assert len([name for name in logs if "coordinator" in name]) == 1, logs


def test_a_run_repeats_bit_for_bit(finished: Finished, tmp_path: Path) -> None:
    again = run(SAMPLE, tmp_path / "run")
    for model in ("teacher-english", *sorted(MODELS - {"zero_shot"})):
        assert again.package(model) == finished.package(model), model
    assert (again.output / "predictions.parquet").read_bytes() == (finished.output / "predictions.parquet").read_bytes()


def relabelled(folder: Path, change: Callable[[str], str | None]) -> Path:
    """The sample with other labels for every record of pool B; none of them is English."""
    folder.mkdir()
    changed = 0
    for path in sorted(CORPUS.glob("*.jsonl")):
        records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for record in records:
            if record["pool"] == "B":
                record["label"] = change(record["label"])
                changed += 1
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (folder / path.name).write_text(text, "utf-8")
    assert changed == 96
    return folder


def spec_with(path: Path, corpus: Path, baselines: list[str]) -> Path:
    spec = yaml.safe_load(SAMPLE.read_text())
    spec["corpus"]["path"] = str(corpus)
    spec["baselines"] = baselines
    path.write_text(yaml.safe_dump(spec))
    return path


def test_no_gold_label_of_a_target_language_is_read(finished: Finished, tmp_path: Path) -> None:
    labels = ["net", "games", "av", "graphics"]
    swapped = relabelled(tmp_path / "swapped", lambda label: labels[(labels.index(label) + 1) % len(labels)])
    wrong = run(spec_with(tmp_path / "swapped.yaml", swapped, ["pseudo_label", "gold", "gold_all"]), tmp_path / "wrong")
    absent = relabelled(tmp_path / "absent", lambda _: None)
    without = run(spec_with(tmp_path / "absent.yaml", absent, ["pseudo_label"]), tmp_path / "without")
    for other in (wrong, without):
        for model, role in (("teacher-english", "teacher"), ("distilled", "student")):
            assert other.package(model) == finished.package(model)
            assert other.report[role]["digest"] == finished.report[role]["digest"]
        assert other.package("pseudo_label") == finished.package("pseudo_label")
        assert other.report["mean"]["distilled"] == finished.report["mean"]["distilled"]
    # The references that do read them learn the wrong ones: the change was there to be seen.
    for reference in ("gold", "gold_all"):
        assert wrong.package(reference) != finished.package(reference)
    assert wrong.report["mean"]["gold"]["accuracy"] < 0.3


def marked_processes(mark: str) -> list[str]:
    """Command lines of the processes that have `mark` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it ended, or is not ours
    return found


@pytest.mark.parametrize("whole_group", [False, True], ids=["command", "terminal"])
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, whole_group: bool) -> None:
    mark = uuid.uuid4().hex
    output = tmp_path / "run"
    command = [str(BIN / "polystill"), "run", str(SAMPLE), "--set", f"output={output}", "--set", "student.epochs=1e6"]
    process = subprocess.Popen(
        command,
        cwd=REPO,
        env={**os.environ, "POLYSTILL_TEST_MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (output / "models" / "teacher-english").exists():  # then the distillation begins
            assert process.poll() is None, process.communicate()[0].decode()
            assert time.monotonic() < deadline, "the teacher was not trained in time"
            time.sleep(0.05)
        assert len(marked_processes(mark)) == 1 + 1 + 2 + 2
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
        said = process.communicate(timeout=30)[0].decode()
        assert process.returncode == INTERRUPTED, said
        assert marked_processes(mark) == []
        assert not (output / "report.json").exists()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
