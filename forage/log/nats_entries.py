"""Entries of a key-value bucket that change by compare-and-set."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nats.js.errors import APIError

from forage.log.nats_connection import NatsConnection
from forage.log.nats_reading import get
from forage.log.nats_streams import token

_CHANGED = {10071, 10164}
_SHORTEST_S = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """What a key holds."""

    value: bytes | None
    """None if there is none, or it was deleted."""
    revision: int
    """To be given back when it is changed; 0 if there never was a value, or it has expired."""


class Entries:
    """The keys of one bucket, read from the leader; other NATS clients see the same bucket."""

    def __init__(self, connection: NatsConnection, bucket: str) -> None:
        """Use a bucket that exists."""
        self._connection = connection
        self._bucket = bucket

    async def get(self, key: str) -> Entry:
        """Return what the key holds now."""
        found = await get(self._connection, f"KV_{self._bucket}", last_by_subj=self._subject(key))
        if found is None:
            return Entry(None, 0)
        deleted = "KV-Operation" in found.headers or "Nats-Marker-Reason" in found.headers
        return Entry(None if deleted else found.payload, found.sequence)

    async def keys(self) -> list[str]:
        """Return the keys that need no encoding and hold something, in no order."""
        info = await self._connection.api(
            f"STREAM.INFO.KV_{self._bucket}", subjects_filter=f"$KV.{self._bucket}.>"
        )
        subjects = (info["state"].get("subjects") or {}).keys()
        return [subject.rsplit(".", 1)[1] for subject in subjects]

    async def put(self, key: str, value: bytes) -> None:
        """Set the key, whatever it holds."""
        await self._connection.request(self._subject(key), value)

    async def swap(
        self, key: str, value: bytes | None, revision: int, *, ttl_s: float | None = None
    ) -> bool:
        """Set (None: delete) the key if it still is at `revision`; return whether it was.

        A value with `ttl_s` is gone after so many seconds of the server's time, rounded up.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        if value is None:
            headers["KV-Operation"] = "DEL"
            ttl_s = _SHORTEST_S
        if ttl_s is not None:
            headers["Nats-TTL"] = f"{max(_SHORTEST_S, math.ceil(ttl_s))}s"
        try:
            await self._connection.request(self._subject(key), value or b"", headers)
        except APIError as error:
            if error.err_code in _CHANGED:
                return False
            raise
        return True

    async def purge(self, key: str) -> None:
        """Remove all traces of the key."""
        name = f"KV_{self._bucket}"
        await self._connection.api(f"STREAM.PURGE.{name}", filter=self._subject(key))

    def _subject(self, key: str) -> str:
        return f"$KV.{self._bucket}.{token(key)}"
