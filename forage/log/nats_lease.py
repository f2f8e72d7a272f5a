"""Leases among the processes of many machines, in a key-value bucket of NATS."""

from __future__ import annotations

from forage.lease import check_ttl, checked_name
from forage.log.nats_connection import NatsConnection
from forage.log.nats_entries import Entries
from forage.log.nats_streams import Layout


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
        check_ttl(ttl_s)
        taking = self._take(checked_name(name), holder, ttl_s, free_too=True)
        return self._connection.run(taking, f"acquire lease '{name}'")

    def renew(self, name: str, holder: str, ttl_s: float) -> bool:
        """Hold on to the lease; see `Lease.renew`."""
        check_ttl(ttl_s)
        taking = self._take(checked_name(name), holder, ttl_s, free_too=False)
        return self._connection.run(taking, f"renew lease '{name}'")

    def release(self, name: str, holder: str) -> None:
        """Give the lease back; see `Lease.release`."""
        releasing = self._release(checked_name(name), holder)
        self._connection.run(releasing, f"release lease '{name}'")

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
