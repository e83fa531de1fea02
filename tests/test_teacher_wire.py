"""Hostile bytes on the wire: a teacher server driven by another implementation of gRPC and protobuf."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from polystill import wire
from processes import Cluster, wait_for_file
from test_workers_agree import run, write_spec

METHOD = "/polystill.v1.TeacherService/"


@pytest.fixture(scope="module")
def messages() -> Any:
    """polystill.v1's teacher messages, generated from proto/ by Google's Python compiler."""
    return wire.messages()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher package trained on the sample."""
    folder = tmp_path_factory.mktemp("package")
    spec = write_spec(
        folder / "run.yaml", student__epochs=0.1, student__workers=1, teachers__0__replicas=1, baselines=[]
    )
    return run(folder / "train", spec, workers=1, replicas=1) / "models" / "teacher-english"


@pytest.fixture(scope="module")
def server(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a teacher server."""
    folder = tmp_path_factory.mktemp("wire")
    with Cluster(folder / "serve") as cluster:
        address_file = folder / "serve" / "address"
        process = cluster.start(
            "teacher",
            "polystill-teacher",
            "--package",
            str(package),
            "--listen",
            "127.0.0.1:0",
            "--address-file",
            str(address_file),
        )
        yield wait_for_file(address_file, process)
        assert process.poll() is None, cluster.log("teacher")


class Caller:
    """One unary call after another, as raw bytes."""

    def __init__(self, address: str, messages: object) -> None:
        self.messages = messages
        self.channel = grpc.insecure_channel(address, options=[("grpc.max_send_message_length", 256 << 20)])

    def raw(self, method: str, data: bytes) -> bytes:
        return self.channel.unary_unary(METHOD + method)(data, timeout=30)

    def label(self, **fields: object) -> object:
        request = self.messages.LabelRequest(**({"protocol_version": 1, "request_id": 1} | fields))
        return self.messages.LabelReply.FromString(self.raw("Label", request.SerializeToString()))

    def describe(self) -> object:
        request = self.messages.DescribeRequest(protocol_version=1)
        return self.messages.DescribeReply.FromString(self.raw("Describe", request.SerializeToString()))

    def refused(self, **fields: object) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self.label(**fields)
        return caught.value.code(), caught.value.details()


@pytest.fixture(scope="module")
def caller(server: str, messages: object) -> Caller:
    return Caller(server, messages)


def text(value: str, record: str = "r1") -> dict[str, str]:
    return {"id": record, "text": value}


def retry_after_ms(error: grpc.RpcError) -> list[int]:
    return [int(value) for key, value in error.trailing_metadata() if key == "grpc-retry-pushback-ms"]


def test_refusals_of_a_busy_server_say_when_to_ask_again(package: Path, messages: Any, tmp_path: Path) -> None:
    flags = ["--queue-records", "1", "--batch-delay-us", "10000000", "--address-file", str(tmp_path / "address")]
    with Cluster(tmp_path / "serve") as cluster:
        process = cluster.start("teacher", "polystill-teacher", "--package", str(package), *flags)
        with grpc.insecure_channel(wait_for_file(tmp_path / "address", process)) as channel:
            # While one waits for company, the queue is full for the other.
            request = messages.LabelRequest(protocol_version=1, request_id=1, inputs=[text("hello")])
            calls = [channel.unary_unary(METHOD + "Label").future(request.SerializeToString()) for _ in range(2)]
            while not any(call.done() for call in calls):
                time.sleep(0.01)
            (refused,) = [call.exception() for call in calls if call.done()]
    assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert [0 < pause < 10_000 for pause in retry_after_ms(refused)] == [True]


def test_a_server_without_its_teacher_says_when_to_ask_again(messages: Any, tmp_path: Path) -> None:
    flags = ["--coordinator", "127.0.0.1:1", "--teacher", "x", "--address-file", str(tmp_path / "address")]
    with Cluster(tmp_path / "serve") as cluster:
        process = cluster.start("teacher", "polystill-teacher", *flags)
        caller = Caller(wait_for_file(tmp_path / "address", process), messages)
        with pytest.raises(grpc.RpcError) as caught:
            caller.describe()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert [0 < pause < 10_000 for pause in retry_after_ms(caught.value)] == [True]


def test_describes_itself_and_answers(caller: Caller) -> None:
    description = caller.describe()
    classes = len(description.signature.labels)
    assert description.repeatable and classes >= 2 and len(description.digest) == 64
    inputs = [text("an editor for text"), text("a game with cards", "r2")]
    reply = caller.label(inputs=inputs, spec={"codec": 1})
    assert list(reply.labels[0].dense.shape) == [2, classes]
    both = np.frombuffer(reply.labels[0].dense.data, "<f4").reshape(2, classes)
    alone = np.frombuffer(caller.label(inputs=inputs[1:], spec={"codec": 1}).labels[0].dense.data, "<f4")
    assert np.array_equal(both[1], alone)  # bit for bit: repeatable mode


def test_gives_features_of_texts_and_of_ids(caller: Caller) -> None:
    description = caller.describe()
    assert {feature.name: feature.width for feature in description.features} == {"embedding": 32}
    assert len(description.tokenizer_sha256) == 64
    inputs = [text("server for the web"), {"id": "ids", "ids": {"ids": [3, 4, 5]}}]
    reply = caller.label(inputs=inputs, spec={"outputs": ["embedding", "logits"]})
    assert [list(labels.dense.shape) for labels in reply.labels] == [[2, 32], [2, len(description.signature.labels)]]


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"protocol_version": 99, "inputs": [text("a")]}, "FAILED_PRECONDITION", ["99"]),
        ({"inputs": []}, "INVALID_ARGUMENT", []),
        ({"inputs": [{"id": "r7"}]}, "INVALID_ARGUMENT", ["r7"]),
        ({"inputs": [{"id": "r7", "ids": {"ids": [1, 1 << 20]}}]}, "INVALID_ARGUMENT", ["r7", "1048576"]),
        ({"inputs": [{"id": "r7", "ids": {"ids": [1]}, "positions": [0]}]}, "INVALID_ARGUMENT", ["r7", "positions"]),
        ({"inputs": [text("x" * ((1 << 20) + 1), "r8")]}, "INVALID_ARGUMENT", ["r8"]),
        ({"inputs": [text("a")], "spec": {"outputs": ["nope"]}}, "INVALID_ARGUMENT", ["nope", "logits"]),
        ({"inputs": [text("a")], "spec": {"codec": 77}}, "INVALID_ARGUMENT", ["77"]),
        (
            {"inputs": [text("a")], "spec": {"teacher_digest": "0" * 64}},
            "FAILED_PRECONDITION",
            ["0" * 64],
        ),
        ({"inputs": [text("a", f"r{i}") for i in range(100_000)]}, "INVALID_ARGUMENT", []),
    ],
)
def test_refuses_what_does_not_fit(caller: Caller, fields: dict[str, object], code: str, words: list[str]) -> None:
    got, details = caller.refused(**fields)
    assert got.name == code, details
    for word in words:
        assert word in details


@pytest.mark.parametrize("data", [b"\xff" * 64, b"\x22\xff\xff\xff\xff\x0f", bytes(range(256))])
def test_bytes_that_are_no_message(caller: Caller, data: bytes) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        caller.raw("Label", data)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value
    assert caller.label(inputs=[text("still there")]).labels[0].dense.data


def test_oversized_message(caller: Caller) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        caller.raw("Label", b"\x22\x80\x80\x80\x20" + b"x" * (64 << 20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_text_that_is_not_utf8(caller: Caller) -> None:
    # LabelInput{id: "r9", text: "\xff\xfe"} by hand: protobuf's own encoder would refuse to write it.
    label_input = b"\x0a\x02r9\x12\x02\xff\xfe"
    request = b"\x08\x01\x10\x01" + b"\x22" + bytes([len(label_input)]) + label_input
    with pytest.raises(grpc.RpcError) as caught:
        caller.raw("Label", request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "r9" in caught.value.details() and "UTF-8" in caught.value.details()


def stream(caller: Caller, requests: list[object]) -> list[object]:
    call = caller.channel.stream_stream(
        METHOD + "LabelStream",
        request_serializer=caller.messages.LabelStreamRequest.SerializeToString,
        response_deserializer=caller.messages.LabelStreamReply.FromString,
    )
    return list(call(iter(requests), timeout=30))


def test_stream_answers_by_id_and_needs_open_first(caller: Caller) -> None:
    wire = caller.messages.LabelStreamRequest
    opened = wire(open={"protocol_version": 1, "client": "test"})
    requests = [
        wire(request={"protocol_version": 1, "request_id": 10 + i, "inputs": [text(f"text {i}")]}) for i in range(5)
    ]
    replies = stream(caller, [opened, *requests])
    assert replies[0].WhichOneof("message") == "opened"
    assert sorted(r.reply.request_id for r in replies[1:]) == [10, 11, 12, 13, 14]
    assert all(r.reply.code == 0 for r in replies[1:])
    with pytest.raises(grpc.RpcError) as caught:
        stream(caller, requests)
    assert caught.value.code() in (
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
    )


def test_one_bad_request_leaves_the_stream_alive(caller: Caller) -> None:
    wire = caller.messages.LabelStreamRequest
    replies = stream(
        caller,
        [
            wire(open={"protocol_version": 1}),
            wire(request={"protocol_version": 1, "request_id": 1, "inputs": [{"id": "bad"}]}),
            wire(request={"protocol_version": 1, "request_id": 2, "inputs": [text("fine")]}),
        ],
    )
    by_id = {r.reply.request_id: r.reply for r in replies[1:]}
    assert by_id[1].code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "bad" in by_id[1].message
    assert by_id[2].code == 0


def test_port_in_use_is_told(server: str, package: Path, tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start("second", "polystill-teacher", "--package", str(package), "--listen", server)
        assert cluster.wait("second") == 1
        log = cluster.log("second")
    assert server in log and "in use" in log


def test_a_folder_that_is_no_package_is_told(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start("teacher", "polystill-teacher", "--package", str(tmp_path))
        assert cluster.wait("teacher") == 1
        assert "teacher.yaml" in cluster.log("teacher")
