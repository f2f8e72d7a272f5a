"""The registry without a shared disk: payloads in NATS's object store, versions by CAS."""

from __future__ import annotations

import hashlib
import io
import json
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, TypeVar

from nats.js.errors import APIError

from forage.errors import StorageError
from forage.log.nats_connection import FULL, NatsConnection
from forage.log.nats_entries import Entries
from forage.log.nats_objects import Objects
from forage.log.nats_streams import Layout
from forage.registry import (
    JSON,
    ArtifactInfo,
    check_current,
    checked_kind,
    is_kind,
    no_version,
)

_BYTES_PER_S = 4 * 2**20
_LARGEST_S = 600.0
_STRAY_S = 3_600.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Versions:
    """What one entry of the bucket says of a kind: all that changes, so one CAS decides."""

    newest: int
    """The last version given out; 0 if there was none."""
    current: int | None
    objects: Mapping[int, str]
    """Version to the name of its object and of its description."""
    revision: int
    """Of the entry."""

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        objects = {str(version): name for version, name in self.objects.items()}
        state = {"newest": self.newest, "current": self.current, "objects": objects}
        return json.dumps(state).encode()


class NatsRegistry:
    """A `Registry` in a key-value bucket and an object store.

    A version's object and description are written first, under a random name; the version exists
    once the kind's one entry names them. A publisher that dies in between leaves an object that
    nothing refers to; the next `prune` of that kind removes it when it is an hour old.
    """

    def __init__(
        self, connection: NatsConnection, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Use the buckets of the layout; `clock` dates new versions."""
        layout = Layout(connection.settings)
        self._connection = connection
        self._entries = Entries(connection, layout.registry)
        self._objects = Objects(connection, layout.artifacts)
        self._clock = clock

    def publish(
        self,
        kind: str,
        payload: bytes | memoryview,
        metadata: Mapping[str, JSON],
        *,
        make_current: bool = True,
        expected_current: int | None = None,
    ) -> ArtifactInfo:
        """Store a new version; see `Registry.publish`."""
        if not make_current and expected_current is not None:
            raise ValueError("expected_current has no meaning without make_current")
        draft = ArtifactInfo.draft(kind, payload, metadata, created=self._clock())
        work = self._publish(draft, payload, make_current, expected_current)
        return self._run(work, f"publish {kind}", len(payload))

    def current(self, kind: str) -> ArtifactInfo | None:
        """Return the current version; see `Registry.current`."""
        return self._run(self._current(checked_kind(kind)), f"read {kind}")

    def changed(self, kind: str, since_version: int | None) -> bool:
        """Return whether there is another current version, by reading one small entry."""
        return (
            self._run(self._versions(checked_kind(kind)), f"read {kind}").current != since_version
        )

    def load(self, kind: str, version: int | None = None) -> tuple[ArtifactInfo, bytes]:
        """Return a version with its verified payload; see `Registry.load`."""
        return self._run(self._load(checked_kind(kind), version), f"load {kind}", None)

    def fetch(self, kind: str, version: int, file: BinaryIO) -> ArtifactInfo:
        """Write a version's payload into a file; see `Registry.fetch`."""
        return self._run(self._fetch(checked_kind(kind), version, file), f"load {kind}", None)

    def set_current(self, kind: str, version: int, *, expected: int | None) -> ArtifactInfo:
        """Make an existing version current; see `Registry.set_current`."""
        work = self._set_current(checked_kind(kind), version, expected)
        return self._run(work, f"change {kind}")

    def history(self, kind: str) -> list[ArtifactInfo]:
        """Return all versions, newest first; see `Registry.history`."""
        return self._run(self._history(checked_kind(kind)), f"read {kind}", None)

    def prune(self, kind: str, *, keep: int) -> list[int]:
        """Remove old versions; see `Registry.prune`."""
        if keep < 1:
            raise ValueError(f"keep is {keep}, must be at least 1")
        return self._run(self._prune(checked_kind(kind), keep), f"prune {kind}", None)

    def kinds(self) -> list[str]:
        """Return all kinds that have a version; see `Registry.kinds`."""
        keys = self._run(self._entries.keys(), "read the kinds")
        return sorted(key for key in keys if is_kind(key))

    def adopt(self, info: ArtifactInfo, payload: bytes) -> None:
        """Store a version of another registry; see `Registry.adopt`."""
        checked_kind(info.kind)
        self._run(self._adopt(info, payload), f"adopt {info.kind}", len(payload))

    def _run(self, work: Coroutine[Any, Any, T], doing: str, size: int | None = 0) -> T:
        extra_s = _LARGEST_S if size is None else size / _BYTES_PER_S
        return self._connection.run(work, doing, extra_s=extra_s)

    async def _versions(self, kind: str) -> _Versions:
        entry = await self._entries.get(kind)
        if entry.value is None:
            return _Versions(0, None, {}, entry.revision)
        try:
            state = json.loads(entry.value)
            objects = {int(version): str(name) for version, name in state["objects"].items()}
            return _Versions(int(state["newest"]), state["current"], objects, entry.revision)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StorageError(f"the registry's entry of '{kind}' is damaged: {error}") from error

    async def _publish(
        self,
        draft: ArtifactInfo,
        payload: bytes | memoryview,
        make_current: bool,
        expected: int | None,
    ) -> ArtifactInfo:
        kind, name = draft.kind, f"{draft.kind}.{uuid.uuid4().hex}"
        found = await self._versions(kind)
        if make_current:
            check_current(kind, found.current, expected)
        await self._put(_object(name), payload)
        while True:
            info = replace(draft, version=found.newest + 1, parent=found.current)
            await self._entries.put(name, info.to_json())
            wanted = replace(
                found,
                newest=info.version,
                current=info.version if make_current else found.current,
                objects={**found.objects, info.version: name},
            )
            if await self._entries.swap(kind, wanted.to_bytes(), found.revision):
                return info
            found = await self._versions(kind)
            if make_current and found.current != expected:
                await self._remove(name)
                check_current(kind, found.current, expected)

    async def _adopt(self, info: ArtifactInfo, payload: bytes) -> None:
        name = f"{info.kind}.{uuid.uuid4().hex}"
        while True:
            found = await self._versions(info.kind)
            if info.version in found.objects:
                return
            await self._put(_object(name), payload)
            await self._entries.put(name, info.to_json())
            wanted = replace(
                found,
                newest=max(found.newest, info.version),
                objects={**found.objects, info.version: name},
            )
            if await self._entries.swap(info.kind, wanted.to_bytes(), found.revision):
                return

    async def _current(self, kind: str) -> ArtifactInfo | None:
        found = await self._versions(kind)
        return None if found.current is None else await self._info(kind, found, found.current)

    async def _info(self, kind: str, found: _Versions, version: int) -> ArtifactInfo:
        name = found.objects.get(version)
        entry = None if name is None else await self._entries.get(name)
        if entry is None or entry.value is None:
            raise no_version(kind, version)
        try:
            info = ArtifactInfo.from_json(entry.value)
        except (ValueError, TypeError) as error:
            raise StorageError(f"the registry's entry '{name}' is damaged: {error}") from error
        return replace(info, kind=kind, version=version)

    async def _load(self, kind: str, version: int | None) -> tuple[ArtifactInfo, bytes]:
        found = await self._versions(kind)
        wanted = found.current if version is None else version
        if wanted is None:
            raise no_version(kind, None)
        with io.BytesIO() as file:
            info = await self._fetch(kind, wanted, file)
            return info, file.getvalue()

    async def _fetch(self, kind: str, version: int, file: BinaryIO) -> ArtifactInfo:
        found = await self._versions(kind)
        info = await self._info(kind, found, version)
        name = _object(found.objects[version])
        digest = hashlib.sha256()
        async for piece in self._objects.pieces(name):
            digest.update(piece)
            file.write(piece)
        if digest.hexdigest() != info.sha256:
            raise StorageError(
                f"object '{name}' is damaged: it does not have the SHA-256 that {kind} version"
                f" {version} was published with",
                metadata={"object": name},
            )
        return info

    async def _set_current(self, kind: str, version: int, expected: int | None) -> ArtifactInfo:
        while True:
            found = await self._versions(kind)
            info = await self._info(kind, found, version)
            check_current(kind, found.current, expected)
            wanted = replace(found, current=version)
            if await self._entries.swap(kind, wanted.to_bytes(), found.revision):
                return info

    async def _history(self, kind: str) -> list[ArtifactInfo]:
        found = await self._versions(kind)
        return [await self._info(kind, found, v) for v in sorted(found.objects, reverse=True)]

    async def _put(self, name: str, payload: bytes | memoryview) -> None:
        try:
            await self._objects.put(name, payload)
        except APIError as error:
            await self._objects.remove(name)
            if error.err_code in FULL:
                raise StorageError(
                    f"nats.artifacts_max_bytes: the object store is full ({error.description});"
                    " allowed: a larger value, or more room on the server",
                    metadata={"setting": "nats.artifacts_max_bytes"},
                ) from error
            raise

    async def _prune(self, kind: str, keep: int) -> list[int]:
        while True:
            found = await self._versions(kind)
            kept = {*sorted(found.objects)[-keep:], found.current}
            removed = sorted(v for v in found.objects if v not in kept)
            known = {_object(name) for name in found.objects.values()}
            # Left by publishers that died between the first chunk and the entry.
            for stray in await self._objects.strays(_object(f"{kind}."), known, _STRAY_S):
                await self._objects.remove(stray)
            if not removed:
                return []
            left = {v: name for v, name in found.objects.items() if v in kept}
            wanted = replace(found, objects=left)
            if await self._entries.swap(kind, wanted.to_bytes(), found.revision):
                for version in removed:
                    await self._remove(found.objects[version])
                return removed

    async def _remove(self, name: str) -> None:
        await self._entries.purge(name)
        await self._objects.remove(_object(name))


def _object(name: str) -> str:
    # Names of objects are one token of a subject, names of entries are made into one.
    return name.replace(".", "-")
