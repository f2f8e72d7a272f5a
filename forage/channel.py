"""Outgoing gRPC channels: traced, bounded, quick to reconnect; and errors read back."""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from forage import errors
from forage.errors import ForageError
from forage.telemetry import Telemetry

_CLASSES: dict[grpc.StatusCode, type[ForageError]] = {
    cls.code: cls
    for cls in (
        errors.InternalError,
        errors.NotFoundError,
        errors.FailedPreconditionError,
        errors.ConflictError,
        errors.OverloadedError,
        errors.UnavailableError,
        errors.DeadlineExceededError,
    )
}


def connect(target: str, telemetry: Telemetry, *, max_message_bytes: int) -> grpc.aio.Channel:
    """Return a channel to `host:port`; it connects on first use and reconnects within a second."""
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # The callers decide about retries: a search would rather degrade than wait.
            ("grpc.enable_retries", 0),
        ],
        interceptors=telemetry.client_interceptors(),
    )


def to_error(failure: grpc.aio.AioRpcError | grpc.RpcError) -> ForageError:
    """Return the `ForageError` that a failed call stands for, with the reason the server gave."""
    code = failure.code()
    message = failure.details() or code.name
    metadata: dict[str, str] = {}
    status = rpc_status.from_call(failure)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            metadata = dict(info.metadata)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        field, allowed = metadata.get("field", ""), metadata.get("allowed", "")
        error: ForageError = errors.InvalidArgumentError(field, message, allowed=allowed)
        error.message = message
        error.args = (message,)
        return error
    if info.reason == errors.StorageError.reason:
        return errors.StorageError(message, metadata=metadata)
    return _CLASSES.get(code, errors.UnavailableError)(message, metadata=metadata)
