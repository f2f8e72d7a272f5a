"""The layout of Forage on a NATS server: streams, buckets, subjects, and the bytes of a message."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from nats.errors import NoRespondersError
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from forage.errors import StartupError, StorageError
from forage.log.interface import Event, Record, Stream, Topic
from forage.log.nats_connection import JSON, NatsConnection
from forage.settings import NatsSettings

FORMAT = "1"
"""Version of the layout, in the metadata of every stream."""
_FORMAT_KEY = "forage.format"
_HEADER = "Forage-Event"
_LONGEST_TOKEN = 200
_NANO = 10**9
_ADJUSTABLE = ("num_replicas", "max_bytes", "max_age", "duplicate_window")
"""Settings that may change in the life of a stream; the rest is its layout."""
_CAUSES = {
    10047: "nats.catalog_max_bytes, nats.interactions_max_bytes, nats.artifacts_max_bytes",
    10065: "nats.prefix",
    10074: "nats.replicas",
    10005: "nats.replicas",
    10052: "nats",
}
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """An event as it is published."""

    key: str
    subject: str
    headers: Mapping[str, str]
    payload: bytes

    @property
    def size(self) -> int:
        """Bytes that count towards the server's `max_payload`, and a little more."""
        return len(self.payload) + sum(len(k) + len(v) + 4 for k, v in self.headers.items()) + 200


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as a stream keeps it."""

    sequence: int
    subject: str
    headers: Mapping[str, str]
    payload: bytes

    @classmethod
    def of(cls, message: JSON) -> Stored:
        """Read the answer of `STREAM.MSG.GET`."""
        lines = base64.b64decode(message.get("hdrs", "")).decode().split("\r\n")[1:]
        headers = dict(line.split(": ", 1) for line in lines if ": " in line)
        payload = base64.b64decode(message.get("data", ""))
        return cls(message["seq"], message["subject"], headers, payload)


class Layout:
    """Names and configurations, all of them under one prefix."""

    def __init__(self, settings: NatsSettings) -> None:
        """Use the prefix, replicas and retention of the settings."""
        self._settings = settings
        self.registry = f"{settings.prefix}_registry"
        """Key-value bucket: which versions of an artifact there are, and which is current."""
        self.leases = f"{settings.prefix}_leases"
        """Key-value bucket: who does what only one may do."""
        self.artifacts = f"{settings.prefix}_artifacts"
        """Object store: the payloads of models and snapshots."""

    def stream(self, topic: Topic) -> str:
        """Return the name of a topic's stream."""
        return f"{self._settings.prefix}_{topic}"

    def subject(self, stream: Stream, key: str) -> str:
        """Return the subject of a key: every key has one of its own, which makes it unique."""
        return f"{self._settings.prefix}.log.{stream}.{token(key)}"

    def subjects(self, stream: Stream) -> str:
        """Return the pattern of all subjects of one kind of record."""
        return f"{self._settings.prefix}.log.{stream}.*"

    def stored(self, topic: Topic) -> str:
        """Return the pattern under which the server tells of what it has stored."""
        return f"{self._settings.prefix}.stored.{topic}.>"

    def configurations(self) -> list[JSON]:
        """Return the configuration of every stream, as the JetStream API writes it."""
        settings = self._settings
        age_ns = int(settings.interactions_max_age_days * 86_400 * _NANO)
        window_ns = int(settings.duplicate_window_s * _NANO)
        return [
            self._log(Topic.CATALOG, settings.catalog_max_bytes, 0, window_ns),
            self._log(
                Topic.INTERACTIONS,
                settings.interactions_max_bytes,
                age_ns,
                min(window_ns, age_ns) if age_ns else window_ns,
            ),
            self._bucket(f"KV_{self.registry}", [f"$KV.{self.registry}.>"], keys=True),
            self._bucket(f"KV_{self.leases}", [f"$KV.{self.leases}.>"], keys=True),
            {
                **self._bucket(
                    f"OBJ_{self.artifacts}",
                    [f"$O.{self.artifacts}.C.>", f"$O.{self.artifacts}.M.>"],
                ),
                "max_bytes": settings.artifacts_max_bytes or -1,
            },
        ]

    def _log(self, topic: Topic, max_bytes: int, age_ns: int, window_ns: int) -> JSON:
        return {
            **self._common(self.stream(topic)),
            "subjects": [self.subjects(s) for s in Stream if s.topic is topic],
            "max_bytes": max_bytes or -1,
            "max_age": age_ns,
            "max_msgs_per_subject": 1 if topic is Topic.CATALOG else -1,
            "duplicate_window": window_ns,
            "allow_atomic": True,
            "republish": {"src": ">", "dest": self.stored(topic), "headers_only": True},
        }

    def _bucket(self, name: str, subjects: Sequence[str], *, keys: bool = False) -> JSON:
        config = {
            **self._common(name),
            "subjects": list(subjects),
            "max_bytes": -1,
            "max_age": 0,
            "max_msgs_per_subject": 1 if keys else -1,
            "duplicate_window": 120 * _NANO,
            "allow_rollup_hdrs": True,
        }
        return {**config, "allow_msg_ttl": True, "deny_delete": True} if keys else config

    def _common(self, name: str) -> JSON:
        return {
            "name": name,
            "retention": "limits",
            "storage": "file",
            "max_msgs": -1,
            "max_consumers": -1,
            "max_msg_size": -1,
            # A full stream refuses; it must never forget what was acknowledged.
            "discard": "new",
            "allow_direct": True,
            "num_replicas": self._settings.replicas,
            "metadata": {_FORMAT_KEY: FORMAT},
        }


def token(key: str) -> str:
    """Return a key as one token of a subject: readable if it is, else percent-encoded or hashed."""
    quoted = quote(key, safe="").replace(".", "%2E") or "%"
    return (
        quoted if len(quoted) <= _LONGEST_TOKEN else f"%%{hashlib.sha256(key.encode()).hexdigest()}"
    )


def encode(event: Event, layout: Layout) -> Message:
    """Return an event as a message; raises `ValueError` for a bad time or key."""
    if not math.isfinite(event.time):
        raise ValueError(f"event {event.key!r}: time {event.time} is not finite")
    event.key.encode()
    described: dict[str, Any] = {"key": event.key, "time": event.time}
    if event.headers:
        described["headers"] = dict(event.headers)
    # JSON in ASCII, because a header of NATS has one line and no blanks around it.
    return Message(
        event.key,
        layout.subject(event.stream, event.key),
        {_HEADER: json.dumps(described)},
        bytes(event.payload),
    )


def decode(stored: Stored) -> Record:
    """Return a message as a record; raises `StorageError` if Forage did not write it."""
    try:
        described = json.loads(stored.headers[_HEADER])
        stream = Stream(stored.subject.split(".")[2])
        key, at = described["key"], float(described["time"])
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise StorageError(
            f"message {stored.sequence} on '{stored.subject}' is not an event of Forage: {error!r}"
        ) from error
    return Record(stored.sequence, stream, key, stored.payload, at, described.get("headers") or {})


async def ensure(connection: NatsConnection, layout: Layout) -> None:
    """Create what is missing, and adjust replicas and retention of what is there.

    Raises `StartupError` for a server without JetStream, a stream with another layout, or limits
    that the server cannot give, naming the setting.
    """
    for wanted in layout.configurations():
        try:
            await _ensure(connection, wanted)
        except (ServiceUnavailableError, NoRespondersError) as error:
            raise _no_jetstream(connection, "no answer") from error
        except APIError as error:
            if error.err_code in (10039, 10076):
                raise _no_jetstream(connection, error.description or "") from error
            setting = _CAUSES.get(error.err_code or 0, "log_url")
            raise StartupError(
                f"{setting}: NATS at {connection.name} refuses stream '{wanted['name']}':"
                f" {error.description}"
            ) from error


async def _ensure(connection: NatsConnection, wanted: JSON) -> None:
    name = wanted["name"]
    try:
        found = (await connection.api(f"STREAM.INFO.{name}"))["config"]
    except NotFoundError as error:
        if error.err_code != 10059:
            raise
        found = (await connection.api(f"STREAM.CREATE.{name}", **wanted))["config"]
    _check(found, wanted)
    changed = {
        field: (found.get(field), wanted[field])
        for field in _ADJUSTABLE
        if found.get(field, 0) != wanted[field]
    }
    if changed:
        _logger.warning("stream %s: changing (from, to): %s", name, changed)
        adjusted = {field: wanted[field] for field in _ADJUSTABLE}
        await connection.api(f"STREAM.UPDATE.{name}", **{**found, **adjusted})


def _check(found: JSON, wanted: JSON) -> None:
    version = (found.get("metadata") or {}).get(_FORMAT_KEY)
    fixed = [f for f in wanted if f not in (*_ADJUSTABLE, "metadata")]
    # The server leaves out what has its zero value.
    differences = [
        f"{field} is {found.get(field)!r}, not {wanted[field]!r}"
        for field in fixed
        if (found.get(field) or 0) != wanted[field]
    ]
    if version != FORMAT:
        differences.insert(0, f"{_FORMAT_KEY} is {version!r}, not {FORMAT!r}")
    if differences:
        raise StartupError(
            f"nats.prefix: stream '{wanted['name']}' has another layout: {'; '.join(differences)};"
            " allowed: a prefix whose streams Forage has made, or that has none"
        )


def _no_jetstream(connection: NatsConnection, why: str) -> StartupError:
    return StartupError(
        f"log_url: NATS at {connection.name} has no JetStream for this login ({why}); allowed: a"
        " server, or a cluster with a quorum, that was started with JetStream"
    )
