"""What a request can fail with: the canonical status codes, and one exception that carries them."""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """google.rpc.Code: the numbers that gRPC, TensorFlow and TF Serving share."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """A request that cannot be answered, with the code and the message that the client gets."""

    def __init__(self, code: Code, message: str) -> None:
        """Keep both.

        Args:
            code: what kind of failure it is; never OK.
            message: TF Serving's own wording where clients match on it.
        """
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """As absl::Status prints itself, which TF Serving puts into other messages."""
        return f"{self.code.name}: {self.message}"


def invalid(message: str) -> ServingError:
    """The commonest error: the request itself is wrong."""
    return ServingError(Code.INVALID_ARGUMENT, message)
