"""Payloads of any size in an object store of NATS."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime

from forage.errors import NotFoundError, StorageError
from forage.log.nats_connection import NatsConnection
from forage.log.nats_reading import get, read_stream

_CHUNK_BYTES = 128 * 1024


class Objects:
    """Immutable objects, each written once under a name of its own.

    The format is NATS's own (ADR-20), so `nats object get` reads it too.
    """

    def __init__(self, connection: NatsConnection, bucket: str) -> None:
        """Use a store that exists."""
        self._connection = connection
        self._bucket = bucket

    async def put(self, name: str, payload: bytes) -> None:
        """Store an object; it exists once all of it is stored."""
        count = 0
        for chunk in _chunks(payload):
            await self._connection.request(self._chunks_subject(name), chunk)
            count += 1
        digest = base64.urlsafe_b64encode(hashlib.sha256(payload).digest()).decode()
        info = {
            "name": name,
            "bucket": self._bucket,
            "nuid": name,
            "size": len(payload),
            "chunks": count,
            "digest": f"SHA-256={digest}",
            "mtime": datetime.now(UTC).isoformat(),
            "options": {"max_chunk_size": _CHUNK_BYTES},
        }
        headers = {"Nats-Rollup": "sub"}
        await self._connection.request(self._info_subject(name), json.dumps(info).encode(), headers)

    async def get(self, name: str) -> bytes:
        """Return an object; raises `NotFoundError`, or `StorageError` if chunks are missing."""
        stream = f"OBJ_{self._bucket}"
        found = await get(self._connection, stream, last_by_subj=self._info_subject(name))
        if found is None:
            raise NotFoundError(f"there is no object '{name}'", metadata={"object": name})
        info = json.loads(found.payload)
        chunks = await read_stream(
            self._connection, stream, 0, info["chunks"], self._chunks_subject(name)
        )
        payload = b"".join(chunk.payload for chunk in chunks)
        if len(payload) != info["size"]:
            raise StorageError(
                f"object '{name}' is damaged: {len(payload)} of {info['size']} bytes are left",
                metadata={"object": name},
            )
        return payload

    async def remove(self, name: str) -> None:
        """Remove all traces of an object; harmless if there is none."""
        for subject in (self._info_subject(name), self._chunks_subject(name)):
            await self._connection.api(f"STREAM.PURGE.OBJ_{self._bucket}", filter=subject)

    def _chunks_subject(self, name: str) -> str:
        return f"$O.{self._bucket}.C.{name}"

    def _info_subject(self, name: str) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def _chunks(payload: bytes) -> Iterator[bytes]:
    return (payload[at : at + _CHUNK_BYTES] for at in range(0, len(payload), _CHUNK_BYTES))
