"""The status report that every service gives of its projections."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from forage.log.follower import Follower
from forage.v1 import generator_service_pb2 as pb

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def status_response(
    service: str, follower: Follower, entries: Mapping[str, int]
) -> pb.GetStatusResponse:
    """Return the status report of a service's projections."""
    return pb.GetStatusResponse(
        service=service,
        ready=follower.caught_up.is_set(),
        projections=[
            pb.ProjectionStatus(
                name=s.name,
                topic=s.topic,
                applied_sequence=s.applied,
                head_sequence=s.head,
                entries=entries.get(s.name, 0),
                last_error=s.last_error,
            )
            for s in follower.status()
        ],
        resident_bytes=resident_bytes(),
    )


def resident_bytes() -> int:
    """Return this process's resident memory in bytes; 0 where /proc does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * _PAGE_BYTES if statm.exists() else 0
