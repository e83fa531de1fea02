"""What several test files share: one whole run on the committed sample."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from processes import BIN, REPO, SAMPLE


@pytest.fixture(scope="session")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of `polystill run` on the sample."""
    output = tmp_path_factory.mktemp("sample-run") / "run"
    command = [str(BIN / "polystill"), "run", str(SAMPLE), "--set", f"output={output}"]
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return output
