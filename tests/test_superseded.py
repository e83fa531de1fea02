"""Two coordinators of one run, where the lock of its folder keeps none of them away: the later one is the run's."""

from __future__ import annotations

from pathlib import Path

import pytest
import test_elastic as elastic
from processes import Cluster


@pytest.fixture(scope="module")
def teacher(sample_run: Path) -> Path:
    return sample_run / "models" / "teacher-english"


def test_an_older_coordinator_leaves_the_later_ones_address(tmp_path: Path, teacher: Path) -> None:
    spec = elastic.write_spec(tmp_path / "run.yaml", teacher, 50, workers=1)
    with Cluster(tmp_path, spec) as cluster:
        older = cluster.start_coordinator()
        first = cluster.address
        address_file = tmp_path / "run" / "coordinator.address"
        assert address_file.read_text().startswith(first)
        # As on a file system without locks.
        (tmp_path / "run" / "lock").unlink()
        (tmp_path / "coordinator.address").unlink()
        cluster.processes["older"] = cluster.processes.pop("coordinator")
        cluster.start_coordinator("--resume")
        assert older.wait(30) == 1
        assert cluster.address != first
        assert address_file.read_text().startswith(cluster.address)
        cluster.start_teacher("english")
        cluster.start_student(0)
        elastic.finish(cluster, gone=("older",))
        assert not address_file.exists()
