"""The errors Forage raises: each class has one gRPC status code and one machine-readable reason.

Services raise these and never touch `context.set_code`; the error interceptor in
`forage.serving` turns them into a status with a `google.rpc.ErrorInfo` (AIP-193). Clients get the
same classes back from `forage.client`. `docs/errors.md` lists every reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import grpc

ERROR_DOMAIN = "forage"


class ForageError(Exception):
    """Base of every error a caller of Forage may see.

    `message` is for a person; whatever varies in it is repeated in `metadata` for a program.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    reason: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, *, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})


class InvalidArgumentError(ForageError):
    """A request field has a value that is not allowed, whatever the state of the system."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_FIELD"

    def __init__(self, field: str, problem: str, *, allowed: str) -> None:
        super().__init__(
            f"{field}: {problem}; allowed: {allowed}",
            metadata={"field": field, "allowed": allowed},
        )
        self.field = field
        self.allowed = allowed


class NotFoundError(ForageError):
    """The thing named by the request (an item, a request id, a snapshot) is not known."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class FailedPreconditionError(ForageError):
    """The request is well formed but the system is not in the state it needs."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class ConflictError(ForageError):
    """Somebody else changed the value first (compare-and-set lost); read again and retry."""

    code = grpc.StatusCode.ABORTED
    reason = "CONFLICT"


class OverloadedError(ForageError):
    """The service sheds this request to keep its other promises; retry with backoff."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"


class UnavailableError(ForageError):
    """The service cannot look right now (index rebuilding, engine gone); retry with backoff."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"


class StorageError(UnavailableError):
    """The event log or a store cannot be written or read: disk full, read-only, or damaged."""

    reason = "STORAGE"


class DeadlineExceededError(ForageError):
    """The caller's deadline passed before the work was done."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class InternalError(ForageError):
    """A defect of Forage itself; the trace id in the message finds the log line."""

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"


class StartupError(ForageError):
    """The process cannot start: bad configuration, a taken port, a missing or newer file.

    The command line prints the message on stderr and exits with status 2.
    """

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "STARTUP"
