"""report.html: what is in it, that it needs nothing else, and that a run goes well without it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from polystill_report.__main__ import main
from polystill_report.page import confusion
from processes import BIN, REPO, SAMPLE
from recompute_report import recompute
from sklearn.metrics import confusion_matrix
from test_report import LABELS, write_predictions


class Headings(HTMLParser):
    """Collects the headings, and what the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.fetched: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag in ("h1", "h2")
        self.fetched += [value for key, value in attrs if key in ("src", "href") and value and value[0] != "#"]
        if tag in ("script", "link", "iframe"):
            self.fetched.append(tag)

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found.append(data.strip())
            self.inside = False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    predictions = write_predictions(tmp_path / "predictions.parquet", seed=1)
    report = {
        "run": "a <b> & c",
        "metrics": ["accuracy", "top_k"],
        "top_k": 2,
        "bootstrap": None,
        "labels": {"classes": LABELS},
        **recompute(predictions, LABELS, 2),
    }
    # A language whose records have no gold label.
    report["languages"]["ko"] = {"records": 0}
    (tmp_path / "report.json").write_text(json.dumps(report))
    return tmp_path


def change(folder: Path, **parts: object) -> None:
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**report, **parts}))


def page_of(folder: Path) -> tuple[str, Headings]:
    assert main([str(folder)]) == 0
    html = (folder / "report.html").read_text("utf-8")
    headings = Headings()
    headings.feed(html)
    return html, headings


def test_tables_and_plots(folder: Path) -> None:
    html, headings = page_of(folder)
    assert headings.found[0] == "a <b> & c"
    assert {"accuracy, %", "top-2, %", "accuracy by language", "Gain over zero_shot by language", "F1 by class"} <= set(
        headings.found
    )
    assert html.count("<svg") == 5
    report = json.loads((folder / "report.json").read_text())
    for name, scores in report["languages"].items():
        if name != "ko":
            assert f"<td>{100 * scores['distilled']['accuracy']:.1f}</td>" in html, name
    assert re.search(r"<td>ko</td><td>0</td><td>-</td>", html)
    # Equal input, equal file; and nothing else in the folder.
    assert page_of(folder)[0] == html
    assert {path.name for path in folder.iterdir()} == {"report.json", "report.html", "predictions.parquet"}


def test_it_needs_nothing_from_elsewhere(folder: Path) -> None:
    html, headings = page_of(folder)
    assert headings.fetched == []
    assert "url(http" not in html and "@import" not in html
    assert len(html) < 2_000_000


def test_ids_of_clip_paths_and_markers_are_unique(folder: Path) -> None:
    html, _ = page_of(folder)
    clips = re.findall(r'<clipPath id="([^"]+)"', html)
    assert clips and len(clips) == len(set(clips))


def test_speed(folder: Path) -> None:
    times = {"batch_1": {"forward_ms": 1.5, "text_ms": 2.25}, "batch_32": {"forward_ms": 20.0, "text_ms": 30.0}}
    fast = {"batch_1": {"forward_ms": 0.125}, "batch_32": {"forward_ms": 0.5}}
    change(
        folder,
        models={
            "teacher": {"name": "english", "parameters": 1234567, "bytes": 4938268, "latency": times},
            "student": {"name": "distilled", "parameters": None, "bytes": 77, "latency": fast},
        },
    )
    html, headings = page_of(folder)
    assert "Latency against accuracy" in headings.found
    assert "<td>1,234,567</td>" in html and "<td>2.250</td>" in html and "<td>0.125</td>" in html


def test_the_confusion_matrix_is_scikit_learns(folder: Path) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    said = [LABELS[max(range(3), key=row["distilled_probabilities"].__getitem__)] for row in rows]
    expected = confusion_matrix([row["gold"] for row in rows], said, labels=LABELS)
    assert (confusion(folder / "predictions.parquet", LABELS, "distilled") == expected).all()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda folder: (folder / "report.json").unlink(),
            "report.json: no such file; name the output folder of a run",
        ),
        (lambda folder: (folder / "report.json").write_text("{"), "report.json: is no JSON"),
        (lambda folder: (folder / "report.json").write_text("{}"), "report.json: has no run, metrics"),
        (lambda folder: (folder / "predictions.parquet").write_text("x"), "predictions.parquet: "),
        (lambda folder: change(folder, mean={"records": 1, "distilled": {}}), "not a report of this version"),
    ],
)
def test_what_is_wrong_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], break_it: object, message: str
) -> None:
    break_it(folder)  # type: ignore[operator]
    assert main([str(folder)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("polystill report: ") and message in said
    assert not (folder / "report.html").exists()


def polystill(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "polystill"), *arguments]
    variables = {**os.environ, **environment}
    return subprocess.run(command, cwd=REPO, env=variables, capture_output=True, text=True, timeout=300)


def test_the_command(folder: Path) -> None:
    result = polystill("report", str(folder))
    assert (result.returncode, result.stdout.strip()) == (0, str(folder / "report.html")), result.stderr
    assert (folder / "report.html").stat().st_size > 10_000
    result = polystill("report", str(folder / "none"))
    assert (result.returncode, result.stdout) == (1, "")
    assert f"{folder / 'none' / 'report.json'}: no such file" in result.stderr
    assert polystill("report").returncode == 2


def test_a_run_makes_it_or_says_how(tmp_path: Path) -> None:
    arguments = ("--set", "student.epochs=1", "--set", "baselines=[]", "--set", f"output={tmp_path / 'run'}")
    result = polystill("run", str(SAMPLE), *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-2:] == [str(tmp_path / "run" / name) for name in ("report.html", "report.json")]
    # A Python that has nothing installed.
    bare = shutil.which("python3", path="/usr/bin") or "python3"
    result = polystill("run", str(SAMPLE), *arguments, "--overwrite", POLYSTILL_PYTHON=bare)
    assert result.returncode == 0, result.stdout + result.stderr
    reason, path = result.stdout.splitlines()[-2:]
    assert reason.startswith("no report.html: ") and "requirements.txt" in reason
    assert reason.endswith(f"then: polystill report {tmp_path / 'run'}")
    assert path == str(tmp_path / "run" / "report.json")
    assert not (tmp_path / "run" / "report.html").exists()
