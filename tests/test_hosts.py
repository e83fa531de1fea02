"""A run over four hosts: the coordinator on one, teachers and students on others, as docs/clusters.md writes it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Hosts
from processes import Cluster

HEAD, LABELS, FIRST, SECOND = "head", "labels", "first", "second"


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts(HEAD, LABELS, FIRST, SECOND) as machines:
        yield machines


def start(cluster: Cluster, hosts: Hosts) -> None:
    head = hosts.address(HEAD)
    cluster.start_coordinator("--listen", "0.0.0.0:0", "--advertise", head, "--insecure", on=hosts.on(HEAD))
    assert cluster.address.startswith(f"{head}:")
    for replica in range(2):
        listen = ["--listen", f"{hosts.address(LABELS)}:0", "--insecure"]
        cluster.start_teacher("english", replica, *listen, on=hosts.on(LABELS))
    for index, name in enumerate([FIRST, SECOND]):
        cluster.start_student(index, "--host", hosts.address(name), on=hosts.on(name))


def test_a_run_over_four_hosts(hosts: Hosts, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with Cluster(tmp_path, settings=[f"output={output}"]) as cluster:
        start(cluster, hosts)
        for name in list(cluster.processes):
            assert cluster.wait(name) == 0, cluster.log(name)
    report = json.loads((output / "report.json").read_text())
    assert report["labels"]["count"] == 96 * 20
    # Gradients of both trainings went over the network: 300 steps of about 100 kB and more.
    assert all(hosts.received_bytes(name) > 10_000_000 for name in [FIRST, SECOND])
    assert hosts.received_bytes(LABELS) > 10_000


REACH = "import socket, sys; socket.create_connection((sys.argv[1], 7000), 1)"


def reaches(hosts: Hosts, one: str, other: str) -> bool:
    """Whether packets get through: nobody listens there, and says so."""
    words = [*hosts.on(one), sys.executable, "-c", REACH, hosts.address(other)]
    said = subprocess.run(words, capture_output=True, text=True).stderr
    assert "Refused" in said or "timed out" in said, said
    return "Refused" in said


def test_two_hosts_that_do_not_reach_each_other_but_reach_all_others(hosts: Hosts) -> None:
    hosts.part(FIRST, SECOND)
    assert not reaches(hosts, FIRST, SECOND) and not reaches(hosts, SECOND, FIRST)
    assert reaches(hosts, FIRST, HEAD) and reaches(hosts, HEAD, SECOND)
    hosts.cut(FIRST)
    hosts.mend(FIRST)
    assert not reaches(hosts, FIRST, SECOND)
    hosts.join(FIRST, SECOND)
    hosts.join(FIRST, SECOND)  # as after two faults of the same pair
    assert reaches(hosts, FIRST, SECOND) and reaches(hosts, SECOND, FIRST)


def test_small_buffers_are_one_hosts_and_break_sends(hosts: Hosts) -> None:
    sent = (
        "import socket; a = socket.create_server(('', 7000)); b = socket.create_connection(a.getsockname());"
        "a.accept()[0]; b.setblocking(False); print(b.send(bytes(1_000_000)))"
    )
    before = int(subprocess.check_output([*hosts.on(FIRST), sys.executable, "-c", sent]))
    if not hosts.shrink_buffers(FIRST, 4096, 16384):
        pytest.skip("this machine forbids it")
    assert int(subprocess.check_output([*hosts.on(FIRST), sys.executable, "-c", sent])) < 100_000 < before
    assert int(subprocess.check_output([*hosts.on(SECOND), sys.executable, "-c", sent])) > 100_000


def test_a_host_that_is_cut_off_and_mended(hosts: Hosts) -> None:
    hosts.add_address(FIRST, "10.9.0.1")
    sender = [sys.executable, "-c", "import socket; socket.create_connection(('10.7.0.3', 7000), 1).sendall(b'x')"]
    receiver = "import socket; s = socket.create_server(('10.7.0.3', 7000)); print('ready', flush=True); s.accept()"
    with subprocess.Popen([*hosts.on(FIRST), sys.executable, "-c", receiver], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        hosts.cut(FIRST)
        cut = subprocess.run([*hosts.on(SECOND), *sender], capture_output=True, text=True)
        assert cut.returncode == 1 and ("timed out" in cut.stderr or "No route" in cut.stderr), cut.stderr
        assert server.poll() is None
        hosts.mend(FIRST)
        assert subprocess.run([*hosts.on(SECOND), *sender], timeout=10).returncode == 0
        assert server.wait(10) == 0


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("polystill-coordinator", ["--listen", "10.7.0.1:0"], "--insecure"),
        ("polystill-coordinator", ["--listen", "0.0.0.0:0", "--insecure"], "--advertise"),
        ("polystill-teacher", ["--package", "none", "--listen", "10.7.0.1:0"], "--insecure"),
        ("polystill-teacher", ["--package", "none", "--listen", "0.0.0.0:0", "--insecure"], "--advertise"),
        (
            "polystill-teacher",
            ["--coordinator", "10.7.0.2:7000", "--teacher", "english", "--listen", "127.0.0.1:0"],
            "--listen",
        ),
    ],
)
def test_refused_addresses(hosts: Hosts, tmp_path: Path, program: str, arguments: list[str], message: str) -> None:
    with Cluster(tmp_path) as cluster:
        spec = ["--spec", str(cluster.spec), "--set", f"output={tmp_path / 'run'}"]
        words = [*(spec if program == "polystill-coordinator" else []), *arguments]
        cluster.start("refused", program, *words, on=hosts.on(HEAD))
        assert cluster.wait("refused") not in (0, -9)
        assert message in cluster.log("refused")
    assert not (tmp_path / "run").exists()
