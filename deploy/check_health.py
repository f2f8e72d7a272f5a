"""Asks a service of this container whether it is serving: `python check_health.py PORT`.

Ends with status 0 if it is, and 1 with the reason if not. Run by container engines that cannot ask
over gRPC themselves, every few seconds for every service: so it imports nothing of Forage.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_S = 2.0


def problem(port: int) -> str | None:
    """Return why the service on a local port is not serving, or None if it is."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest()
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            return f"port {port}: {error.code().name}: {error.details()}"
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return None if name == "SERVING" else f"port {port}: {name}"


if __name__ == "__main__":
    sys.exit(problem(int(sys.argv[1])))
