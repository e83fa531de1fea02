"""Asks a teacher server for labels: logits and features of texts or token ids, as numpy arrays."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

import grpc

from polystill.backoff import Backoff
from polystill.codecs import Codec
from polystill.errors import TeacherClosed, TeacherError, TeacherRefused, TeacherTimeout, TeacherUnavailable
from polystill.label_stream import LabelStream
from polystill.labels import Description, Labels
from polystill.requests import PRIORITIES, Batch, Gathered, Input, Question, Request, cut
from polystill.wire import messages

METHOD = "/polystill.v1.TeacherService/"
# As the servers' own: a peer that has vanished shows within ten seconds.
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", 32 << 20),
    ("grpc.max_send_message_length", 32 << 20),
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 8_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_http_proxy", 0),
]
RETRIED = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")


def error_of(code: str, message: str) -> TeacherError:
    kinds: dict[str, type[TeacherError]] = {
        "DEADLINE_EXCEEDED": TeacherTimeout,
        "CANCELLED": TeacherClosed,
        "INVALID_ARGUMENT": TeacherRefused,
        "FAILED_PRECONDITION": TeacherRefused,
    }
    return (TeacherUnavailable if code in RETRIED else kinds.get(code, TeacherError))(code, message)


def _pushback(error: grpc.RpcError) -> float | None:
    """Seconds after which the server wants to be asked again, as gRPC's retries know it; negative: never."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-retry-pushback-ms":
            return int(value) / 1e3
    return None


class TeacherClient:
    """A client of one teacher server.

        with polystill.TeacherClient("127.0.0.1:7070") as teacher:
            logits = teacher.label(["a text", "another"])["logits"]           # [2, labels]
            for labels in teacher.label_stream(batches):                      # many requests in flight, in order
                print(labels["logits"])

    What a busy or restarting server does not answer (UNAVAILABLE, RESOURCE_EXHAUSTED) is asked again, with growing
    pauses, or the longer ones that the server asks for, until `retry_for` seconds have passed. Errors are TeacherError;
    those of records name the record. Threads may share a client; `close` lets every call of every thread end with
    TeacherClosed.
    """

    def __init__(
        self,
        address: str,
        *,
        name: str = "python",
        timeout: float | None = 60.0,
        retry_for: float = 60.0,
        backoff: Backoff | None = None,
        teacher_digest: str = "",
        tenant: str = "",
        priority: str = "on_demand",
    ) -> None:
        """`address`: host:port. `name`: who asks, for the server's log. `timeout`: seconds for each request, retries
        included; None: any. `teacher_digest`: of the package that must answer (FAILED_PRECONDITION if another does).
        `tenant`: for whom; a server that is asked for more than it can do shares its tokens equally among tenants.
        `priority`: "on_demand" or "training"; where both wait, training gets nine tenths of the tokens.
        """
        if ":" not in address:
            raise ValueError(f"address {address!r} is not host:port")
        if not re.fullmatch(r"[a-z0-9._-]{0,64}", tenant):
            raise ValueError(f"tenant {tenant!r}: give at most 64 of the characters a-z 0-9 . _ -")
        if priority not in PRIORITIES:
            raise ValueError(f"priority {priority!r}: give one of {', '.join(PRIORITIES)}")
        self.address = address
        self._name = name
        self._timeout = timeout
        self._retry_for = retry_for
        self._backoff = backoff or Backoff()
        self._digest = teacher_digest
        self._metadata = (("polystill-tenant", tenant),) if tenant else None
        self._priority = priority
        self._wire = messages()
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._closed = threading.Event()
        self._description: Description | None = None

    def __enter__(self) -> TeacherClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is in flight; once is enough, more do no harm."""
        self._closed.set()
        self._channel.close()

    def describe(self) -> Description:
        """The teacher's signature and limits, as the server says now."""
        self._description = Description.of(self._describe_raw())
        return self._description

    def _describe_raw(self) -> Any:
        return self._retry(
            lambda: self._unary(
                "Describe", self._wire.DescribeRequest(protocol_version=1), self._wire.DescribeReply, self._timeout
            ),
            "describe",
        )

    def label(
        self,
        inputs: Sequence[Input],
        *,
        outputs: Sequence[str] | None = None,
        codec: str | Codec = "dense_fp32",
        record_ids: Sequence[str] | None = None,
        positions: Sequence[Sequence[int]] | None = None,
        score_ids: Sequence[Sequence[int]] | None = None,
        draw: int = 0,
        timeout: float | None = None,
    ) -> Labels:
        """Answers about texts or lists of token ids, as many as you like.

        `outputs`: "logits" (the default where there are any) and features of `describe()`. `codec`: how numbers
        travel, dense_fp32, dense_fp16, dense_bf16 or dense_int8, to arrive as float32; or of logits a `Codec`: top_k,
        sampled, scores, classes, hidden_head. `record_ids`: names for errors. `positions`: of logits of tokens, those
        wanted. `score_ids`: ids of logits for each record, with codec scores. `draw`: with codec sampled, which draw of
        these records it is. `timeout`: seconds for each request, in place of the client's.
        """
        question = self._question(outputs, codec, timeout)
        teacher = self._teacher()
        batch = Batch(inputs, record_ids, positions, score_ids, draw)
        requests = cut(self._wire, 0, batch, question, teacher)
        if len(requests) > 1:
            return next(self.label_stream([batch], outputs=outputs, codec=codec, timeout=timeout))
        gathered = Gathered(0, requests, question, teacher)
        for request in requests:
            gathered.add(request, self._ask(request, question))
        return gathered.labels()

    def label_stream(
        self,
        batches: Iterable[Batch | Sequence[Input]],
        *,
        outputs: Sequence[str] | None = None,
        codec: str | Codec = "dense_fp32",
        ordered: bool = True,
        timeout: float | None = None,
    ) -> Iterator[Labels]:
        """Answers about batches of records, one for each, by one stream with as many requests in flight as the server
        gives credits for. `batches` is read only as far ahead as that. `ordered=False`: answers as they come;
        `Labels.index` says which batch each is of. Leaving the loop early cancels what is in flight.
        """
        question = self._question(outputs, codec, timeout)
        return LabelStream(
            wire=self._wire,
            open_call=self._open_stream,
            teacher=self._teacher(),
            question=question,
            name=self._name,
            retry_for=self._retry_for,
            backoff=self._backoff,
            closed=self._closed,
            error_of=error_of,
            retried=RETRIED,
        ).answers(batches, ordered)

    def head(self) -> bytes:
        """The teacher's output head, which makes logits of what codec hidden_head gives: a safetensors file with weight
        [logits, width] and bias [logits]. TeacherError (NOT_FOUND) where the teacher gives none away.
        """
        described = self._describe_raw().head
        method = self._channel.unary_stream(
            METHOD + "GetHead",
            request_serializer=self._wire.GetHeadRequest.SerializeToString,
            response_deserializer=self._wire.HeadChunk.FromString,
        )
        request = self._wire.GetHeadRequest(protocol_version=1, digest=described.digest)

        def once() -> bytes:
            return b"".join(chunk.data for chunk in method(request, timeout=self._timeout))

        data: bytes = self._retry(once, "head")
        if hashlib.sha256(data).hexdigest() != described.digest:
            raise TeacherError("DATA_LOSS", f"{self.address}: the output head has another digest than described")
        return data

    def _teacher(self) -> Description:
        return self._description or self.describe()

    def _question(self, outputs: Sequence[str] | None, codec: str | Codec, timeout: float | None) -> Question:
        teacher = self._teacher()
        names = teacher.default_outputs() if outputs is None else tuple(outputs)
        codec = Codec(codec) if isinstance(codec, str) else codec
        question = Question(names, codec, self._digest, self._timeout if timeout is None else timeout, self._priority)
        question.check(teacher)
        return question

    def _open_stream(self, requests: Iterator[Any]) -> Any:
        method = self._channel.stream_stream(
            METHOD + "LabelStream",
            request_serializer=self._wire.LabelStreamRequest.SerializeToString,
            response_deserializer=self._wire.LabelStreamReply.FromString,
        )
        return method(requests, metadata=self._metadata)

    def _unary(self, method: str, request: Any, reply: Any, timeout: float | None) -> Any:
        call = self._channel.unary_unary(
            METHOD + method, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
        )
        return call(request, timeout=timeout, metadata=self._metadata)

    def _ask(self, request: Request, question: Question) -> Any:
        request.began = time.monotonic()

        def once() -> Any:
            left = None if question.timeout is None else request.began + question.timeout - time.monotonic()
            if left is not None and left <= 0:
                raise TeacherTimeout("DEADLINE_EXCEEDED", f"no answer within {question.timeout} s")
            return self._unary("Label", request.message(self._wire, question, 1), self._wire.LabelReply, left)

        return self._retry(once, request.of_whom())

    def _retry(self, call: Callable[[], Any], of_whom: str) -> Any:
        began = time.monotonic()
        attempt = 0
        while True:
            try:
                if self._closed.is_set():
                    raise TeacherClosed("CANCELLED", f"{of_whom}: the client was closed")
                return call()
            except grpc.RpcError as error:
                code, details = error.code().name, error.details() or ""
                pushback = _pushback(error)
                pause = max(self._backoff.pause(attempt), pushback or 0.0)
                left = began + self._retry_for - time.monotonic()
                if code not in RETRIED or left <= pause or (pushback is not None and pushback < 0):
                    raise error_of(code, f"{self.address}: {of_whom}: {details}") from error
            except ValueError as error:  # what gRPC says of a channel that another thread closed
                if self._closed.is_set():
                    raise TeacherClosed("CANCELLED", f"{of_whom}: the client was closed") from error
                raise
            attempt += 1
            self._closed.wait(pause)
