"""`pip install ./python`: the package works without the source tree, and brings its programs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import REPO
from teacher_packages import serving, write_package

ASK = """
import sys, polystill, polystill_report.page
print(polystill.__file__)
with polystill.TeacherClient(sys.argv[1]) as teacher:
    print(teacher.label(["a text"])["logits"].shape)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pip installs a copy of the tree, which is gone afterwards; what it depends on is here already."""
    tree, target = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("installed")
    for folder in ("python", "proto"):
        shutil.copytree(
            REPO / folder, tree / folder, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        )
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *flags, "--target", str(target), str(tree / "python")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(tree)
    return target


def test_the_client_asks_a_server(installed: Path, tmp_path: Path) -> None:
    with serving(write_package(tmp_path / "package", "subword_bag", "binary"), tmp_path / "serve") as address:
        words = [sys.executable, "-c", ASK, address]
        environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where, shape = done.stdout.splitlines()
    assert Path(where).parent.parent == installed
    assert shape == "(1, 1)"


@pytest.mark.parametrize("program", ["polystill-export", "polystill-tokenize"])
def test_its_programs_start(installed: Path, program: str, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"}
    words = [str(installed / "bin" / program), "--help"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"\nexamples:\n  {program} " in done.stdout
    assert "exit codes: 0 fine, 1 failed" in done.stdout


def test_types_and_the_page_are_there(installed: Path) -> None:
    for file in (
        "polystill/py.typed",
        "polystill/v1/teacher_pb2.py",
        "polystill/open_inference/grpc_service_pb2.py",
        "polystill_report/page.html.j2",
    ):
        assert (installed / file).is_file(), file


def test_versions_agree() -> None:
    import tomllib

    projects = [
        tomllib.loads((REPO / file).read_text())["project"] for file in ("python/pyproject.toml", "pyproject.toml")
    ]
    assert projects[0]["version"] == projects[1]["version"]
