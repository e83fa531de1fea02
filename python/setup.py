"""Makes the messages of proto/polystill while the package is built; pyproject.toml has everything else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PROTOS = Path(__file__).resolve().parent.parent / "proto"


class BuildWithMessages(build_py):
    def run(self) -> None:
        super().run()
        # An editable install reads the source tree, where they are made on first use (polystill/wire.py).
        if self.editable_mode:
            return
        files = sorted(str(path) for path in (PROTOS / "polystill").glob("*/*.proto"))
        if not files:
            raise SystemExit(f"{PROTOS}: has no .proto files; build in a source tree of Polystill")
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"--python_out={self.build_lib}", *files]
        subprocess.run(command, check=True)


setup(cmdclass={"build_py": BuildWithMessages})
