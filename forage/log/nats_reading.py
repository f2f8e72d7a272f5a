"""Ordered reading of a stream, complete whichever replica answers."""

from __future__ import annotations

import asyncio
import json

from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from forage.log.nats_connection import NatsConnection
from forage.log.nats_streams import Stored

_MOST_MESSAGES = 1_000
_MOST_BYTES = 8 * 2**20


async def read_stream(
    connection: NatsConnection, stream: str, after: int, limit: int, pattern: str
) -> list[Stored]:
    """Return up to `limit` messages beyond sequence `after` whose subject matches, in order.

    Most come in batches from any replica, which may be behind. The stream's leader has the last
    word: the end is reached when the leader says so.
    """
    found: list[Stored] = []
    while len(found) < limit:
        wanted = min(limit - len(found), _MOST_MESSAGES)
        batch = await _batch(connection, stream, after + 1, wanted, pattern)
        if len(batch) < wanted:
            beyond = (batch[-1].sequence if batch else after) + 1
            following = await get(connection, stream, seq=beyond, next_by_subj=pattern)
            if following is None:
                return found + batch
            batch.append(following)
        found += batch
        after = batch[-1].sequence
    return found


async def get(connection: NatsConnection, stream: str, **which: object) -> Stored | None:
    """Ask the leader for one message, such as the last `last_by_subj`; None if there is none."""
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", **which)
    except NotFoundError as error:
        if error.err_code != 10037:
            raise
        return None
    return Stored.of(answer["message"])


async def _batch(
    connection: NatsConnection, stream: str, first: int, limit: int, pattern: str
) -> list[Stored]:
    """Return what came of one direct batched read (NATS ADR-31), in order and without holes."""
    messages: list[Msg] = []
    ended = asyncio.Event()

    async def hear(message: Msg) -> None:
        if (message.headers or {}).get("Status") is None:
            messages.append(message)
        else:
            ended.set()

    client = connection.client
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=hear)
    request = {"seq": first, "batch": limit, "max_bytes": _MOST_BYTES, "next_by_subj": pattern}
    try:
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), inbox)
        async with asyncio.timeout(connection.timeout_s):
            await ended.wait()
    finally:
        if not client.is_closed:
            await subscription.unsubscribe()
    return unbroken(messages)


def unbroken(messages: list[Msg]) -> list[Stored]:
    """Return the messages up to the first hole: a client that is too slow drops some.

    Each message names the sequence before it, 0 for the first; what is left out is read again.
    """
    found: list[Stored] = []
    for message in messages:
        headers = message.headers or {}
        if int(headers["Nats-Last-Sequence"]) != (found[-1].sequence if found else 0):
            break
        found.append(
            Stored(
                int(headers["Nats-Sequence"]), headers["Nats-Subject"], headers, message.data or b""
            )
        )
    return found
