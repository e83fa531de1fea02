"""A teacher server in Python that does what a test tells it to: refuses, stays silent, breaks streams, lies."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from polystill import wire

CREDITS, MOST_RECORDS = 8, 4


def logits_of(value: Any) -> list[float]:
    """Of a LabelInput: its number of characters or ids, and that with the other sign."""
    size = len(value.text) or len(value.ids.ids)
    return [float(size), -float(size)]


@dataclass
class FakeTeacher:
    """`failures`: taken one for each request, (code, retry_after_ms); None lets it be answered. `breaks`: streams that
    end with UNAVAILABLE after so many answers. `hold`: answers of a stream wait for so many requests at first, and
    come the last first. `spoil` changes an answer. `silent`: nothing is answered."""

    failures: deque[tuple[grpc.StatusCode, int] | None] = field(default_factory=deque)
    breaks: deque[int] = field(default_factory=deque)
    hold: int = 1
    spoil: Callable[[Any], None] = lambda reply: None
    silent: bool = False
    digest: str = "d" * 64
    # What was seen.
    sizes: list[int] = field(default_factory=list)
    most_in_flight: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.wire = wire.messages()

    def describe(self, request: Any, context: grpc.ServicerContext) -> Any:
        signature = {"input": 1, "vocab_size": 100, "max_length": 50, "labels": ["a", "b"]}
        return self.wire.DescribeReply(
            protocol_version=1,
            name="fake",
            digest=self.digest,
            signature=signature,
            stream_credits=CREDITS,
            max_records_per_request=MOST_RECORDS,
            features=[{"name": "hidden.1", "width": 3}],
        )

    def reply(self, request: Any) -> Any:
        reply = self.wire.LabelReply(request_id=request.request_id, teacher_digest=self.digest)
        self.sizes.append(len(request.inputs))
        failure = self.failures.popleft() if self.failures else None
        if failure is not None:
            reply.code, reply.retry_after_ms = failure[0].value[0], failure[1]
            reply.message = f"record '{request.inputs[0].id}': no"
            return reply
        for output in request.spec.outputs:
            numbers = [logits_of(value) for value in request.inputs]
            if output == "hidden.1":
                numbers = [[float(i)] * 3 for value in request.inputs for i in value.ids.ids]
            half = request.spec.codec == 2
            array = np.array(numbers, "<f2" if half else "<f4")
            dense = {"dtype": 2 if half else 1, "shape": array.shape, "data": array.tobytes()}
            reply.labels.add(codec=request.spec.codec, dense=dense)
        self.spoil(reply)
        return reply

    def label(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.set()
        if self.silent:
            context.add_callback(self.cancelled.set)
            self.cancelled.wait(60)
        reply = self.reply(request)
        if reply.code:
            code = next(code for code in grpc.StatusCode if code.value[0] == reply.code)
            if reply.retry_after_ms:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", str(reply.retry_after_ms)),))
            context.abort(code, reply.message)
        return reply

    def label_stream(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(self.cancelled.set)
        assert next(requests).WhichOneof("message") == "open"
        yield self.wire.LabelStreamReply(opened=self.describe(None, context))
        left = self.breaks.popleft() if self.breaks else None
        waiting: list[Any] = []
        hold = self.hold
        for message in requests:
            self.asked.set()
            waiting.append(message.request)
            self.most_in_flight = max(self.most_in_flight, sum(len(request.inputs) for request in waiting))
            if self.silent or len(waiting) < hold:
                continue
            hold = 1
            while waiting:
                if left == 0:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
                left = None if left is None else left - 1
                yield self.wire.LabelStreamReply(reply=self.reply(waiting.pop()))

    def start(self, port: int = 0) -> tuple[grpc.Server, str]:
        handlers = {
            "Describe": grpc.unary_unary_rpc_method_handler(
                self.describe, self.wire.DescribeRequest.FromString, self.wire.DescribeReply.SerializeToString
            ),
            "Label": grpc.unary_unary_rpc_method_handler(
                self.label, self.wire.LabelRequest.FromString, self.wire.LabelReply.SerializeToString
            ),
            "LabelStream": grpc.stream_stream_rpc_method_handler(
                self.label_stream,
                self.wire.LabelStreamRequest.FromString,
                self.wire.LabelStreamReply.SerializeToString,
            ),
        }
        server = grpc.server(ThreadPoolExecutor(16))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("polystill.v1.TeacherService", handlers),)
        )
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        return server, f"127.0.0.1:{bound}"
