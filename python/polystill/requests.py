"""Batches of records, cut into requests that a server takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polystill.codecs import Codec, Decoded, decode
from polystill.errors import TeacherError
from polystill.labels import LOGITS, Description, Labels, is_of_tokens, join

# A text, or the token ids of one.
Input = str | Sequence[int] | NDArray[np.integer[Any]]

# Of a request, as the protocol counts them.
PRIORITIES = {"training": 1, "on_demand": 2}

# A message may have 32 MiB; a request or an answer is kept below half of it, whatever the records.
MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Batch:
    """Records to ask about together."""

    inputs: Sequence[Input]
    # Names of the records, for errors; their places in the batch when left out.
    record_ids: Sequence[str] | None = None
    # Logits of tokens: for each record the places wanted among its ids, ascending; every token when left out.
    positions: Sequence[Sequence[int]] | None = None
    # Codec scores: for each record the ids of logits wanted, as many for each of its rows; row after row.
    score_ids: Sequence[Sequence[int]] | None = None
    # Codec sampled: which draw of these records it is.
    draw: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.inputs, str):
            raise TypeError("a batch is a list of texts, not one text: write [text]")
        for name in ("record_ids", "positions", "score_ids"):
            given = getattr(self, name)
            if given is not None and len(given) != len(self.inputs):
                raise ValueError(f"{name}: {len(given)} for {len(self.inputs)} inputs; give one for each")

    def name(self, record: int) -> str:
        return str(record) if self.record_ids is None else self.record_ids[record]


@dataclass(frozen=True)
class Question:
    """What is wanted of all records of a call."""

    outputs: tuple[str, ...]
    codec: Codec
    teacher_digest: str
    # Seconds that each request may take; None: any.
    timeout: float | None
    # Of PRIORITIES.
    priority: str = "on_demand"

    def check(self, teacher: Description) -> None:
        """ValueError names what the teacher does not give."""
        self.codec.check()
        for output in self.outputs:
            teacher.width(output)
        if not self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise ValueError(f"outputs {list(self.outputs)}: name each output once, and at least one")


@dataclass
class Request:
    """One message: some of a batch's records, and how often it was sent."""

    batch: int
    inputs: list[Any] = field(default_factory=list)
    # For each output, rows of each record.
    rows: dict[str, list[int]] = field(default_factory=dict)
    # For each row of logits, ids asked for.
    scores: list[int] = field(default_factory=list)
    bytes: int = 0
    attempt: int = 0
    # time.monotonic() of the first sending, and of the next.
    began: float = 0.0
    due: float = 0.0

    @property
    def records(self) -> int:
        return len(self.inputs)

    def of_whom(self) -> str:
        first, last = self.inputs[0].id, self.inputs[-1].id
        return f"record '{first}'" if self.records == 1 else f"records '{first}' to '{last}'"

    def message(self, wire: Any, question: Question, request_id: int) -> Any:
        left = 0 if question.timeout is None else max(1, int(1e3 * (self.began + question.timeout - time.monotonic())))
        spec = {
            "outputs": question.outputs,
            "teacher_digest": question.teacher_digest,
        } | question.codec.spec()
        return wire.LabelRequest(
            protocol_version=1,
            request_id=request_id,
            spec=spec,
            inputs=self.inputs,
            timeout_ms=left,
            priority=PRIORITIES[question.priority],
        )

    def decode(self, reply: Any, question: Question, teacher: Description) -> dict[str, Decoded]:
        if len(reply.labels) != len(question.outputs):
            message = f"{self.of_whom()}: {len(reply.labels)} outputs came, not {', '.join(question.outputs)}"
            raise TeacherError("DATA_LOSS", message)
        decoded = {}
        for name, labels in zip(question.outputs, reply.labels, strict=True):
            scores = self.scores if name == LOGITS else [0] * sum(self.rows[name])
            try:
                decoded[name] = decode(labels, question.codec, teacher.width(name), teacher.head_width, scores)
            except ValueError as error:
                raise TeacherError("DATA_LOSS", f"{self.of_whom()}: the answer about {name} {error}") from error
        return decoded


def _input(wire: Any, batch: Batch, record: int) -> Any:
    name, value = batch.name(record), batch.inputs[record]
    try:
        more: dict[str, Any] = {"id": name, "draw": batch.draw}
        more["positions"] = [] if batch.positions is None else [int(place) for place in batch.positions[record]]
        more["score_ids"] = [] if batch.score_ids is None else [int(place) for place in batch.score_ids[record]]
        if isinstance(value, str):
            return wire.LabelInput(text=value, **more)
        ids = np.asarray(value)
        if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
            raise TypeError(f"is neither a text nor a list of token ids, but {value!r:.80}")
        return wire.LabelInput(ids=wire.TokenIds(ids=ids.tolist()), **more)
    except (TypeError, ValueError) as error:  # protobuf's own too: an id beyond 32 bits, half a surrogate pair
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"record '{name}': {error}") from error


def cut(wire: Any, index: int, batch: Batch, question: Question, teacher: Description) -> list[Request]:
    """Requests with at most the records that the server takes and MAX_BYTES there and back. An empty batch: none."""
    most = min(teacher.max_records_per_request, teacher.stream_credits)
    requests: list[Request] = []
    for record in range(len(batch.inputs)):
        made = _input(wire, batch, record)
        rows = {o: (len(made.positions) if o == "logits" else 0) or len(made.ids.ids) for o in question.outputs}
        rows = {o: rows[o] if is_of_tokens(o, teacher.task) else 1 for o in question.outputs}
        scores = len(made.score_ids) // max(1, rows.get(LOGITS, 1))
        row_bytes = {o: question.codec.row_bytes(teacher.width(o), teacher.head_width, scores) for o in rows}
        size = max(made.ByteSize(), sum(rows[o] * row_bytes[o] for o in rows))
        if not requests or requests[-1].records == most or requests[-1].bytes + size > MAX_BYTES:
            requests.append(Request(index, rows={o: [] for o in question.outputs}))
        last = requests[-1]
        last.inputs.append(made)
        last.bytes += size
        last.scores += [scores] * rows.get(LOGITS, 0)
        for output in question.outputs:
            last.rows[output].append(rows[output])
    return requests


class Gathered:
    """The answers to a batch's requests, until they are all there."""

    def __init__(self, index: int, requests: list[Request], question: Question, teacher: Description) -> None:
        self._index, self._requests, self._question, self._teacher = index, requests, question, teacher
        self._answers: dict[int, dict[str, Decoded]] = {}

    @property
    def records(self) -> int:
        return sum(request.records for request in self._requests)

    @property
    def complete(self) -> bool:
        return len(self._answers) == len(self._requests)

    def add(self, request: Request, reply: Any) -> None:
        """TeacherError (DATA_LOSS) for an answer that is not what was asked for."""
        self._answers[id(request)] = request.decode(reply, self._question, self._teacher)

    def labels(self) -> Labels:
        outputs = self._question.outputs
        tokens = [output for output in outputs if is_of_tokens(output, self._teacher.task)]
        if not self._requests:
            empty: dict[str, Decoded] = {o: np.zeros((0, self._teacher.width(o)), np.float32) for o in outputs}
            return join(self._index, [empty], {output: [] for output in tokens})
        rows = {output: [n for request in self._requests for n in request.rows[output]] for output in tokens}
        return join(self._index, [self._answers[id(request)] for request in self._requests], rows)
