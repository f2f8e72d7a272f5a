"""Outgoing gRPC channels: balanced, traced, bounded, quick to reconnect; and errors read back."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from forage import errors
from forage.errors import ForageError, InvalidArgumentError
from forage.telemetry import Telemetry

ADDRESSES = "HOST:PORT, IP:PORT,IP:PORT for replicas, or dns:///NAME:PORT for all that a name means"
"""What an address may look like."""
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
_BALANCED: Mapping[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    # The empty name is the health of the whole server; a replica that drains is left at once.
    "healthCheckConfig": {"serviceName": ""},
}
_RETRIED: Mapping[str, Any] = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 2,
                # With 1 ms, gRPC 1.85 loses some retries, whose calls wait out their deadline.
                "initialBackoff": "0.005s",
                "maxBackoff": "0.005s",
                "backoffMultiplier": 1,
                # A server that closes cancels its calls. Those that we cancel are not retried.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    # Not while a tenth of the calls or more fail: retries would only add to the load.
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
}


def replicated(address: str) -> bool:
    """Return whether an address may stand for several replicas: it is a list, or a DNS name."""
    return "," in address or address.startswith("dns:")


def target(address: str) -> str:
    """Return the gRPC target of an address; raises `InvalidArgumentError` for a bad one."""
    hosts = [_host(part) for part in address.removeprefix("dns:///").split(",")]
    if address.startswith("dns:///"):
        if len(hosts) > 1:
            raise _refusal(address)
        return address
    if len(hosts) == 1:
        return address
    try:
        versions = {ipaddress.ip_address(host.strip("[]")).version for host in hosts}
    except ValueError:
        versions = set()
    if len(versions) != 1:
        raise _refusal(address)
    return f"ipv{versions.pop()}:{address}"


def _host(part: str) -> str:
    """Return the host of `host:port`."""
    host, _, port = part.rpartition(":")
    named = bool(host) and "/" not in host and (":" not in host or host.startswith("["))
    if not (named and port.isdecimal() and 0 < int(port) < 65_536):
        raise _refusal(part)
    return host


def _refusal(address: str) -> InvalidArgumentError:
    problem = f"'{address[:200]}' cannot be connected to"
    return InvalidArgumentError("address", problem, allowed=ADDRESSES)


def channel_options(
    address: str, max_message_bytes: int, *, repeatable: bool = False
) -> list[tuple[str, Any]]:
    """Return a channel's options.

    Calls to replicas go round all that serve, by their health. One that never reached a server's
    code goes on to another; with `repeatable`, so does one whose server went away.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
    ]
    if not replicated(address):
        # The callers decide about retries: a search would rather degrade than wait.
        return [*options, ("grpc.max_reconnect_backoff_ms", 1_000), ("grpc.enable_retries", 0)]
    config = {**_BALANCED, **(_RETRIED if repeatable else {})}
    return [
        *options,
        # In a roll-out the next replica goes as soon as this one is back.
        ("grpc.max_reconnect_backoff_ms", 250),
        ("grpc.service_config", json.dumps(config)),
        ("grpc.service_config_disable_resolution", 1),
        # A replica that went away is asked for anew; by default for 30 s it would not be.
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ]


def connect(address: str, telemetry: Telemetry, *, max_message_bytes: int) -> grpc.aio.Channel:
    """Return a channel for repeatable calls; see `ADDRESSES`.

    It connects on first use and reconnects within a second. Raises as `target` does.
    """
    return grpc.aio.insecure_channel(
        target(address),
        options=channel_options(address, max_message_bytes, repeatable=True),
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
