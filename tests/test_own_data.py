"""docs/own_data.md as a reader follows it: its run file, its changes to it and its commands, on a corpus made here."""

from __future__ import annotations

import json
import random
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from processes import BIN, REPO, wait_for_text

PAGE = (REPO / "docs" / "own_data.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.strip()]
LANGUAGES = ["en", "de", "fr", "it"]
RECORDS = 300
CHANCE = 1 / 4


def yaml_block(title: str) -> dict[str, Any]:
    """The one YAML block of the page whose first line ends with `title`."""
    found = [text for kind, text in BLOCKS if kind == "yaml" and text.splitlines()[0].endswith(title)]
    assert len(found) == 1, f"{len(found)} YAML blocks of the page begin with {title!r}"
    read: dict[str, Any] = yaml.safe_load(found[0])
    return read


RUN_FILE = yaml_block("# messages.yaml")
LABELS: list[str] = RUN_FILE["corpus"]["labels"]
TARGETS: list[str] = RUN_FILE["student"]["languages"]["targets"]


def made_up_words(rng: random.Random, count: int) -> list[str]:
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words: set[str] = set()
    while len(words) < count:
        words.add("".join(rng.choices(syllables, k=rng.randint(2, 4))))
    return sorted(words)


class Corpus:
    """Texts of words that each label has of its own, between words of all; every language has other words for them."""

    def __init__(self) -> None:
        self.rng = random.Random(17)
        self.words = {language: made_up_words(self.rng, 400) for language in LANGUAGES}
        for words in self.words.values():
            self.rng.shuffle(words)

    def meaning(self, label: int) -> list[int]:
        own = self.rng.choices(range(label * 20, label * 20 + 20), k=5)
        meaning = own + self.rng.choices(range(20 * len(LABELS), 400), k=5)
        self.rng.shuffle(meaning)
        return meaning

    def text(self, language: str, meaning: list[int]) -> str:
        return " ".join(self.words[language][word] for word in meaning)

    def record(self, language: str, number: int) -> dict[str, str]:
        label = number % len(LABELS)
        meaning = self.meaning(label)
        return {
            "uid": f"{language}-{number}",
            "lang": language,
            "part": "test" if number < RECORDS // 4 else "train",
            "body": self.text(language, meaning),
            "english": self.text("en", meaning),
            "category": LABELS[label],
        }


def write(path: Path, records: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")


def hide_labels(records: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: value for key, value in record.items() if key != "category"} for record in records]


def polystill(folder: Path, command: str) -> str:
    program, *arguments = shlex.split(command, comments=True)
    assert program == "./polystill"
    done = subprocess.run([BIN / "polystill", *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def changed(run_file: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    both = run_file.keys() & change.keys()
    merged = {key: changed(run_file[key], change[key]) for key in both if isinstance(change[key], dict)}
    return run_file | change | merged


def run_changed(folder: Path, change: dict[str, Any], **corpus: str) -> dict[str, Any]:
    """Runs messages.yaml with the keys of `change` in place of its own; the report."""
    run_file = changed(RUN_FILE, change)
    run_file["corpus"] = run_file["corpus"] | corpus
    (folder / "changed.yaml").write_text(yaml.safe_dump(run_file))
    polystill(folder, "./polystill run changed.yaml --dry-run")
    polystill(folder, "./polystill run changed.yaml")
    report: dict[str, Any] = json.loads((folder / "runs" / run_file["name"] / "report.json").read_text())
    return report


@pytest.fixture(scope="module")
def records() -> dict[str, list[dict[str, str]]]:
    corpus = Corpus()
    return {language: [corpus.record(language, i) for i in range(RECORDS)] for language in LANGUAGES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, records: dict[str, list[dict[str, str]]]) -> Path:
    """Where the reader stands, after every command up to `export`. Training records but the English have no label."""
    folder = tmp_path_factory.mktemp("own-data")
    for language, rows in records.items():
        test = [row for row in rows if row["part"] == "test"]
        train = [row for row in rows if row["part"] == "train"]
        write(folder / "data" / "messages" / f"{language}-test.jsonl", test)
        write(folder / "data" / "messages" / f"{language}.jsonl", train if language == "en" else hide_labels(train))
    write(folder / "new.jsonl", hide_labels([row for row in records["fr"] if row["part"] == "test"]))
    (folder / "messages.yaml").write_text(yaml.safe_dump(RUN_FILE))
    once = [command for command in COMMANDS if not command.startswith("./polystill teacher ")]
    assert len(once) == len(COMMANDS) - 1
    for command in once:
        said = polystill(folder, command)
        assert said or "export" in command or "--file" in command, command
    return folder


def test_the_pages_records_have_the_columns_of_its_run_file() -> None:
    shown = [json.loads(line) for kind, text in BLOCKS if kind == "json" for line in text.splitlines()]
    columns = RUN_FILE["corpus"]["columns"]
    assert len(shown) >= 3
    for record in shown:
        assert set(record) | {columns["label"]} == set(columns.values())
        assert record.get(columns["label"], LABELS[0]) in LABELS
    rows = {
        row.split("|")[1].strip().strip("`"): row.split("|")[2].strip().strip("`")
        for row in PAGE.splitlines()
        if row.startswith("| `")
    }
    assert {role: rows[role] for role in columns} == columns


def test_the_student_learns_what_nobody_labelled(folder: Path) -> None:
    report = json.loads((folder / "runs" / "messages" / "report.json").read_text())
    assert set(report["languages"]) == set(TARGETS)
    for language in TARGETS:
        scores = report["languages"][language]
        assert scores["records"] == RECORDS // 4
        assert scores["distilled"]["accuracy"] > 0.85, language
        assert scores["zero_shot"]["accuracy"] < 2 * CHANCE, language  # the words have nothing in common
    assert set(report["mean"]) == {"records", "zero_shot", "no_teacher", "distilled"}


def test_predictions_of_a_file(folder: Path, records: dict[str, list[dict[str, str]]]) -> None:
    asked = [json.loads(line) for line in (folder / "new.jsonl").read_text("utf-8").splitlines()]
    labelled = [json.loads(line) for line in (folder / "labelled.jsonl").read_text("utf-8").splitlines()]
    gold = {row["uid"]: row["category"] for row in records["fr"]}
    assert len(labelled) == len(asked) == RECORDS // 4
    for before, after in zip(asked, labelled, strict=True):
        assert {key: after[key] for key in before} == before
        assert after["prediction"] == LABELS[after["probabilities"].index(max(after["probabilities"]))]
    right = sum(row["prediction"] == gold[row["uid"]] for row in labelled)
    assert right > 0.85 * len(labelled)


def test_the_export_is_a_module(folder: Path) -> None:
    module = torch.jit.load(str(folder / "student.pt"))
    logits = module(torch.tensor([[5, 9]]), torch.tensor([[True, True]]))
    assert logits.shape == (1, len(LABELS))


def test_a_teachers_package(folder: Path) -> None:
    report = run_changed(folder, yaml_block(": a package"))
    first = json.loads((folder / "runs" / "messages" / "report.json").read_text())
    assert report["teacher"]["digest"] == first["teacher"]["digest"]
    assert report["mean"]["distilled"]["accuracy"] > 0.85
    assert "teacher:english" not in report["seconds"]


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """The page's teacher server, on a port that is free; its address."""
    (command,) = [command for command in COMMANDS if command.startswith("./polystill teacher ")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = shlex.split(command.replace("127.0.0.1:7070", address))[1:]
    with (folder / "teacher.log").open("w") as log:
        process = subprocess.Popen([BIN / "polystill", *arguments], cwd=folder, stdout=log, stderr=log, text=True)
    try:
        wait_for_text(folder / "teacher.log", "serving teacher 'english'", process)
        yield address
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_a_teacher_server(folder: Path, server: str) -> None:
    change = yaml_block(": a server")
    assert change["teachers"][0]["address"] == "127.0.0.1:7070"
    change["teachers"][0]["address"] = server
    report = run_changed(folder, change)
    assert report["mean"]["distilled"]["accuracy"] > 0.85


def test_a_label_store(folder: Path) -> None:
    report = run_changed(folder, yaml_block(": a store"))
    assert report["mean"]["distilled"]["accuracy"] > 0.85
    assert not list((folder / "runs" / "stored" / "logs").glob("teacher-*"))


def test_labels_in_english_only(folder: Path, records: dict[str, list[dict[str, str]]]) -> None:
    for language, rows in records.items():
        write(folder / "data" / "unlabelled" / f"{language}.jsonl", rows if language == "en" else hide_labels(rows))
    report = run_changed(folder, yaml_block(": labels in English only"), path="data/unlabelled")
    assert set(report["languages"]) == {"en"}
    assert report["mean"]["distilled"]["accuracy"] > 0.85
    command = "./polystill predict --student runs/unlabelled --file new.jsonl --text-column body --out unlabelled.jsonl"
    polystill(folder, command)
    gold = {row["uid"]: row["category"] for row in records["fr"]}
    labelled = [json.loads(line) for line in (folder / "unlabelled.jsonl").read_text("utf-8").splitlines()]
    assert sum(row["prediction"] == gold[row["uid"]] for row in labelled) > 0.85 * len(labelled)


def test_no_parallel_text(folder: Path, records: dict[str, list[dict[str, str]]]) -> None:
    for language, rows in records.items():
        alone = [{key: value for key, value in row.items() if key != "english"} for row in rows]
        write(folder / "data" / "alone" / f"{language}.jsonl", alone)
    report = run_changed(folder, yaml_block(": no parallel text"), path="data/alone")
    assert set(report["languages"]) == set(TARGETS)
    assert report["mean"]["distilled"]["accuracy"] > 0.85
    assert report["student"]["parameters"] < report["teacher"]["parameters"] / 8


def test_every_yaml_block_is_tried() -> None:
    tried = [
        "# messages.yaml",
        ": a package",
        ": a server",
        ": a store",
        ": labels in English only",
        ": no parallel text",
    ]
    assert [text.splitlines()[0].split("same keys")[-1] for kind, text in BLOCKS if kind == "yaml"] == tried
