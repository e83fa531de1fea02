"""polystill.TeacherClient: against a real teacher server, and against one that misbehaves as told."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import polystill
import pytest
from fake_teacher import CREDITS, MOST_RECORDS, FakeTeacher
from polystill import Backoff, TeacherClient
from teacher_packages import LABELS, MAX_LENGTH, VOCABULARY, serving, write_package

BUSY, GONE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE
AT_ONCE = Backoff(first=0.001, longest=0.002)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("package") / "words", "transformer", "token_classification")


@pytest.fixture(scope="module")
def teacher(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeacherClient]:
    limits = ["--max-records", "16", "--stream-credits", "64"]
    with serving(package, tmp_path_factory.mktemp("serve"), *limits) as address, TeacherClient(address) as client:
        yield client


def rows(count: int, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, VOCABULARY, generator.integers(1, MAX_LENGTH + 1)).tolist() for _ in range(count)]


def test_describes(teacher: TeacherClient) -> None:
    said = teacher.describe()
    assert said.name == "words"
    assert (said.input, said.vocab_size, said.max_length) == ("text", VOCABULARY, MAX_LENGTH)
    assert (said.task, list(said.labels)) == ("token_classification", LABELS["token_classification"])
    assert (said.max_records_per_request, said.stream_credits, said.repeatable) == (16, 64, True)
    assert said.features == {"embedding": 24, "hidden.0": 24, "hidden.1": 24, "hidden.2": 24}
    assert len(said.digest) == len(said.tokenizer_sha256) == 64


def test_large_inputs_are_the_same_as_small_ones(teacher: TeacherClient) -> None:
    inputs = rows(150)
    outputs = ["logits", "embedding", "hidden.2"]
    whole = teacher.label(inputs, outputs=outputs)
    tokens = sum(map(len, inputs))
    assert {name: array.shape for name, array in whole.items()} == {
        "logits": (tokens, 3),
        "embedding": (150, 24),
        "hidden.2": (tokens, 24),
    }
    assert all(array.dtype == np.float32 for array in whole.values())
    for record in (0, 17, 149):
        alone = teacher.label([inputs[record]], outputs=outputs)
        for name in outputs:
            np.testing.assert_array_equal(whole.of(record, name).reshape(-1), alone[name].reshape(-1))


def test_arrays_of_ids_and_texts_together(teacher: TeacherClient) -> None:
    ids = np.array([5, 6, 7], np.int32)
    answer = teacher.label([ids, "a text"], outputs=["embedding"])
    np.testing.assert_array_equal(
        answer["embedding"][0], teacher.label([[5, 6, 7]], outputs=["embedding"])["embedding"][0]
    )


def test_positions(teacher: TeacherClient) -> None:
    inputs = [[3, 4, 5], [9, 8]]
    every = teacher.label(inputs)
    some = teacher.label(inputs, positions=[[0, 2], [1]])
    np.testing.assert_array_equal(some["logits"], every["logits"][[0, 2, 4]])
    np.testing.assert_array_equal(some.of(1), every["logits"][4:])


def test_half_precision_arrives_as_float32(teacher: TeacherClient) -> None:
    inputs = rows(40)
    exact = teacher.label(inputs)["logits"]
    half = teacher.label(inputs, codec="dense_fp16")["logits"]
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, exact.astype(np.float16).astype(np.float32))


def test_a_stream_in_order(teacher: TeacherClient) -> None:
    batches = [rows(count, seed) for seed, count in enumerate([3, 0, 40, 1, 130, 7])]
    answers = list(teacher.label_stream(iter(batches), outputs=["embedding"]))
    assert [answer.index for answer in answers] == list(range(6))
    for batch, answer in zip(batches, answers, strict=True):
        assert answer["embedding"].shape == (len(batch), 24)
        if batch:
            expected = teacher.label(batch, outputs=["embedding"])["embedding"]
            np.testing.assert_array_equal(answer["embedding"], expected)


def test_no_input_at_all(teacher: TeacherClient) -> None:
    assert teacher.label([])["logits"].shape == (0, 3)
    assert list(teacher.label_stream([])) == []


@pytest.mark.parametrize(
    ("inputs", "more", "error", "words"),
    [
        (["a text", [1, VOCABULARY]], {"outputs": ["embedding"]}, polystill.TeacherRefused, ["'r1'", str(VOCABULARY)]),
        ([[1] * (MAX_LENGTH + 1)], {}, polystill.TeacherRefused, ["'r0'", "max_length"]),
        ([[]], {}, polystill.TeacherRefused, ["'r0'", "no token ids"]),
        (["a text"], {}, polystill.TeacherRefused, ["'r0'", "of tokens"]),
        ([[1], 3.5], {}, TypeError, ["'r1'", "3.5"]),
        ([[1], [2, 1 << 40]], {}, ValueError, ["'r1'"]),
        (["\ud800"], {"outputs": ["embedding"]}, ValueError, ["'r0'"]),
        ([[1]], {"outputs": ["nope"]}, ValueError, ["'nope'", "embedding"]),
        ([[1]], {"outputs": []}, ValueError, ["at least one"]),
        ([[1]], {"codec": "topk"}, ValueError, ["'topk'", "dense_fp16"]),
        ([[1], [2]], {"positions": [[0]]}, ValueError, ["positions: 1 for 2"]),
        ("one text", {}, TypeError, ["[text]"]),
    ],
)
def test_errors_name_the_record(
    teacher: TeacherClient, inputs: Any, more: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        teacher.label(inputs, record_ids=[f"r{i}" for i in range(len(inputs))], **more)
    for word in words:
        assert word in str(caught.value)


def test_a_bad_record_of_a_stream_is_named(teacher: TeacherClient) -> None:
    batches = [polystill.Batch(rows(20)), polystill.Batch([[1], [-1]], record_ids=["fine", "bad"])]
    with pytest.raises(polystill.TeacherRefused, match="'bad'"):
        list(teacher.label_stream(batches))
    assert len(teacher.label([[1]])["logits"]) == 1


def test_another_teacher_than_asked_for(package: Path, tmp_path: Path) -> None:
    refused = pytest.raises(polystill.TeacherRefused, match="0000")
    with serving(package, tmp_path) as address, TeacherClient(address, teacher_digest="0" * 64) as client, refused:
        client.label([[1]])


def test_nobody_there() -> None:
    gave_up = pytest.raises(polystill.TeacherUnavailable, match=r"127\.0\.0\.1:1: describe")
    with TeacherClient("127.0.0.1:1", retry_for=0.05, backoff=AT_ONCE) as client, gave_up:
        client.describe()
    with pytest.raises(ValueError, match="is not host:port"):
        TeacherClient("localhost")


# ---- against a teacher that misbehaves ----


@pytest.fixture
def fake() -> Iterator[FakeTeacher]:
    yield FakeTeacher()


def client_of(fake: FakeTeacher, servers: list[grpc.Server], **options: Any) -> TeacherClient:
    server, address = fake.start()
    servers.append(server)
    return TeacherClient(address, **({"backoff": AT_ONCE, "timeout": 30.0} | options))


@pytest.fixture
def servers() -> Iterator[list[grpc.Server]]:
    started: list[grpc.Server] = []
    yield started
    for server in started:
        server.stop(0).wait()


def texts(batches: int, size: int) -> list[list[str]]:
    return [["x" * (batch * size + i + 1) for i in range(size)] for batch in range(batches)]


def check(batch: list[str], answer: polystill.Labels) -> None:
    np.testing.assert_array_equal(answer["logits"], [[len(text), -len(text)] for text in batch])


def test_a_unary_call_is_repeated(fake: FakeTeacher, servers: list[grpc.Server]) -> None:
    fake.failures = deque([(BUSY, 0), (GONE, 0), (BUSY, 0)])
    with client_of(fake, servers) as client:
        check(["abc"], client.label(["abc"]))
    assert fake.sizes == [1, 1, 1, 1]


def test_a_stream_repeats_what_was_refused_and_keeps_the_order(fake: FakeTeacher, servers: list[grpc.Server]) -> None:
    fake.failures = deque([None, (BUSY, 0), (GONE, 0), None, (BUSY, 0)])
    with client_of(fake, servers) as client:
        batches = texts(12, 3)
        answers = list(client.label_stream(batches))
    assert [answer.index for answer in answers] == list(range(12))
    for batch, answer in zip(batches, answers, strict=True):
        check(batch, answer)
    assert len(fake.sizes) == 12 + 3


def test_retry_after_is_obeyed(fake: FakeTeacher, servers: list[grpc.Server]) -> None:
    fake.failures = deque([(BUSY, 300)])
    with client_of(fake, servers) as client:
        began = time.monotonic()
        (answer,) = client.label_stream([["ab"]])
        assert time.monotonic() - began >= 0.3
    check(["ab"], answer)


def test_retry_after_of_a_unary_call_is_obeyed(fake: FakeTeacher, servers: list[grpc.Server]) -> None:
    fake.failures = deque([(BUSY, 300), (BUSY, -1)])
    with client_of(fake, servers) as client:
        began = time.monotonic()
        with pytest.raises(polystill.TeacherUnavailable):  # at the second answer, which says never
            client.label(["ab"])
        assert time.monotonic() - began >= 0.3
    assert fake.sizes == [1, 1]


def test_broken_streams_are_opened_again(fake: FakeTeacher, servers: list[grpc.Server]) -> None:
    fake.breaks = deque([2, 0, 3])
    with client_of(fake, servers) as client:
        batches = texts(20, 2)
        for batch, answer in zip(batches, client.label_stream(batches), strict=True):
            check(batch, answer)


def test_a_server_that_comes_back(fake: FakeTeacher, servers: list[grpc.Server]) -> None:
    first, address = fake.start()
    with TeacherClient(address, backoff=Backoff(0.01, 0.05)) as client:
        client.describe()
        first.stop(0).wait()
        results: list[Any] = []
        waiting = threading.Thread(target=lambda: results.extend(client.label_stream([["abc"], ["d"]])))
        waiting.start()
        server, _ = fake.start(int(address.split(":")[1]))
        servers.append(server)
        waiting.join(30)
    assert [result["logits"][0, 0] for result in results] == [3, 1]


def test_credits_and_requests_are_kept(fake: FakeTeacher, servers: list[grpc.Server]) -> None:
    fake.hold = 2
    with client_of(fake, servers) as client:
        batches = texts(6, 10)
        taken = []

        def source() -> Iterator[list[str]]:
            for number, batch in enumerate(batches):
                taken.append(number)
                yield batch

        stream = client.label_stream(source())
        check(batches[0], next(stream))
        assert len(taken) <= 2  # a batch has more records than there are credits
        stream.close()
    assert fake.cancelled.wait(30)
    assert max(fake.sizes) <= MOST_RECORDS
    assert MOST_RECORDS < fake.most_in_flight <= CREDITS


def test_answers_as_they_come(fake: FakeTeacher, servers: list[grpc.Server]) -> None:
    fake.hold = 4
    with client_of(fake, servers) as client:
        batches = texts(4, 2)
        stream = client.label_stream(batches, ordered=False)
        first = next(stream)
        assert first.index == 3
        check(batches[3], first)
        assert [answer.index for answer in stream] == [2, 1, 0]  # also those that came together
        in_order = FakeTeacher()
        with client_of(in_order, servers) as other:
            assert [answer.index for answer in other.label_stream(batches, ordered=False)] == [0, 1, 2, 3]


def test_gives_up_at_last(fake: FakeTeacher, servers: list[grpc.Server]) -> None:
    fake.failures = deque([(BUSY, 0)] * 10_000)
    with client_of(fake, servers, retry_for=0.1) as client:
        with pytest.raises(polystill.TeacherUnavailable, match="record 'rx'"):
            client.label(["a"], record_ids=["rx"])
        with pytest.raises(polystill.TeacherUnavailable, match="record 'ry'"):
            list(client.label_stream([polystill.Batch(["a"], record_ids=["ry"])]))


def test_deadlines(fake: FakeTeacher, servers: list[grpc.Server]) -> None:
    fake.silent = True
    with client_of(fake, servers, timeout=0.2) as client:
        with pytest.raises(polystill.TeacherTimeout, match="record 'rx'"):
            client.label(["a"], record_ids=["rx"])
        fake.cancelled.clear()
        with pytest.raises(polystill.TeacherTimeout, match=r"record 'ry': no answer within 0.2 s"):
            list(client.label_stream([polystill.Batch(["a"], record_ids=["ry"])]))
        assert fake.cancelled.wait(30)


@pytest.mark.parametrize("streams", [False, True])
def test_closing_ends_a_call_of_another_thread(fake: FakeTeacher, servers: list[grpc.Server], streams: bool) -> None:
    fake.silent = True
    client = client_of(fake, servers)
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            list(client.label_stream([["a"]])) if streams else client.label(["a"])
        except polystill.TeacherError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert fake.asked.wait(30)
    client.close()
    thread.join(30)
    assert [type(error) for error in caught] == [polystill.TeacherClosed]
    with pytest.raises(polystill.TeacherClosed):
        client.label(["a"])


def cut_short(reply: Any) -> None:
    reply.labels[0].dense.data = reply.labels[0].dense.data[:-1]


def another_shape(reply: Any) -> None:
    reply.labels[0].dense.shape[1] = 3


def not_finite(reply: Any) -> None:
    reply.labels[0].dense.data = np.full_like(np.frombuffer(reply.labels[0].dense.data, "<f4"), np.nan).tobytes()


def nothing(reply: Any) -> None:
    del reply.labels[:]


@pytest.mark.parametrize("spoil", [cut_short, another_shape, not_finite, nothing])
def test_wrong_answers_are_refused(fake: FakeTeacher, servers: list[grpc.Server], spoil: Any) -> None:
    fake.spoil = spoil
    with client_of(fake, servers) as client, pytest.raises(polystill.TeacherError, match="DATA_LOSS: record 'rx'"):
        client.label(["a"], record_ids=["rx"])


def unasked(reply: Any) -> None:
    reply.request_id += 7


def unknown_code(reply: Any) -> None:
    reply.code = 99


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (unasked, "DATA_LOSS: .*an answer to request 8, which is not in flight"),
        (unknown_code, "DATA_LOSS: record 'rx': .*code 99, which gRPC does not know"),
    ],
)
def test_wrong_answers_of_a_stream_are_refused(
    fake: FakeTeacher, servers: list[grpc.Server], spoil: Any, words: str
) -> None:
    fake.spoil = spoil
    with client_of(fake, servers) as client, pytest.raises(polystill.TeacherError, match=words):
        list(client.label_stream([polystill.Batch(["a"], record_ids=["rx"])]))


def test_a_teacher_that_was_exchanged_is_refused(fake: FakeTeacher, servers: list[grpc.Server]) -> None:
    with client_of(fake, servers) as client:
        client.describe()
        fake.digest = "e" * 64
        with pytest.raises(polystill.TeacherRefused, match="another than before"):
            list(client.label_stream([["a"]]))


def test_features_of_tokens(fake: FakeTeacher, servers: list[grpc.Server]) -> None:
    with client_of(fake, servers) as client:
        answer = client.label([[5, 6], [7]] * 4, outputs=["hidden.1"])
    np.testing.assert_array_equal(answer["hidden.1"][:, 0], [5, 6, 7] * 4)
    np.testing.assert_array_equal(answer.of(2, "hidden.1"), [[5] * 3, [6] * 3])


@pytest.mark.parametrize(
    ("attempt", "uniform", "pause"),
    [(0, 0.0, 0.05), (0, 1.0, 0.1), (2, 0.0, 0.2), (3, 1.0, 0.8), (9, 1.0, 2.0), (999, 0.0, 1.0)],
)
def test_pauses(attempt: int, uniform: float, pause: float) -> None:
    assert Backoff(first=0.1, longest=2.0).pause(attempt, uniform) == pytest.approx(pause)
