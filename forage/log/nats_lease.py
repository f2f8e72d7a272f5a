"""Leases among the processes of many machines, in a key-value bucket of NATS."""

from __future__ import annotations

import re

from forage.errors import InvalidArgumentError
from forage.log.nats_connection import NatsConnection
from forage.log.nats_entries import Entries
from forage.log.nats_streams import Layout

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,62}")


class NatsLease:
    """A `Lease` whose time is counted by the server, so that no clocks need to agree.

    The server removes the entry of a holder that does not renew; times are rounded up to whole
    seconds, and expiry is noticed up to a second late.
    """

    def __init__(self, connection: NatsConnection) -> None:
        """Keep the leases in the bucket of the layout."""
        self._connection = connection
        self._entries = Entries(connection, Layout(connection.settings).leases)

    def acquire(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take the lease if possible; see `Lease.acquire`."""
        _check(name, ttl_s)
        taking = self._take(name, holder, ttl_s, free_too=True)
        return self._connection.run(taking, f"acquire lease '{name}'")

    def renew(self, name: str, holder: str, ttl_s: float) -> bool:
        """Hold on to the lease; see `Lease.renew`."""
        _check(name, ttl_s)
        taking = self._take(name, holder, ttl_s, free_too=False)
        return self._connection.run(taking, f"renew lease '{name}'")

    def release(self, name: str, holder: str) -> None:
        """Give the lease back; see `Lease.release`."""
        _check(name, 1.0)
        self._connection.run(self._release(name, holder), f"release lease '{name}'")

    async def _take(self, name: str, holder: str, ttl_s: float, *, free_too: bool) -> bool:
        entry = await self._entries.get(name)
        ours = entry.value == holder.encode()
        if not (ours or (free_too and entry.value is None)):
            return False
        return await self._entries.swap(name, holder.encode(), entry.revision, ttl_s=ttl_s)

    async def _release(self, name: str, holder: str) -> None:
        entry = await self._entries.get(name)
        if entry.value == holder.encode():
            await self._entries.swap(name, None, entry.revision)


def _check(name: str, ttl_s: float) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            "name", f"'{name}' is not a name", allowed="lower-case letters, digits, . - and _"
        )
    if not ttl_s > 0:
        raise ValueError(f"ttl_s is {ttl_s}, must be positive")
