"""What a teacher says: its description, and answers as arrays of float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polystill.errors import TeacherError

LOGITS = "logits"
CODECS = {"dense_fp32": 1, "dense_fp16": 2}
_DTYPES = {"dense_fp32": (1, "<f4"), "dense_fp16": (2, "<f2")}
_TOKEN_TASKS = ("token_classification", "masked_lm")


def is_of_tokens(output: str, task: str) -> bool:
    """Whether an output has a row for each token, and not for each record."""
    return output.startswith("hidden.") or (output == LOGITS and task in _TOKEN_TASKS)


@dataclass(frozen=True)
class Description:
    """What a server says of its teacher: DescribeReply of proto/polystill/v1/teacher.proto."""

    name: str
    # Lower-case hex SHA-256 over every file of the package.
    digest: str
    # "text" or "ids".
    input: str
    vocab_size: int
    max_length: int
    # In the order of the logits; none with masked_lm, and where the teacher gives features alone.
    labels: tuple[str, ...]
    task: str
    mask_id: int
    # Name -> width.
    features: Mapping[str, int]
    stream_credits: int
    max_records_per_request: int
    repeatable: bool
    tokenizer_sha256: str

    @classmethod
    def of(cls, reply: Any) -> Description:
        signature = reply.signature
        task = type(signature).DESCRIPTOR.fields_by_name["task"].enum_type.values_by_number[signature.task or 1].name
        return cls(
            name=reply.name,
            digest=reply.digest,
            input="text" if signature.input == 1 else "ids",
            vocab_size=signature.vocab_size,
            max_length=signature.max_length,
            labels=tuple(signature.labels),
            task=task.removeprefix("TASK_").lower(),
            mask_id=signature.mask_id,
            features={feature.name: feature.width for feature in reply.features},
            stream_credits=reply.stream_credits,
            max_records_per_request=reply.max_records_per_request,
            repeatable=reply.repeatable,
            tokenizer_sha256=reply.tokenizer_sha256,
        )

    @property
    def logits(self) -> int:
        """How many logits a row has; 0 where the teacher gives features alone."""
        if self.task == "masked_lm":
            return self.vocab_size
        return 1 if self.task == "binary" else len(self.labels)

    def width(self, output: str) -> int:
        """Numbers of a row. ValueError lists the outputs that there are."""
        known = ({LOGITS: self.logits} if self.logits else {}) | dict(self.features)
        if output not in known:
            raise ValueError(f"output {output!r} is not known; teacher '{self.name}' gives {', '.join(known)}")
        return known[output]

    def default_outputs(self) -> tuple[str, ...]:
        """The logits, or every feature of a record where there are none."""
        return (LOGITS,) if self.logits else tuple(name for name in self.features if not name.startswith("hidden."))


class Labels(Mapping[str, NDArray[np.float32]]):
    """The answer about one batch: for each output an array [rows, width] of float32.

    A row a record; of tokens (`hidden.N`; logits of tokens) a row for each token sent, or at `positions`, record after
    record: `of(record, output)` are those of one record.
    """

    def __init__(self, index: int, outputs: dict[str, NDArray[np.float32]], offsets: dict[str, list[int]]) -> None:
        # Which batch of a stream it answers, from 0.
        self.index = index
        self._outputs = outputs
        self._offsets = offsets

    def __getitem__(self, output: str) -> NDArray[np.float32]:
        return self._outputs[output]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def of(self, record: int, output: str = LOGITS) -> NDArray[np.float32]:
        """Of one record of the batch: [width], of tokens [tokens, width]."""
        array, offsets = self._outputs[output], self._offsets.get(output)
        return array[record] if offsets is None else array[offsets[record] : offsets[record + 1]]


def decode(message: Any, codec: str, rows: int, width: int, of_whom: str) -> NDArray[np.float32]:
    """One output of a reply, as soft_labels/FORMAT.md says; TeacherError (DATA_LOSS) when it is something else."""
    dtype, layout = _DTYPES[codec]
    dense = message.dense
    expected = [rows, width]
    size = rows * width * np.dtype(layout).itemsize
    if message.codec != CODECS[codec] or dense.dtype != dtype or list(dense.shape) != expected:
        raise TeacherError(
            "DATA_LOSS",
            f"{of_whom}: the answer is no {codec} {expected}, but codec {message.codec} {list(dense.shape)}",
        )
    if len(dense.data) != size:
        raise TeacherError("DATA_LOSS", f"{of_whom}: the answer has {len(dense.data)} bytes, not {size}")
    array = np.frombuffer(dense.data, layout).reshape(rows, width).astype(np.float32)
    if not np.isfinite(array).all():
        raise TeacherError("DATA_LOSS", f"{of_whom}: the answer holds numbers that are not finite")
    return array


def join(index: int, parts: Sequence[dict[str, NDArray[np.float32]]], token_rows: dict[str, list[int]]) -> Labels:
    """One answer of the answers to a batch's requests; `token_rows`: rows of each record, of outputs of tokens."""
    names = parts[0]
    arrays = {name: parts[0][name] if len(parts) == 1 else np.concatenate([p[name] for p in parts]) for name in names}
    offsets = {name: [0, *np.cumsum(rows).tolist()] for name, rows in token_rows.items()}
    return Labels(index, arrays, offsets)
