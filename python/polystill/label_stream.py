"""One call of TeacherClient.label_stream: what is in flight, what is to be sent again, what may be handed out."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import grpc

from polystill.backoff import Backoff
from polystill.errors import TeacherClosed, TeacherError, TeacherRefused, TeacherTimeout
from polystill.labels import Description, Labels
from polystill.requests import Batch, Gathered, Input, Question, Request, cut

_OK = 0
_CODES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


class _Call:
    """One gRPC stream: messages go into `outbox`, what comes is put into `events` by a thread of its own."""

    def __init__(self, open_call: Callable[[Iterator[Any]], Any], first: Any, events: queue.SimpleQueue[Any]) -> None:
        self.outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.outbox.put(first)
        self._events = events
        self._call = open_call(iter(self.outbox.get, None))
        threading.Thread(target=self._read, daemon=True, name="polystill-labels").start()

    def _read(self) -> None:
        try:
            for message in self._call:
                self._events.put((self, message))
            self._events.put((self, None))
        except grpc.RpcError as error:
            self._events.put((self, error))

    def close(self) -> None:
        self.outbox.put(None)
        self._call.cancel()


class LabelStream:
    """
    batches --take--> waiting requests --credits, pauses--> flying --reply--> gathered --in order--> answers
                            ^---- UNAVAILABLE, RESOURCE_EXHAUSTED, a broken stream ----'

    For one thread. The caller's iterator is asked for more only while fewer records than the server's credits have
    been taken and not handed out.
    """

    def __init__(
        self,
        *,
        wire: Any,
        open_call: Callable[[Iterator[Any]], Any],
        teacher: Description,
        question: Question,
        name: str,
        retry_for: float,
        backoff: Backoff,
        closed: threading.Event,
        error_of: Callable[[str, str], TeacherError],
        retried: Sequence[str],
    ) -> None:
        self._wire, self._open_call, self._teacher, self._question = wire, open_call, teacher, question
        self._name, self._retry_for, self._backoff, self._closed = name, retry_for, backoff, closed
        self._error_of, self._retried = error_of, retried
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call: _Call | None = None
        self._next_id = 0
        self._waiting: deque[Request] = deque()
        self._flying: dict[int, Request] = {}
        # Batches that were taken and not handed out, by their number.
        self._gathered: dict[int, Gathered] = {}
        # Those of them that are complete, the first to be so first.
        self._complete: dict[int, None] = {}
        # Records of both.
        self._in_flight = 0
        self._taken = 0

    def answers(self, batches: Iterable[Batch | Sequence[Input]], ordered: bool) -> Iterator[Labels]:
        source = enumerate(batches)
        exhausted = False
        try:
            while not exhausted or self._gathered:
                takes = not exhausted and self._has_room()
                if takes:
                    exhausted = not self._take(source)
                self._send()
                self._listen(0.0 if takes else None)
                yield from self._ready(ordered)
        finally:
            if self._call is not None:
                self._call.close()

    def _has_room(self) -> bool:
        return self._taken < self._teacher.stream_credits

    def _take(self, source: Iterator[tuple[int, Batch | Sequence[Input]]]) -> bool:
        for index, given in source:
            batch = given if isinstance(given, Batch) else Batch(given)
            requests = cut(self._wire, index, batch, self._question, self._teacher)
            self._gathered[index] = Gathered(index, requests, self._question, self._teacher)
            self._note_complete(index)
            self._taken += self._gathered[index].records
            self._waiting.extend(requests)
            return True
        return False

    def _ready(self, ordered: bool) -> Iterator[Labels]:
        """Takes out the batches that may be handed out."""
        for index in list(self._gathered if ordered else self._complete):
            if index not in self._complete:
                return
            del self._complete[index]
            gathered = self._gathered.pop(index)
            self._taken -= gathered.records
            yield gathered.labels()

    def _note_complete(self, index: int) -> None:
        if self._gathered[index].complete:
            self._complete[index] = None

    def _send(self) -> None:
        now = time.monotonic()
        for _ in range(len(self._waiting)):
            request = self._waiting.popleft()
            if request.due > now or self._in_flight + request.records > self._teacher.stream_credits:
                self._waiting.append(request)  # turns the queue; what was refused keeps its place
                continue
            request.began = request.began or now
            self._next_id += 1
            self._flying[self._next_id] = request
            self._in_flight += request.records
            message = request.message(self._wire, self._question, self._next_id)
            self._opened().outbox.put(self._wire.LabelStreamRequest(request=message))

    def _opened(self) -> _Call:
        if self._call is None:
            hello = self._wire.LabelStreamRequest(open={"protocol_version": 1, "client": self._name})
            try:
                self._call = _Call(self._open_call, hello, self._events)
            except ValueError as error:  # what gRPC says of a channel that another thread closed
                raise TeacherClosed("CANCELLED", "the client was closed") from error
        return self._call

    def _listen(self, patience: float | None) -> None:
        """Takes the events that are there; with patience None and something to wait for, waits for one."""
        if patience is None and (self._flying or self._waiting):
            self._handle_next(self._until_next())
        while not self._events.empty():
            self._handle_next(0.0)
        self._check_deadlines()

    def _until_next(self) -> float:
        """Seconds until something must be done if nothing comes."""
        now = time.monotonic()
        times = [request.due for request in self._waiting if request.due > now]
        if self._question.timeout is not None:
            times += [request.began + self._question.timeout for request in self._flying.values()]
        return max(0.0, min([now + 60.0, *times]) - now)

    def _handle_next(self, seconds: float) -> None:
        try:
            call, event = self._events.get(timeout=seconds) if seconds > 0 else self._events.get_nowait()
        except queue.Empty:
            return
        if call is not self._call:
            return  # of a stream that was given up
        if event is None or isinstance(event, grpc.RpcError):
            self._broken(event)
        elif event.WhichOneof("message") == "opened":
            self._check_teacher(event.opened)
        else:
            self._answered(event.reply)

    def _check_teacher(self, opened: Any) -> None:
        if opened.digest != self._teacher.digest:
            raise TeacherRefused(
                "FAILED_PRECONDITION",
                f"the server's teacher is another than before: '{opened.name}', {opened.digest}; make a new client",
            )

    def _answered(self, reply: Any) -> None:
        request = self._flying.pop(reply.request_id, None)
        if request is None:
            message = f"the server sent an answer to request {reply.request_id}, which is not in flight"
            raise TeacherError("DATA_LOSS", message)
        self._in_flight -= request.records
        if reply.code == _OK:
            self._gathered[request.batch].add(request, reply)
            self._note_complete(request.batch)
            return
        code = _CODES.get(reply.code)
        if code is None:
            message = f"{request.of_whom()}: the server answered with code {reply.code}, which gRPC does not know"
            raise TeacherError("DATA_LOSS", message)
        self._again(request, code, reply.message, reply.retry_after_ms / 1e3)

    def _again(self, request: Request, code: str, message: str, at_least: float = 0.0) -> None:
        pause = max(self._backoff.pause(request.attempt), at_least)
        now = time.monotonic()
        if code not in self._retried or now + pause > request.began + self._retry_for:
            raise self._error_of(code, f"{request.of_whom()}: {message}")
        request.attempt += 1
        request.due = now + pause
        self._waiting.appendleft(request)

    def _broken(self, error: grpc.RpcError | None) -> None:
        if self._call is not None:
            self._call.close()
        self._call = None
        code, details = ("UNAVAILABLE", "the server ended the stream")
        if error is not None:
            code, details = error.code().name, error.details() or ""
        if self._closed.is_set():
            raise TeacherClosed("CANCELLED", "the client was closed")
        flying, self._flying = list(self._flying.values()), {}
        self._in_flight = 0
        if code not in self._retried:
            raise self._error_of(code, details)
        for request in reversed(flying):
            self._again(request, code, details)

    def _check_deadlines(self) -> None:
        if self._question.timeout is None:
            return
        now = time.monotonic()
        for request in [*self._flying.values(), *self._waiting]:
            if request.began and now > request.began + self._question.timeout:
                message = f"{request.of_whom()}: no answer within {self._question.timeout} s"
                raise TeacherTimeout("DEADLINE_EXCEEDED", message)
