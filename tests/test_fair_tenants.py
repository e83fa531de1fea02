"""A teacher server that is asked for more than it can do shares its time among tenants and priorities."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fake_teacher import FakeTeacher
from polystill import TeacherClient, wire
from processes import Cluster, wait_for_file
from teacher_packages import MAX_LENGTH, VOCABULARY, write_package
from test_metrics import address_in, read, total

REQUESTS, RECORDS = 200, 64
TRAINING = 1


class Flood:
    """A tenant that asks for everything at once, on one stream."""

    def __init__(self, address: str, tenant: str) -> None:
        messages = wire.messages()
        generator = np.random.default_rng(5)
        self._all = [messages.LabelStreamRequest(open={"protocol_version": 1, "client": tenant}).SerializeToString()]
        for number in range(REQUESTS):
            rows = generator.integers(0, VOCABULARY, (RECORDS, MAX_LENGTH)).tolist()
            inputs = [messages.LabelInput(ids=messages.TokenIds(ids=row)) for row in rows]
            request = messages.LabelRequest(
                protocol_version=1, request_id=number, spec={"outputs": ["logits"]}, inputs=inputs, priority=TRAINING
            )
            self._all.append(messages.LabelStreamRequest(request=request).SerializeToString())
        self.replies: list[Any] = []
        self._channel = grpc.insecure_channel(address)
        call = self._channel.stream_stream(
            "/polystill.v1.TeacherService/LabelStream", response_deserializer=messages.LabelStreamReply.FromString
        )(iter(self._all), metadata=(("polystill-tenant", tenant),))
        self._reader = threading.Thread(target=lambda: self.replies.extend(call))
        self._reader.start()

    def wait(self) -> list[Any]:
        self._reader.join()
        self._channel.close()
        return [message.reply for message in self.replies[1:]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Its address, and that of its metrics."""
    package = write_package(tmp_path / "package", "transformer", "classification")
    with Cluster(tmp_path / "serve") as cluster:
        words = ["--package", str(package), "--address-file", str(tmp_path / "address"), "--metrics", "127.0.0.1:0"]
        limits = ["--stream-credits", str(REQUESTS * RECORDS), "--batch-records", str(RECORDS)]
        process = cluster.start("teacher", "polystill-teacher", *words, *limits)
        yield wait_for_file(tmp_path / "address", process), address_in(cluster, "teacher")


@pytest.mark.parametrize("priority", ["training", "on_demand"])
def test_a_small_request_does_not_wait_for_a_flood(server: tuple[str, str], priority: str) -> None:
    address, url = server
    computed = "polystill_teacher_batch_records_sum"
    with TeacherClient(address, tenant="small", priority=priority) as client:
        alone = client.label([[1, 2, 3]])["logits"]
        flood = Flood(address, "flood")
        before = read(url)
        # While less than a quarter waits, the flood is on its way.
        while total(before, "polystill_teacher_queue_records") < REQUESTS * RECORDS // 4:
            assert total(before, computed) < REQUESTS * RECORDS, "the flood was over before it had begun"
            before = read(url)
        np.testing.assert_array_equal(client.label([[1, 2, 3]])["logits"], alone)
        after = read(url)
    waited = total(before, "polystill_teacher_queue_records", priority="training")
    # First come, first served would have computed all that waited.
    assert total(after, computed) - total(before, computed) < waited / 2
    replies = flood.wait()
    assert len(replies) == REQUESTS
    assert {reply.code for reply in replies} == {0}
    end = read(url)
    assert total(end, "polystill_teacher_tenant_labels_total", tenant="flood") == REQUESTS * RECORDS
    assert total(end, "polystill_teacher_tenant_labels_total", tenant="small") == 2
    in_training = REQUESTS * RECORDS + (2 if priority == "training" else 0)
    assert total(end, "polystill_teacher_labels_total", priority="training") == in_training
    assert total(end, "polystill_teacher_queue_records") == 0


class Listener(FakeTeacher):
    """Notes who asks, and how urgently."""

    def label(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.note(context)
        self.priorities.append(request.priority)
        return super().label(request, context)

    def label_stream(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        self.note(context)
        return super().label_stream(requests, context)

    def note(self, context: grpc.ServicerContext) -> None:
        self.tenants.append([value for key, value in context.invocation_metadata() if key == "polystill-tenant"])

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tenants: list[list[str]] = []
        self.priorities: list[int] = []


def test_the_client_says_for_whom_it_asks() -> None:
    listener = Listener()
    server, address = listener.start()
    try:
        with TeacherClient(address, tenant="run-7", priority="training") as client:
            client.label([[1]])
            assert len(list(client.label_stream([[[1]], [[2]]]))) == 2
        with TeacherClient(address) as client:
            client.label([[1]])
    finally:
        server.stop(None)
    assert listener.tenants == [["run-7"], ["run-7"], []]
    assert listener.priorities == [1, 2]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"tenant": "Run"}, "'Run'"),
        ({"tenant": "a" * 65}, "at most 64"),
        ({"tenant": "a\n"}, "characters"),
        ({"priority": "high"}, "one of training, on_demand"),
    ],
)
def test_what_is_no_tenant_or_priority_is_refused(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TeacherClient("127.0.0.1:1", **setting)
