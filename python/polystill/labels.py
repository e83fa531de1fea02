"""What a teacher says: its description, and answers as arrays of float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polystill.codecs import Decoded, Packed, concatenate

LOGITS = "logits"
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
    # Numbers that the output head reads; 0 where the teacher does not give it away.
    head_width: int

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
            head_width=reply.head.width,
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


class Labels(Mapping[str, NDArray[Any]]):
    """The answer about one batch: for each output an array [rows, width] of float32, by codec hidden_head of what the
    head reads; by codec classes [rows] of int32. What other codecs hold is to be had from `packed`.

    A row a record; of tokens (`hidden.N`; logits of tokens) a row for each token sent, or at `positions`, record after
    record: `of(record, output)` are those of one record.
    """

    def __init__(self, index: int, outputs: dict[str, Decoded], offsets: dict[str, list[int]]) -> None:
        # Which batch of a stream it answers, from 0.
        self.index = index
        self._outputs = outputs
        self._offsets = offsets

    def __getitem__(self, output: str) -> NDArray[Any]:
        array = self._outputs[output]
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{output!r} came by a codec that holds no array; read labels.packed({output!r})")
        return array

    def packed(self, output: str = LOGITS) -> Packed:
        """What codecs top_k, sampled and scores hold."""
        packed = self._outputs[output]
        if isinstance(packed, np.ndarray):
            raise TypeError(f"{output!r} came as an array; read labels[{output!r}]")
        return packed

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def of(self, record: int, output: str = LOGITS) -> NDArray[Any]:
        """Of one record of the batch: [width], of tokens [tokens, width]."""
        array, offsets = self[output], self._offsets.get(output)
        return array[record] if offsets is None else array[offsets[record] : offsets[record + 1]]


def join(index: int, parts: Sequence[dict[str, Decoded]], token_rows: dict[str, list[int]]) -> Labels:
    """One answer of the answers to a batch's requests; `token_rows`: rows of each record, of outputs of tokens."""
    names = parts[0]
    arrays = {name: concatenate([part[name] for part in parts]) for name in names}
    offsets = {name: [0, *np.cumsum(rows).tolist()] for name, rows in token_rows.items()}
    return Labels(index, arrays, offsets)
