"""A teacher by host name: every address behind the name is a replica, and they come and go with its records."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hosts import Hosts
from processes import SAMPLE, Cluster, wait_for_text
from teacher_packages import write_package
from test_elastic import BATCH, applied, finish, lineage, trace_of, wait_until, write_spec

HEAD, REPLICAS = "head", ["one", "two", "three"]
NAME, PORT = "labels.test", 7070
STEPS = 1500


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts(HEAD, *REPLICAS) as machines:
        yield machines


class Records:
    """The records of NAME, in a /etc/hosts that only those have who are started with `shown`."""

    def __init__(self, file: Path, hosts: Hosts) -> None:
        self.file = file
        self.hosts = hosts

    def write(self, *names: str) -> None:
        """In place: it is the file that is mounted, not its name."""
        self.file.write_text("".join(f"{self.hosts.address(name)} {NAME}\n" for name in names))

    def shown(self, on: list[str]) -> list[str]:
        mount = f'mount --bind {self.file} /etc/hosts && exec "$@"'
        return [*on, "unshare", "--mount", "sh", "-c", mount, "sh"]


def spec_by_address(path: Path, teacher: Path) -> Path:
    spec = yaml.safe_load(write_spec(path, teacher, STEPS, workers=1).read_text())
    for key in ("package", "replicas"):
        spec["teachers"][0].pop(key)
    spec["teachers"][0]["address"] = f"{NAME}:{PORT}"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def serve(cluster: Cluster, hosts: Hosts, name: str, package: Path) -> None:
    arguments = ["--package", str(package), "--listen", f"{hosts.address(name)}:{PORT}", "--insecure"]
    cluster.start(name, "polystill-teacher", *arguments, on=hosts.on(name))


def test_replicas_come_and_go_with_the_records_of_a_name(hosts: Hosts, tmp_path: Path, sample_run: Path) -> None:
    teacher = sample_run / "models" / "teacher-english"
    records = Records(tmp_path / "hosts", hosts)
    one, two, three = (f"{hosts.address(name)}:{PORT}" for name in REPLICAS)
    with Cluster(tmp_path, spec_by_address(tmp_path / "run.yaml", teacher)) as cluster:
        for name in REPLICAS:
            serve(cluster, hosts, name, teacher)
        records.write("one", "two")
        head = records.shown(hosts.on(HEAD))
        cluster.start_coordinator("--listen", f"{hosts.address(HEAD)}:0", "--insecure", on=head)
        trace = str(trace_of(cluster, 0))
        cluster.start_student(0, "--host", hosts.address(HEAD), "--trace-records", trace, on=head)
        wait_until(cluster, "it trains", lambda: applied(cluster, 0) > 20)
        assert f"teacher at {NAME}:{PORT}: its replicas are {one}, {two}; came" in cluster.log("student-0")

        # One is gone and the other stands still, so whatever comes now comes from the third.
        cluster.processes["two"].send_signal(signal.SIGSTOP)
        cluster.processes["one"].send_signal(signal.SIGKILL)
        cluster.wait("one")
        records.write("two", "three")
        news = f"teacher at {NAME}:{PORT}: its replicas are {two}, {three}; came: {three}; left: {one}"
        wait_until(cluster, "the third is found", lambda: news in cluster.log("student-0"))
        stood = applied(cluster, 0)
        wait_until(cluster, "it goes on", lambda: applied(cluster, 0) > stood + 100)
        cluster.processes["two"].send_signal(signal.SIGCONT)

        finish(cluster, gone=tuple(REPLICAS))
        lineage(cluster, 1, STEPS)
        report = json.loads((tmp_path / "run" / "report.json").read_text())
        assert report["labels"]["count"] == STEPS * BATCH
        assert cluster.log("student-0").count("; came: ") == 2


def test_a_label_job_asks_all_who_are_behind_a_name(hosts: Hosts, tmp_path: Path) -> None:
    package = write_package(tmp_path / "package", "transformer", "classification")
    texts = [json.loads(line)["text"] for line in (SAMPLE.parent / "sample" / "de.jsonl").read_text().splitlines()]
    lines = [{"id": f"de-{i}", "language": "de", "text": f"{texts[i % len(texts)]} {i}"} for i in range(12_000)]
    corpus, out = tmp_path / "de.jsonl", tmp_path / "labels"
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = Records(tmp_path / "hosts", hosts)
    records.write("one", "two")
    with Cluster(tmp_path) as cluster:
        for name in ("one", "two"):
            serve(cluster, hosts, name, package)
            wait_for_text(tmp_path / f"{name}.log", "listening", cluster.processes[name])
        command = ["--teacher", f"{NAME}:{PORT}", "--corpus", str(corpus), "--out", str(out), "--part-records", "40"]
        job = cluster.start("label", "polystill", "label", *command, on=records.shown(hosts.on(HEAD)))
        for name in ("one", "two"):
            wait_for_text(tmp_path / f"{name}.log", "label stream opened by 'label/", cluster.processes[name])
        wait_for_text(out / "finished.sha256", "part-", job)
        cluster.processes["one"].send_signal(signal.SIGKILL)
        cluster.wait("one")
        assert job.poll() is None, "one replica is gone in the middle of the job"
        assert cluster.wait("label") == 0, cluster.log("label")
    assert sorted(pd.read_parquet(out / "labels")["id"]) == sorted(line["id"] for line in lines)
