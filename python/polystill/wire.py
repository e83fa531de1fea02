"""The messages of proto/polystill: as `pip install` made them, or of a source tree, on first use."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from polystill.errors import PolystillError

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent.parent


def generate(protos: Path, out: Path) -> None:
    """Python's messages of every file of `protos`/polystill, below `out`."""
    files = sorted(str(path) for path in (protos / "polystill").glob("*/*.proto"))
    # A process of its own: protoc's protobuf and that of other native modules do not live in one.
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"--python_out={out}", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PolystillError(f"{protos}: protoc failed; is grpcio-tools installed? {done.stderr.strip()}")


def _generated(protos: Path) -> Path:
    """The folder of a source tree's messages, made anew when the protos have changed."""
    digest = hashlib.sha256()
    for path in sorted((protos / "polystill").glob("*/*.proto")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    folder = REPOSITORY / ".cache" / "python-messages" / digest.hexdigest()[:16]
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        generate(protos, temporary)
        temporary.rename(folder)
    except OSError:
        if not folder.exists():  # or else another process was first
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def messages(module: str = "v1.teacher_pb2") -> Any:
    """A module of them, by its name below `polystill`."""
    if not (PACKAGE / "v1").is_dir():
        protos = REPOSITORY / "proto"
        if not protos.is_dir():
            raise PolystillError(f"{PACKAGE}: the messages were not generated; install with `pip install ./python`")
        folder = str(_generated(protos) / "polystill")
        search = sys.modules["polystill"].__path__
        if folder not in search:
            search.append(folder)
    return importlib.import_module(f"polystill.{module}")
