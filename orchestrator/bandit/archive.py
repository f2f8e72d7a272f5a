"""The bytes of a snapshot: a header in JSON and raw arrays, checked by a hash. Never pickle.

Layout: 8 bytes magic, u32 format version, 32 bytes SHA-256 of all that follows, u32 header length,
header, arrays. Integers are little-endian, arrays are float64 little-endian in C order.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping

import numpy as np

from forage.errors import FailedPreconditionError, StorageError
from orchestrator.bandit.arrays import FloatArray

MAGIC = b"FORAGEBS"
FORMAT_VERSION = 1
_PREFIX = struct.Struct("<8sI32sI")


class SnapshotDamagedError(StorageError):
    """The bytes are not a snapshot, are truncated, or do not match their hash."""

    reason = "SNAPSHOT_DAMAGED"


class SnapshotNewerError(FailedPreconditionError):
    """The snapshot was written by a newer release, in a format this one cannot read."""

    reason = "SNAPSHOT_NEWER"


def pack(meta: Mapping[str, object], arrays: Mapping[str, FloatArray]) -> bytes:
    """Serialise JSON-compatible `meta` and named arrays; equal input gives equal bytes."""
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    header = json.dumps(
        {"meta": meta, "arrays": shapes}, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()
    body = b"".join(
        np.ascontiguousarray(arrays[name], dtype="<f8").tobytes() for name in sorted(arrays)
    )
    length = struct.pack("<I", len(header))
    digest = hashlib.sha256(length + header + body).digest()
    return _PREFIX.pack(MAGIC, FORMAT_VERSION, digest, len(header)) + header + body


def unpack(data: bytes) -> tuple[dict[str, object], dict[str, FloatArray]]:
    """Return `meta` and arrays of `pack`; the arrays cannot be written.

    Raises `SnapshotNewerError` for a later format and `SnapshotDamagedError` for anything else
    that `pack` did not write.
    """
    if len(data) < _PREFIX.size or data[: len(MAGIC)] != MAGIC:
        raise SnapshotDamagedError("not a policy snapshot: wrong or missing file signature")
    _, version, digest, length = _PREFIX.unpack_from(data)
    if version > FORMAT_VERSION:
        raise SnapshotNewerError(
            f"policy snapshot has format {version}, this release reads up to {FORMAT_VERSION}",
            metadata={"format": str(version), "supported": str(FORMAT_VERSION)},
        )
    if hashlib.sha256(memoryview(data)[_PREFIX.size - 4 :]).digest() != digest:
        raise SnapshotDamagedError("policy snapshot is truncated or damaged: its hash differs")
    try:
        start = _PREFIX.size + length
        header = json.loads(data[_PREFIX.size : start])
        return dict(header["meta"]), _arrays(data, start, header["arrays"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotDamagedError(f"policy snapshot cannot be read: {error}") from error


def _arrays(data: bytes, start: int, shapes: Mapping[str, list[int]]) -> dict[str, FloatArray]:
    arrays: dict[str, FloatArray] = {}
    for name in sorted(shapes):
        count = math.prod(shapes[name])
        flat = np.frombuffer(data, dtype="<f8", count=count, offset=start)
        arrays[name] = flat.reshape(shapes[name])
        start += 8 * count
    if start != len(data):
        raise ValueError("bytes after the last array")
    return arrays
