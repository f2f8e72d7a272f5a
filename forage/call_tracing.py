"""Tracing and RED metrics of `grpc.aio` calls: one server and one client interceptor.

`opentelemetry-instrumentation-grpc` 0.66b1 is not used. Its server interceptor does not see
`abort_with_status`, by which every Forage error leaves; its client interceptor goes on calling
after the caller has cancelled, and never ends the span of a call that another interceptor failed.

Spans are named `package.Service/Method` and follow the semantic conventions of RPC. A status
carries its code and never its message, which may quote the query.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

import grpc
import grpc.aio
from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from forage.instruments import Instruments
from forage.tracer import Tracer

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

_Handler = Callable[[RequestT, grpc.aio.ServicerContext[RequestT, ResponseT]], Awaitable[ResponseT]]

_STATUS_CODE = "rpc.grpc.status_code"
_PROPAGATED = frozenset({"traceparent", "tracestate"})
_PROPAGATOR = TraceContextTextMapPropagator()

_NUMBERS: Mapping[grpc.StatusCode | int | None, int] = {
    **{code: code.value[0] for code in grpc.StatusCode},
    **{code.value[0]: code.value[0] for code in grpc.StatusCode},
}
_OK = 0
_CANCELLED = 1
_UNKNOWN = 2
# Semantic conventions: the other codes are the caller's fault and no error of the server.
_SERVER_FAULTS = frozenset({2, 4, 12, 13, 14, 15})


@dataclass(frozen=True, slots=True)
class _Method:
    """A method's span name, and the attributes that every span of it starts with."""

    name: str
    attributes: Mapping[str, str]


class _Methods:
    """Every method seen, so that names are cut once; `None` for health and reflection."""

    def __init__(self) -> None:
        self._known: dict[str | bytes, _Method | None] = {}

    def find(self, path: str | bytes) -> _Method | None:
        try:
            return self._known[path]
        except KeyError:
            return self._known.setdefault(path, _method(path))


def _method(path: str | bytes) -> _Method | None:
    name = (path.decode() if isinstance(path, bytes) else path).lstrip("/")
    if name.startswith("grpc."):
        return None
    return _Method(name, {"rpc.system": "grpc", "rpc.method": name})


class ServerCallInterceptor(grpc.aio.ServerInterceptor):
    """Opens the server span below the caller's, and records `rpc.server.call.duration`.

    Put it outermost, so that it sees the status that leaves. Streams are passed through.
    """

    def __init__(self, tracer: Tracer, instruments: Instruments) -> None:
        self._tracer = tracer
        self._instruments = instruments
        self._methods = _Methods()

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails],
            Awaitable[grpc.RpcMethodHandler[RequestT, ResponseT] | None],
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[RequestT, ResponseT] | None:
        """Wrap unary handlers of methods that exist; unknown methods make no series."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.response_streaming:
            return handler
        method = self._methods.find(handler_call_details.method)
        if method is None:
            return handler
        # The stubs type handlers of the threaded server only.
        inner = cast("_Handler[RequestT, ResponseT]", handler.unary_unary)
        parent = _extract(handler_call_details.invocation_metadata)

        async def traced(
            request: RequestT, context: grpc.aio.ServicerContext[RequestT, ResponseT]
        ) -> ResponseT:
            return await self._answer(inner, request, context, method, parent)

        return grpc.unary_unary_rpc_method_handler(
            traced, handler.request_deserializer, handler.response_serializer
        )

    async def _answer(
        self,
        inner: _Handler[RequestT, ResponseT],
        request: RequestT,
        context: grpc.aio.ServicerContext[RequestT, ResponseT],
        method: _Method,
        parent: Context,
    ) -> ResponseT:
        started = time.perf_counter()
        span = self._tracer.start_span(
            method.name, context=parent, kind=SpanKind.SERVER, attributes=method.attributes
        )
        token = context_api.attach(set_span_in_context(span, parent))
        code = _UNKNOWN
        try:
            response = await inner(request, context)
            code = _NUMBERS.get(context.code(), _OK)
            return response
        except grpc.aio.AbortError:
            code = _NUMBERS.get(context.code(), _UNKNOWN)
            raise
        except asyncio.CancelledError:
            code = _CANCELLED
            raise
        finally:
            context_api.detach(token)
            _finish(span, code, failed=code in _SERVER_FAULTS)
            self._instruments.call_duration(
                time.perf_counter() - started, method=method.name, status_code=code
            )


class ClientCallInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Opens a client span around a unary call and sends its context as W3C `traceparent`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._methods = _Methods()

    async def intercept_unary_unary(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, RequestT],
            Awaitable[grpc.aio.UnaryUnaryCall[RequestT, ResponseT]],
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request: RequestT,
    ) -> grpc.aio.UnaryUnaryCall[RequestT, ResponseT]:
        """Wait for the status, end the span, and hand on the call; cancelling cancels it."""
        method = self._methods.find(client_call_details.method)
        if method is None:
            return await continuation(client_call_details, request)
        span = self._tracer.start_span(
            method.name, kind=SpanKind.CLIENT, attributes=method.attributes
        )
        code = _UNKNOWN
        call = None
        try:
            call = await continuation(_with_context(client_call_details, span), request)
            code = _NUMBERS.get(await call.code(), _UNKNOWN)
            return call
        except grpc.aio.AioRpcError as error:
            code = _NUMBERS.get(error.code(), _UNKNOWN)
            raise
        except asyncio.CancelledError:
            code = _CANCELLED
            if call is not None:
                call.cancel()
            raise
        finally:
            # Who cancels has lost interest, such as in the slower of two answers: nothing failed.
            _finish(span, code, failed=code not in (_OK, _CANCELLED))


def _finish(span: Span, code: int, *, failed: bool) -> None:
    span.set_attribute(_STATUS_CODE, code)
    if failed:
        span.set_status(StatusCode.ERROR)
    span.end()


def _with_context(details: grpc.aio.ClientCallDetails, span: Span) -> grpc.aio.ClientCallDetails:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(span))
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    for key, value in carrier.items():
        metadata[key] = value
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


def _extract(metadata: Iterable[tuple[str, str | bytes]] | None) -> Context:
    carrier = {
        key: value for key, value in metadata or () if key in _PROPAGATED and isinstance(value, str)
    }
    return _PROPAGATOR.extract(carrier, Context())
