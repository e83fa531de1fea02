"""What Prometheus reads of a run's processes, by Prometheus' own parser."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from polystill import TeacherClient
from processes import Cluster, wait_for_file, wait_for_text
from prometheus_client.parser import text_string_to_metric_families
from teacher_packages import write_package
from test_workers_agree import write_spec

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
LABELS, ROWS = 3, 5
LANGUAGES = {"de", "fr", "es", "ja"}


def address_in(cluster: Cluster, name: str) -> str:
    """Where a process says that its metrics are."""
    wait_for_text(cluster.folder / f"{name}.log", "metrics at ", cluster.processes[name])
    found = re.search(r"metrics at (\S+)", cluster.log(name))
    assert found is not None
    return found.group(1)


def read(url: str) -> Samples:
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.status == 200
        text = answer.read().decode()
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return samples


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum over all labels beside these."""
    return sum(
        value
        for (found, has), value in samples.items()
        if found == name and all(dict(has).get(key) == wanted for key, wanted in labels.items())
    )


def test_a_teacher_server_counts_what_it_answers(tmp_path: Path) -> None:
    package = write_package(tmp_path / "package", "subword_bag", "classification")
    with Cluster(tmp_path / "serve") as cluster:
        address_file = tmp_path / "address"
        words = ["--package", str(package), "--address-file", str(address_file), "--metrics", "127.0.0.1:0"]
        process = cluster.start("teacher", "polystill-teacher", *words)
        address, url = wait_for_file(address_file, process), address_in(cluster, "teacher")
        assert total(read(url), "polystill_teacher_requests_total") == 0
        with TeacherClient(address) as client:
            for _ in range(4):
                assert np.isfinite(client.label([[1, 2, 3]] * ROWS)["logits"]).all()
            with pytest.raises(Exception, match="id 1000000"):
                client.label([[1_000_000]])
        samples = read(url)
    assert total(samples, "polystill_teacher_requests_total", code="OK") == 4
    assert total(samples, "polystill_teacher_requests_total", code="INVALID_ARGUMENT") == 1
    assert total(samples, "polystill_teacher_labels_total") == 4 * ROWS
    payload = 4 * ROWS * LABELS * 4
    assert payload <= total(samples, "polystill_teacher_label_bytes_total") <= payload + 4 * 100
    for name in ("batch_records", "batch_tokens", "compute_seconds", "queue_seconds"):
        assert total(samples, f"polystill_teacher_{name}_count") == 4, name
    assert total(samples, "polystill_teacher_batch_records_sum") == 4 * ROWS
    assert total(samples, "polystill_teacher_batch_tokens_sum") == 4 * ROWS * 3
    assert 0 < total(samples, "polystill_teacher_compute_seconds_sum") < 10
    assert total(samples, "polystill_teacher_queue_records") == 0


def test_a_run_is_seen_from_all_of_its_processes(tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "run.yaml", baselines=["gold"], output=str(tmp_path / "run"))
    flags = ("--metrics", "127.0.0.1:0")
    seen: dict[str, Samples] = {}
    with Cluster(tmp_path / "processes", spec) as cluster:
        cluster.start_coordinator(*flags)
        cluster.start_teacher("english", 0, *flags)
        cluster.start_teacher("english", 1, *flags)
        for worker in range(2):
            cluster.start_student(worker, *flags)
        urls = {name: address_in(cluster, name) for name in cluster.processes}
        while cluster.processes["coordinator"].poll() is None:
            for name, url in urls.items():
                try:
                    now = read(url)
                except (urllib.error.URLError, ConnectionError):
                    continue  # it has ended
                for key, value in seen.get(name, {}).items():
                    if key[0].endswith("_total"):
                        assert now[key] >= value, (name, key)
                seen[name] = now
            time.sleep(0.05)
        assert cluster.wait("coordinator") == 0, cluster.log("coordinator")
    coordinator = seen["coordinator"]
    students = [seen["student-0"], seen["student-1"]]
    # The jobs before the last one are over in what was read last.
    for job in ("teacher:english", "distilled"):
        steps = total(coordinator, "polystill_run_stage_units", stage=job)
        assert steps > 0
        assert total(coordinator, "polystill_run_stage_done", stage=job) == steps
        for student in students:
            assert total(student, "polystill_student_steps_total", job=job) == steps
    languages = {dict(labels)["lang"] for name, labels in students[0] if name == "polystill_examples_committed_total"}
    assert languages == LANGUAGES | {"en"}
    english = sum(total(student, "polystill_examples_committed_total", lang="en") for student in students)
    assert english == total(coordinator, "polystill_run_examples", stage="teacher:english", lang="en") > 0
    distilled = sum(total(coordinator, "polystill_run_examples", stage="distilled", lang=lang) for lang in LANGUAGES)
    labels = sum(total(student, "polystill_student_labels_total") for student in students)
    assert labels == distilled == total(coordinator, "polystill_run_labels", stage="distilled")
    given = sum(total(seen[f"teacher-english-{i}"], "polystill_teacher_labels_total") for i in range(2))
    assert given >= labels
    assert sum(total(student, "polystill_student_data_wait_seconds_total") for student in students) > 0
    for student in students:
        requests = total(student, "polystill_student_label_requests_total")
        hedges = total(student, "polystill_student_hedged_requests_total")
        assert requests > 0
        assert 0 <= total(student, "polystill_student_hedges_won_total") <= hedges <= requests / 20
        assert 2 <= total(student, "polystill_student_prefetch_steps") <= 64
        assert total(student, "polystill_student_refused_replicas_total") == 0


def test_metrics_off_loopback_need_insecure(tmp_path: Path) -> None:
    with Cluster(tmp_path / "refused") as cluster:
        cluster.start("student", "polystill-student", "--coordinator", "127.0.0.1:1", "--metrics", "0.0.0.0:0")
        assert cluster.wait("student") == 1
        assert "--insecure" in cluster.log("student")
