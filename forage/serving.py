"""The one place where a gRPC server is made: errors, health, reflection, readiness and drain."""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import gc
import logging
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry import trace

from forage.catalog.schema import Schema
from forage.errors import ERROR_DOMAIN, ForageError, InternalError, StartupError, StorageError
from forage.log.engines import open_storage
from forage.log.follower import Follower
from forage.services import Assembly, Runtime, Service
from forage.settings import ServerSettings, ServiceSettings
from forage.telemetry import Telemetry

_logger = logging.getLogger(__name__)
_READY_POLL_S = 0.05
_LAG_S = 5.0
_MOST_TEXT = 1_000
_COLLECT_AFTER = 50_000
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
_Unary = Callable[[RequestT, grpc.aio.ServicerContext[RequestT, ResponseT]], Awaitable[ResponseT]]


async def serve(
    service: Service,
    settings: ServiceSettings,
    *,
    stop: asyncio.Event,
    on_listening: Callable[[int], None] = lambda port: None,
    telemetry: Telemetry | None = None,
) -> None:
    """Run one service until `stop` is set, then drain it.

    `on_listening` is called with the bound port once the server accepts calls; its health turns
    SERVING when every projection has caught up with the log. Raises `StartupError` for anything
    that keeps the service from starting: a taken port, a bad schema, a log of a newer version.
    """
    owned = telemetry or Telemetry.start(
        service.name, settings.telemetry, settings.data_dir / "telemetry"
    )
    # The usual 700 new objects are one answer; building an index spent a quarter of its time on
    # looking for cycles that it does not make.
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
    executor = ThreadPoolExecutor(settings.server.workers, thread_name_prefix=service.name)
    storage = open_storage(settings)
    try:
        runtime = Runtime(
            log=storage.log,
            registry=storage.registry,
            lease=storage.lease,
            schema=Schema.load(settings.schema_file),
            telemetry=owned,
            executor=executor,
        )
        assembly = service.build(settings, runtime)
        await _run(assembly, settings.server, owned, stop, on_listening)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        storage.close()
        if telemetry is None:
            owned.shutdown()


async def _run(
    assembly: Assembly,
    settings: ServerSettings,
    telemetry: Telemetry,
    stop: asyncio.Event,
    on_listening: Callable[[int], None],
) -> None:
    server = grpc.aio.server(
        interceptors=[*telemetry.server_interceptors(), ErrorInterceptor()],
        maximum_concurrent_rpcs=settings.max_concurrent,
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", settings.max_message_bytes),
            ("grpc.max_connection_age_ms", settings.max_connection_age_ms),
            # Watches of health never end by themselves, so a renewed connection needs an end.
            ("grpc.max_connection_age_grace_ms", max(settings.grace_ms, 5_000)),
        ],
    )
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    assembly.servicers(server)
    reflection.enable_server_reflection(
        (*assembly.grpc_services, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    names = ("", *assembly.grpc_services)
    await _set_health(health_servicer, names, health_pb2.HealthCheckResponse.NOT_SERVING)
    port = _bind(server, settings)
    await asyncio.to_thread(assembly.follower.start)
    try:
        await assembly.start()
        await server.start()
        on_listening(port)
        tasks = (
            asyncio.create_task(_announce_ready(assembly, health_servicer, names)),
            asyncio.create_task(_measure_lag(assembly.follower, telemetry)),
        )
        await stop.wait()
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await _set_health(health_servicer, names, health_pb2.HealthCheckResponse.NOT_SERVING)
        await asyncio.sleep(settings.drain_delay_ms / 1000)
        await server.stop(settings.grace_ms / 1000)
    finally:
        await asyncio.to_thread(assembly.follower.stop)
        await assembly.stop()


def _bind(server: grpc.aio.Server, settings: ServerSettings) -> int:
    address = f"{settings.host}:{settings.port}"
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartupError(
            f"server.port: cannot listen on {address}; is the port taken? allowed: a free port,"
            " or 0 to let the system choose"
        ) from error


async def _announce_ready(
    assembly: Assembly, servicer: health.aio.HealthServicer, names: tuple[str, ...]
) -> None:
    # A thread's event, so it can only be polled; waiting in a worker thread would occupy it.
    while not assembly.follower.caught_up.is_set():  # noqa: ASYNC110
        await asyncio.sleep(_READY_POLL_S)
    await asyncio.to_thread(_settle_memory)
    await _set_health(servicer, names, health_pb2.HealthCheckResponse.SERVING)


async def _measure_lag(follower: Follower, telemetry: Telemetry) -> None:
    while True:
        await asyncio.sleep(_LAG_S)
        try:
            found = await asyncio.to_thread(follower.status)
        except StorageError as error:
            _logger.warning("the lag cannot be measured: %s", error.message)
            continue
        for status in found:
            telemetry.instruments.projection_lag(status.lag, projection=status.name)


def _settle_memory() -> None:
    """Give back what building the indexes left over, and keep the collector away from them.

    The indexes are hundreds of thousands of objects that live as long as the process; without
    `gc.freeze` every full collection would look at all of them and hold a search up.
    """
    gc.collect()
    gc.freeze()
    libc = ctypes.util.find_library("c")
    if libc is not None and sys.platform == "linux":
        trim = getattr(ctypes.CDLL(libc), "malloc_trim", None)
        if trim is not None:
            trim(0)


async def _set_health(
    servicer: health.aio.HealthServicer,
    names: tuple[str, ...],
    status: health_pb2.HealthCheckResponse.ServingStatus,
) -> None:
    for name in names:
        await servicer.set(name, status)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns a `ForageError` into its status with `ErrorInfo`, any other exception into INTERNAL.

    An unexpected exception is our defect: it is logged with its traceback and trace id, and the
    client gets the trace id but no internals.
    """

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails],
            Awaitable[grpc.RpcMethodHandler[RequestT, ResponseT] | None],
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[RequestT, ResponseT] | None:
        """Wrap unary handlers; streams (health watch, reflection) keep their own errors."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.response_streaming:
            return handler
        # The stubs type handlers of the threaded server only.
        inner = cast("_Unary[RequestT, ResponseT]", handler.unary_unary)
        method = handler_call_details.method

        async def guarded(
            request: RequestT, context: grpc.aio.ServicerContext[RequestT, ResponseT]
        ) -> ResponseT:
            try:
                return await inner(request, context)
            except ForageError as error:
                status = to_status(error)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception:
                trace_id = f"{trace.get_current_span().get_span_context().trace_id:032x}"
                _logger.exception("%s failed; trace %s", method, trace_id)
                status = to_status(InternalError(f"internal error; trace {trace_id}"))
            await context.abort_with_status(rpc_status.to_status(status))
            raise AssertionError("abort_with_status always raises")

        return grpc.unary_unary_rpc_method_handler(
            cast("Any", guarded), handler.request_deserializer, handler.response_serializer
        )


def to_status(error: ForageError) -> status_pb2.Status:
    """Return the `google.rpc.Status` of an error: code, message, and one `ErrorInfo`.

    Texts are cut at 1,000 characters: a status travels in trailers, which have a size limit.
    """
    metadata = {key: value[:_MOST_TEXT] for key, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=metadata)
    detail = AnyMessage()
    detail.Pack(info)
    number: int = error.code.value[0]
    return status_pb2.Status(code=number, message=error.message[:_MOST_TEXT], details=[detail])
