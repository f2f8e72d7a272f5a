"""Payloads of any size in an object store of NATS."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Collection, Iterator
from datetime import UTC, datetime

from forage.errors import NotFoundError, StorageError
from forage.log.nats_connection import NatsConnection
from forage.log.nats_reading import get, read_stream

_CHUNK_BYTES = 128 * 1024
_PIECE_CHUNKS = 64


class Objects:
    """Immutable objects, each written once under a name of its own.

    The format is NATS's own (ADR-20), so `nats object get` reads it too.
    """

    def __init__(self, connection: NatsConnection, bucket: str) -> None:
        """Use a store that exists."""
        self._connection = connection
        self._bucket = bucket

    async def put(self, name: str, payload: bytes | memoryview) -> None:
        """Store an object; it exists once all of it is stored."""
        count = 0
        sha256 = hashlib.sha256()
        for chunk in _chunks(payload):
            await self._connection.request(self._chunks_subject(name), chunk)
            sha256.update(chunk)
            count += 1
        digest = base64.urlsafe_b64encode(sha256.digest()).decode()
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
        return b"".join([piece async for piece in self.pieces(name)])

    async def pieces(self, name: str) -> AsyncIterator[bytes]:
        """Yield an object in pieces; raises as `get` does."""
        stream = f"OBJ_{self._bucket}"
        found = await get(self._connection, stream, last_by_subj=self._info_subject(name))
        if found is None:
            raise NotFoundError(f"there is no object '{name}'", metadata={"object": name})
        info = json.loads(found.payload)
        left, after, size = info["chunks"], 0, 0
        while left:
            wanted = min(left, _PIECE_CHUNKS)
            subject = self._chunks_subject(name)
            chunks = await read_stream(self._connection, stream, after, wanted, subject)
            for chunk in chunks:
                size += len(chunk.payload)
                yield chunk.payload
            if len(chunks) < wanted:
                break
            left, after = left - wanted, chunks[-1].sequence
        if size != info["size"]:
            raise StorageError(
                f"object '{name}' is damaged: {size} of {info['size']} bytes are left",
                metadata={"object": name},
            )

    async def strays(self, prefix: str, known: Collection[str], older_than_s: float) -> list[str]:
        """Return the names, other than `known`, whose last chunk has been there for so long."""
        chunks = f"$O.{self._bucket}.C."
        stream = f"OBJ_{self._bucket}"
        info = await self._connection.api(f"STREAM.INFO.{stream}", subjects_filter=f"{chunks}*")
        found = []
        for subject in info["state"].get("subjects") or {}:
            name = subject.removeprefix(chunks)
            if not name.startswith(prefix) or name in known:
                continue
            last = await self._connection.api(f"STREAM.MSG.GET.{stream}", last_by_subj=subject)
            # The server's own time, for clocks differ: that of its answer to the first question.
            age = datetime.fromisoformat(info["ts"]) - datetime.fromisoformat(
                last["message"]["time"]
            )
            if age.total_seconds() > older_than_s:
                found.append(name)
        return found

    async def remove(self, name: str) -> None:
        """Remove all traces of an object; harmless if there is none."""
        for subject in (self._info_subject(name), self._chunks_subject(name)):
            await self._connection.api(f"STREAM.PURGE.OBJ_{self._bucket}", filter=subject)

    def _chunks_subject(self, name: str) -> str:
        return f"$O.{self._bucket}.C.{name}"

    def _info_subject(self, name: str) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def _chunks(payload: bytes | memoryview) -> Iterator[bytes]:
    return (bytes(payload[at : at + _CHUNK_BYTES]) for at in range(0, len(payload), _CHUNK_BYTES))
