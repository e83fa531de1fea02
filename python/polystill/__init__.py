"""Polystill from Python.

- `TeacherClient`: asks a teacher server for logits and features.
- `load_student`: a trained student (or any native or TorchScript package) as a torch.nn.Module.
- `export`: a torch.nn.Module as a teacher package; `polystill-export` does it with HuggingFace's models.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from polystill.errors import (
    ExportError,
    PackageError,
    PolystillError,
    TeacherClosed,
    TeacherError,
    TeacherRefused,
    TeacherTimeout,
    TeacherUnavailable,
)

if TYPE_CHECKING:
    from polystill.backoff import Backoff
    from polystill.client import TeacherClient
    from polystill.codecs import Codec
    from polystill.exporter import export
    from polystill.labels import Description, Labels
    from polystill.package import Signature
    from polystill.requests import Batch
    from polystill.student import Student, load_student

# Imported when they are used: who asks a server needs no torch, who loads a student no gRPC.
_HOMES = {
    "Backoff": "backoff",
    "Batch": "requests",
    "Codec": "codecs",
    "Description": "labels",
    "Labels": "labels",
    "Signature": "package",
    "Student": "student",
    "TeacherClient": "client",
    "export": "exporter",
    "load_student": "student",
}

__all__ = [
    "Backoff",
    "Batch",
    "Codec",
    "Description",
    "ExportError",
    "Labels",
    "PackageError",
    "PolystillError",
    "Signature",
    "Student",
    "TeacherClient",
    "TeacherClosed",
    "TeacherError",
    "TeacherRefused",
    "TeacherTimeout",
    "TeacherUnavailable",
    "export",
    "load_student",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'polystill' has no attribute {name!r}")
    return getattr(importlib.import_module(f"polystill.{_HOMES[name]}"), name)
