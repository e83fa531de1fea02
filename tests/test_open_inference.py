"""Teachers whose model is behind a server of the Open Inference Protocol: a real one (polystill.serve_model, run by
hand), and one written here that answers as it should not."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from engine_packages import expected, python_package, upstream_package
from polystill import TeacherClient, TeacherError, TeacherUnavailable
from polystill.wire import messages
from processes import REPO, wait_for_text
from test_python_backend import ROWS, refusal, serving

WIRE = messages("open_inference.grpc_service_pb2")


@contextmanager
def by_hand(package: Path, listen: str) -> Iterator[subprocess.Popen[str]]:
    """python -m polystill.serve_model, as a person starts it."""
    command = [sys.executable, "-B", "-m", "polystill.serve_model", str(package), "--listen", listen]
    log = package.parent / "upstream.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=REPO / "python", stdout=file, stderr=file, text=True)
    try:
        wait_for_text(log, "serving 'judge' with logits, embedding, hidden.0 on cpu", process)
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def test_answers_are_those_of_the_upstream_server(tmp_path: Path) -> None:
    """Which may be away for a while."""
    address = f"127.0.0.1:{free_port()}"
    model = python_package(tmp_path / "model")
    package = upstream_package(tmp_path / "package", address, answer_seconds=20)
    with by_hand(model, address) as upstream, serving(package, tmp_path / "serve") as served:
        said = served.client._describe_raw()
        assert (said.backend, said.repeatable) == ("open_inference", False)
        outputs = ["logits", "embedding", "hidden.0"]
        answer = served.client.label(ROWS, outputs=outputs)
        for name in outputs:
            by_numpy = np.concatenate([np.atleast_2d(expected(row)[name]) for row in ROWS])
            np.testing.assert_allclose(answer[name], by_numpy, atol=1e-6, rtol=0)
        with pytest.raises(TeacherError, match=r"model 'judge' of the inference server at .*ValueError: no such word"):
            served.client.label([[7, 7, 1]])
        upstream.send_signal(signal.SIGKILL)
        upstream.wait()
        with pytest.raises(TeacherUnavailable, match=f"the inference server at {address}"):
            served.client.label([[1, 2]])
        with by_hand(model, address), TeacherClient(served.client.address, retry_for=60) as patient:
            np.testing.assert_allclose(patient.label([[1, 2]])["logits"][0], expected([1, 2])["logits"], atol=1e-6)


def test_rows_are_not_filled_up(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    model = python_package(tmp_path / "model")
    with (
        by_hand(model, address),
        serving(upstream_package(tmp_path / "package", address), tmp_path / "serve") as served,
    ):
        served.client.label([[1, 2, 3], [4], list(range(1, 10))])
    said = (tmp_path / "upstream.log").read_text()
    assert "batch 2 8 int64" in said and "batch 1 16 int64" in said


class Fake:
    """A server whose answers a test makes. As it stands logits [rows, 3] of ones, typed."""

    def __init__(self) -> None:
        self.metadata = WIRE.ModelMetadataResponse(name="judge")
        for name in ("input_ids", "attention_mask"):
            self.metadata.inputs.add(name=name, datatype="INT64", shape=[-1, -1])
        self.metadata.outputs.add(name="logits", datatype="FP32", shape=[-1, 3])
        self.change: Callable[[Any], Any] = lambda response: None
        self.asked: list[Any] = []
        self.lock = threading.Lock()

    def infer(self, request: Any, context: Any) -> Any:
        with self.lock:
            self.asked.append(request)
        rows = request.inputs[0].shape[0]
        response = WIRE.ModelInferResponse(model_name="judge")
        response.outputs.add(name="logits", datatype="FP32", shape=[rows, 3])
        response.outputs[0].contents.fp32_contents.extend([1.0] * (3 * rows))
        self.change(response)
        return response

    def handlers(self) -> Any:
        methods = {
            "ModelMetadata": (lambda request, context: self.metadata, WIRE.ModelMetadataRequest),
            "ModelInfer": (self.infer, WIRE.ModelInferRequest),
        }
        return grpc.method_handlers_generic_handler(
            "inference.GRPCInferenceService",
            {
                name: grpc.unary_unary_rpc_method_handler(
                    method,
                    request_deserializer=kind.FromString,
                    response_serializer=lambda made: made.SerializeToString(),
                )
                for name, (method, kind) in methods.items()
            },
        )


@pytest.fixture
def fake() -> Iterator[tuple[Fake, str]]:
    made = Fake()
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((made.handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, f"127.0.0.1:{port}"
    server.stop(None)


def test_the_request_is_the_protocols(tmp_path: Path, fake: tuple[Fake, str]) -> None:
    made, address = fake
    made.metadata.inputs[0].name = "tokens"
    made.metadata.outputs[0].name = "scores"
    made.change = lambda response: setattr(response.outputs[0], "name", "scores")
    keys = {"ids": "tokens", "version": "2", "outputs": {"logits": "scores"}}
    with serving(upstream_package(tmp_path / "package", address, **keys), tmp_path / "serve") as served:
        made.asked.clear()
        assert np.array_equal(served.client.label([[5, 6, 7]])["logits"], np.ones((1, 3)))
        (request,) = made.asked
    assert (request.model_name, request.model_version) == ("judge", "2")
    assert [given.name for given in request.inputs] == ["tokens", "attention_mask"]
    ids, mask = (np.frombuffer(raw, "<i8").tolist() for raw in request.raw_input_contents)
    assert ids == [5, 6, 7, 0, 0, 0, 0, 0] and mask == [1, 1, 1, 0, 0, 0, 0, 0]
    assert [wanted.name for wanted in request.outputs] == ["scores"]


def wider(response: Any) -> None:
    response.outputs[0].shape[1] = 4


def too_many(response: Any) -> None:
    response.outputs[0].ClearField("contents")
    response.raw_output_contents.append(b"\0" * 4096)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (wider, r"'logits' is FP32 \[1, 4\], it must be FP32 \[1, 3\]"),
        (too_many, "comes with 4096 bytes of float32, not 12"),
        (lambda response: response.ClearField("outputs"), "the answer lacks 'logits'; it holds none"),
        (lambda response: setattr(response.outputs[0], "datatype", "FP64"), r"'logits' is FP64 \[1, 3\]"),
        (lambda response: response.outputs[0].contents.fp32_contents.__setitem__(1, float("nan")), "number 1 is nan"),
    ],
)
def test_hostile_answers_are_refused_and_passed(
    tmp_path: Path, fake: tuple[Fake, str], change: Callable[[Any], Any], words: str
) -> None:
    made, address = fake
    with serving(upstream_package(tmp_path / "package", address), tmp_path / "serve") as served:
        made.change = change
        with pytest.raises(TeacherError, match=words):
            served.client.label([[1]])
        made.change = lambda response: None
        assert served.client.label([[1]])["logits"].shape == (1, 3)


def test_several_batches_are_asked_for_at_once(tmp_path: Path, fake: tuple[Fake, str]) -> None:
    made, address = fake
    package = upstream_package(tmp_path / "package", address, requests=3)
    with serving(package, tmp_path / "serve", "--batch-records", "1") as served:
        together = threading.Barrier(3, timeout=30)
        made.change = lambda response: together.wait()
        with futures.ThreadPoolExecutor(3) as callers:
            answers = list(callers.map(lambda length: served.client.label([[1] * length])["logits"], (1, 10, 20)))
        assert all(answer.shape == (1, 3) for answer in answers)


def test_an_answer_that_stays_away_is_unavailable(tmp_path: Path, fake: tuple[Fake, str]) -> None:
    made, address = fake
    with serving(upstream_package(tmp_path / "package", address, answer_seconds=1), tmp_path / "serve") as served:
        held = threading.Event()
        made.change = lambda response: held.wait(60)
        try:
            with pytest.raises(TeacherUnavailable, match=r"gave no answer within 1 s \(upstream.answer_seconds\)"):
                served.client.label([[1]])
        finally:
            held.set()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"ids": "ids"}, "teacher.yaml: upstream.ids: the model has no input 'ids'"),
        ({"outputs": {"logits": "scores"}}, "upstream.outputs.logits: the model has no output 'scores'"),
        ({"outputs": {"scores": "logits"}}, "upstream.outputs.scores: is none; write logits, embedding"),
        ({"requests": 0}, "upstream.requests"),
        ({"model": ""}, "upstream.model"),
    ],
)
def test_manifests_that_do_not_fit_are_refused(
    tmp_path: Path, fake: tuple[Fake, str], keys: dict[str, Any], words: str
) -> None:
    assert words in refusal(upstream_package(tmp_path / "package", fake[1], **keys))


def test_a_model_of_other_classes_is_refused(tmp_path: Path, fake: tuple[Fake, str]) -> None:
    made, address = fake
    made.change = wider
    assert "'logits' is FP32 [2, 4], it must be FP32 [2, 3]" in refusal(upstream_package(tmp_path / "package", address))


def test_an_unknown_model_is_named(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with by_hand(python_package(tmp_path / "model"), address):
        said = refusal(upstream_package(tmp_path / "package", address, model="other"))
    assert f"model 'other' of the inference server at {address}: there is no model 'other'; this is 'judge'" in said


def test_nobody_at_the_address_is_named(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    said = refusal(upstream_package(tmp_path / "package", address, answer_seconds=1))
    assert f"the inference server at {address} gave no answer within 1 s" in said
