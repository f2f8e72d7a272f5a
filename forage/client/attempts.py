"""How calls are tried: deadline, retries, errors and trace, the same for both clients."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from forage.channel import to_error
from forage.errors import DeadlineExceededError, ForageError, UnavailableError
from forage.retrieval import Deadline
from forage.telemetry import Telemetry

_PROPAGATOR = TraceContextTextMapPropagator()
Metadata = tuple[tuple[str, str], ...]


class UnreachableError(UnavailableError):
    """No Forage server answers at the address; retry once one does."""

    reason = "UNREACHABLE"


@dataclass(frozen=True, slots=True)
class Retry:
    """When a repeatable call that met an unavailable or overloaded server is tried again."""

    first_s: float = 0.05
    """Pause before the second attempt; each further one is twice as long."""
    longest_s: float = 1.0
    for_s: float = math.inf
    """No attempt begins later than this; the call's deadline ends them all."""

    def pauses(self) -> Iterator[float]:
        """Yield the pauses between attempts, in seconds, without end."""
        pause = self.first_s
        while True:
            yield min(pause, self.longest_s)
            pause *= 2


class Attempts:
    """One call's attempts, within one deadline."""

    def __init__(self, retry: Retry, timeout_s: float, retried: frozenset[grpc.StatusCode]) -> None:
        self._pauses = retry.pauses()
        self._until = time.monotonic() + retry.for_s
        self._retried = retried
        self._deadline = Deadline.after(timeout_s)

    def remaining(self) -> float:
        """Return the seconds that the next attempt may take."""
        return max(0.001, self._deadline.remaining())

    def pause_after(self, error: ForageError) -> float:
        """Return how long to pause before the next attempt, or raise the error if there is none."""
        pause = next(self._pauses)
        late = time.monotonic() + pause > self._until or self._deadline.remaining() <= pause
        if error.code not in self._retried or late:
            raise error
        return pause


def not_reached(
    sequence: int, behind: Mapping[str, int], timeout_s: float
) -> DeadlineExceededError:
    """Return the error of a wait for a sequence that has taken too long."""
    laggards = ", ".join(
        f"{name} (unreachable)" if applied < 0 else f"{name} (at {applied})"
        for name, applied in sorted(behind.items())
    )
    return DeadlineExceededError(
        f"sequence {sequence} is not applied everywhere after {timeout_s:g} s: {laggards}",
        metadata={"sequence": str(sequence)},
    )


def failure(error: grpc.RpcError, address: str) -> ForageError:
    """Return the error that a failed call stands for."""
    # A server of ours always says why; without its word, the call did not get there.
    if error.code() is grpc.StatusCode.UNAVAILABLE and rpc_status.from_call(error) is None:
        return UnreachableError(
            f"no Forage server answers at {address}: {error.details()}",
            metadata={"address": address},
        )
    return to_error(error)


@contextmanager
def traced(telemetry: Telemetry, method: str) -> Iterator[Metadata]:
    """Open the client span of one attempt, and yield the metadata that carries it on."""
    service, _, name = method.lstrip("/").partition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
    with telemetry.tracer.start_as_current_span(
        f"{service}/{name}", kind=SpanKind.CLIENT, attributes=attributes
    ) as span:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        try:
            yield tuple(carrier.items())
        except grpc.RpcError as error:
            span.set_attribute("rpc.grpc.status_code", error.code().value[0])
            span.set_status(StatusCode.ERROR)
            raise
        span.set_attribute("rpc.grpc.status_code", 0)
