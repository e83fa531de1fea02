"""./polystill, the script at the top: its usage, its messages when a step fails, and the summary of the tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=environment or None, capture_output=True, text=True, timeout=60)


def test_help_from_any_folder(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(REPO / "polystill")
    for words in ([REPO / "polystill", "--help"], [link, "help"], [link]):
        result = run(*words, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "demo [--sample] [--seed N]" in result.stdout


@pytest.mark.parametrize(("words", "named"), [(["--samples"], "--samples"), (["--seed", "x"], "--seed")])
def test_wrong_options_of_demo(words: list[str], named: str, tmp_path: Path) -> None:
    result = run(REPO / "polystill", "demo", *words, cwd=tmp_path)
    assert result.returncode == 2
    assert named in result.stderr


@pytest.fixture
def bare_tree(tmp_path: Path) -> Path:
    """A source tree where nothing is set up, and a bin/ whose dpkg-query knows every package."""
    for name in ("polystill", "requirements.txt", "requirements-test.txt"):
        shutil.copy(REPO / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    program(tmp_path, "dpkg-query", 'shift 3; printf "ii %s\\n" "$@"')
    program(tmp_path, "apt-get", "echo 'E: not in a test'; exit 100")
    return tmp_path


def program(tree: Path, name: str, script: str) -> None:
    path = tree / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def setup(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(tree / "polystill", "setup", *words, cwd=tree, PATH=f"{tree}/bin:/usr/bin:/bin", HOME=str(tree))


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("Temporary failure in name resolution", "the network did not answer"),
    ],
)
def test_a_failed_step_is_named_with_its_remedy(bare_tree: Path, output: str, remedy: str) -> None:
    program(bare_tree, "python3", f"echo '{output}'; exit 1")
    for _ in range(2):  # a failed step leaves nothing that makes the next call skip it
        result = setup(bare_tree)
        assert result.returncode == 1
        assert output in result.stderr
        assert "failed: Installing Python packages" in result.stderr
        assert remedy in result.stderr


def test_missing_packages_are_installed_by_name(bare_tree: Path) -> None:
    program(bare_tree, "dpkg-query", 'shift 3; printf "ii %s\\n" "$@" | grep -v -e "g++" -e ninja; exit 1')
    program(bare_tree, "id", "echo 0")
    program(bare_tree, "apt-get", f'echo "$*" >> {bare_tree}/calls')
    program(bare_tree, "python3", "exit 1")
    setup(bare_tree)
    assert (bare_tree / "calls").read_text().splitlines()[-1].split()[-2:] == ["g++", "ninja-build"]


def test_steps_run_once_for_the_same_inputs(bare_tree: Path) -> None:
    calls = bare_tree / "calls"
    environment = bare_tree / "bin" / "environment"
    program(bare_tree, "environment", f'echo "pip $1" >> {calls}')
    program(
        bare_tree, "python3", f"mkdir -p .venv/bin; cp {environment} .venv/bin/pip; ln -sf /bin/true .venv/bin/python"
    )
    program(bare_tree, "sha256sum", 'case "$*" in *check*) cat >/dev/null;; *) exec /usr/bin/sha256sum "$@";; esac')
    program(bare_tree, "tar", "exit 0")
    library = ".deps/sentencepiece/lib/libsentencepiece.a"
    program(bare_tree, "cmake", f'echo "cmake $1" >> {calls}; mkdir -p $(dirname {library}); touch {library}')
    once = ["pip install", "pip download", "cmake -S", "cmake --build"]
    for changed, expected in ((False, once), (False, once), (True, [*once, "pip install"])):
        if changed:
            with (bare_tree / "requirements.txt").open("a") as requirements:
                requirements.write("# more\n")
        result = setup(bare_tree)
        assert result.returncode == 0, result.stderr
        assert calls.read_text().splitlines() == expected
    calls.unlink()
    for product, again in ((".venv", once[:1]), (".deps", once[1:])):  # a step whose product is gone is done again
        shutil.rmtree(bare_tree / product)
        result = setup(bare_tree)
        assert result.returncode == 0, result.stderr
        assert calls.read_text().splitlines() == again
        calls.unlink()


@pytest.mark.parametrize(
    ("words", "pips"),
    [
        (["--runtime"], ["--no-deps -r requirements.txt"]),
        (["--runtime", "--cuda"], ["--no-deps -r requirements.txt", "-r requirements.txt"]),  # with CUDA and NCCL
        (["--cuda", "--runtime"], ["--no-deps -r requirements.txt", "-r requirements.txt"]),
    ],
)
def test_setup_runtime_installs_no_compiler(bare_tree: Path, words: list[str], pips: list[str]) -> None:
    calls = bare_tree / "calls"
    program(bare_tree, "dpkg-query", "exit 1")  # knows none
    program(bare_tree, "id", "echo 0")
    program(bare_tree, "apt-get", f'echo "apt $*" >> {calls}')
    program(bare_tree, "cmake", f"echo cmake >> {calls}")
    program(bare_tree, "pip", f'echo "pip $*" >> {calls}')
    program(
        bare_tree, "python3", f"mkdir -p .venv/bin; cp {bare_tree}/bin/pip .venv/bin; ln -sf /bin/true .venv/bin/python"
    )
    result = setup(bare_tree, *words)
    assert result.returncode == 0, result.stderr
    _, install, *installed = calls.read_text().splitlines()
    assert "libgrpc++1.51" in install.split()
    assert not [package for package in install.split() if package.endswith("-dev") or package in ("g++", "cmake")]
    assert [call.partition("--disable-pip-version-check ")[2] for call in installed] == pips


def test_an_unknown_option_of_setup(bare_tree: Path) -> None:
    for words in (["--runtim"], ["--runtime", "--test"], ["--cuda", "--cud"]):
        result = setup(bare_tree, *words)
        assert result.returncode == 2
        assert "--runtime" in result.stderr
    assert not (bare_tree / ".venv").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [("biuld", "did you mean build?"), ("--verison", "unknown command --verison (")],
)
def test_an_unknown_command_sets_nothing_up(bare_tree: Path, word: str, said: str) -> None:
    result = run(bare_tree / "polystill", word, cwd=bare_tree, PATH=f"{bare_tree}/bin:/usr/bin:/bin")
    assert result.returncode == 2
    assert said in result.stderr
    assert not (bare_tree / ".cache").exists()


def test_the_version_needs_no_build(bare_tree: Path) -> None:
    shutil.copy(REPO / "CMakeLists.txt", bare_tree)
    result = run(bare_tree / "polystill", "--version", cwd=bare_tree, PATH=f"{bare_tree}/bin:/usr/bin:/bin")
    assert re.fullmatch(r"polystill \d+\.\d+\.\d+\n", result.stdout), result
    assert not (bare_tree / ".cache").exists()


def test_an_interrupted_build_is_finished(bare_tree: Path) -> None:
    program(bare_tree, "python3", "echo setting up; exit 1")
    programs = bare_tree / "build" / "release" / "bin"
    programs.mkdir(parents=True)
    for name in (
        "polystill",
        "polystill-coordinator",
        "polystill-teacher",
        "polystill-student",
        "polystill-predict",
        "polystill-label",
        "polystill-torchscript",
    ):
        result = run(bare_tree / "polystill", "check", cwd=bare_tree, PATH=f"{bare_tree}/bin:/usr/bin:/bin")
        assert "setting up" in result.stderr
        (programs / name).write_text("#!/bin/sh\necho built")
        (programs / name).chmod(0o755)
    result = run(bare_tree / "polystill", "check", cwd=bare_tree, PATH=f"{bare_tree}/bin:/usr/bin:/bin")
    assert result.stdout == "built\n"


def test_sum_of_test_results(tmp_path: Path) -> None:
    (tmp_path / "ctest.xml").write_text(
        '<testsuite><testcase name="good" classname="good" status="run"/>'
        '<testcase name="bad" classname="bad" status="fail"><failure/><system-out>wrong answer</system-out></testcase>'
        '<testcase name="lost" status="notrun"><skipped message="Unable to find executable"/></testcase></testsuite>'
    )
    (tmp_path / "pytest.xml").write_text(
        '<testsuites><testsuite><testcase name="a" classname="t"/><testcase name="b" classname="t">'
        '<skipped message="no apt"/></testcase></testsuite></testsuites>'
    )
    script = REPO / "scripts" / "sum_up_tests.py"
    result = run(sys.executable, script, "ctest.xml", "pytest.xml", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1] == "2 passed, 2 failed"
    assert "wrong answer" in result.stdout
    result = run(sys.executable, script, "pytest.xml", cwd=tmp_path)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "1 passed, 0 failed")
    result = run(sys.executable, script, "pytest.xml", "none.xml", cwd=tmp_path)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (1, "1 passed, 1 failed")
