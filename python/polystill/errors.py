"""What goes wrong, by whom it can be put right."""

from __future__ import annotations


class PolystillError(Exception):
    """What every function of this package raises when something outside of it is wrong: a file, a model, a server."""


class PackageError(PolystillError):
    """A model package that is torn, or says something that does not fit; names the file and the key."""


class ExportError(PolystillError):
    """A model that cannot become a package, or whose package does not answer as it does."""


class TeacherError(PolystillError):
    """A teacher server said no, or nothing. `code` is the name of the gRPC code, e.g. INVALID_ARGUMENT."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class TeacherRefused(TeacherError):
    """The request does not fit the teacher; asking again would not help. The message names the record."""


class TeacherUnavailable(TeacherError):
    """No server answered, or it stayed too busy, until `retry_for` had passed."""


class TeacherTimeout(TeacherError):
    """The answer did not come within `timeout`."""


class TeacherClosed(TeacherError):
    """The client was closed while it waited for an answer."""
