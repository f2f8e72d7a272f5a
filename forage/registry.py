"""The registry: versioned, immutable artifacts (models, policy snapshots) and which is current.

The interface is what a folder and a NATS server can both promise: payloads in an object store,
the current version in a key-value entry that changes by compare-and-set.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol, Self, TypeAlias

from forage.durable import locked, replace_file, sync_directory
from forage.errors import ConflictError, InvalidArgumentError, NotFoundError, StorageError

JSON: TypeAlias = "Mapping[str, JSON] | Sequence[JSON] | str | int | float | bool | None"

_PIECE_BYTES = 2**20
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class ArtifactInfo:
    """What is known of one version of a kind of artifact."""

    kind: str
    version: int
    """Starts at 1 and is never given out twice."""
    sha256: str
    """Of the payload, in hexadecimal."""
    size: int
    """Of the payload, in bytes."""
    created: float
    """Seconds since the epoch."""
    metadata: Mapping[str, JSON]
    """Whatever the publisher wanted to be known: metrics, training range, feature version."""
    parent: int | None
    """The version that was current when this one was published: what it was measured against."""

    @classmethod
    def draft(
        cls,
        kind: str,
        payload: bytes | memoryview,
        metadata: Mapping[str, JSON],
        *,
        created: float,
    ) -> Self:
        """Describe a payload that has no version yet, and so 0.

        Raises `InvalidArgumentError` for a kind that is no name, `ValueError` for metadata that is
        not JSON.
        """
        return cls(
            kind=checked_kind(kind),
            version=0,
            sha256=hashlib.sha256(payload).hexdigest(),
            size=len(payload),
            created=created,
            metadata=json.loads(json.dumps(dict(metadata), allow_nan=False)),
            parent=None,
        )

    def to_json(self) -> bytes:
        """Return all of it as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read what `to_json` gave; raises `ValueError` or `TypeError` if it is damaged."""
        return cls(**json.loads(content))


def is_kind(name: str) -> bool:
    """Return whether a kind may be called so."""
    return _KIND.fullmatch(name) is not None


def checked_kind(kind: str) -> str:
    """Return the kind; raises `InvalidArgumentError` if it is no name."""
    if not is_kind(kind):
        raise InvalidArgumentError(
            "kind", f"'{kind}' is not a name", allowed="lower-case letters, digits, - and _"
        )
    return kind


def check_current(kind: str, current: int | None, expected: int | None) -> None:
    """Raise `ConflictError` unless the current version is the expected one."""
    if current != expected:
        raise ConflictError(
            f"{kind} version {current} is current, not {expected}",
            metadata={"kind": kind, "current": str(current), "expected": str(expected)},
        )


def no_version(kind: str, version: int | None) -> NotFoundError:
    """Return the error for a version that is not there; None is the current one."""
    if version is None:
        return NotFoundError(f"there is no current {kind} yet", metadata={"kind": kind})
    return NotFoundError(
        f"there is no {kind} version {version}", metadata={"kind": kind, "version": str(version)}
    )


class Registry(Protocol):
    """Keeps versions of artifacts. Safe to use from several threads and processes.

    A *kind*, such as `policy` or `ranker`, has its own versions and at most one current version.
    Any method may raise `StorageError`, and `InvalidArgumentError` for a kind that is not a
    lower-case name.
    """

    def publish(
        self,
        kind: str,
        payload: bytes | memoryview,
        metadata: Mapping[str, JSON],
        *,
        make_current: bool = True,
        expected_current: int | None = None,
    ) -> ArtifactInfo:
        """Store a new version, durably, and make it current unless told not to.

        To become current it needs `expected_current` to be the current version (None: there is
        none yet); otherwise nothing is stored and `ConflictError` raised. Raises `ValueError` for
        an expectation without `make_current`, or metadata that is not JSON.
        """
        ...

    def current(self, kind: str) -> ArtifactInfo | None:
        """Return the current version; None if there is none yet."""
        ...

    def changed(self, kind: str, since_version: int | None) -> bool:
        """Return whether the current version is another than `since_version`.

        Cheap enough to be asked several times a second, for hot reload.
        """
        ...

    def load(self, kind: str, version: int | None = None) -> tuple[ArtifactInfo, bytes]:
        """Return a version (None: the current one) with its payload, verified by its hash.

        Raises `NotFoundError` if there is no such version, `StorageError` if it is damaged.
        """
        ...

    def fetch(self, kind: str, version: int, file: BinaryIO) -> ArtifactInfo:
        """Write the payload of a version into a file, a piece at a time, verified by its hash.

        Raises as `load` does, and may then have written a part.
        """
        ...

    def set_current(self, kind: str, version: int, *, expected: int | None) -> ArtifactInfo:
        """Make an existing version current, if `expected` is current now: roll forward or back.

        Raises `ConflictError` if another version is current, `NotFoundError` for an unknown one.
        """
        ...

    def history(self, kind: str) -> list[ArtifactInfo]:
        """Return all versions, newest first."""
        ...

    def prune(self, kind: str, *, keep: int) -> list[int]:
        """Remove all but the newest `keep` (at least 1) versions and the current one.

        Return the versions removed.
        """
        ...

    def kinds(self) -> list[str]:
        """Return all kinds that have a version, sorted."""
        ...

    def adopt(self, info: ArtifactInfo, payload: bytes) -> None:
        """Store a version of another registry under its own number, unless that is taken.

        It does not become current. For moving a registry, while nobody publishes to it.
        """
        ...


class DirectoryRegistry:
    """A `Registry` in a folder, one sub-folder per kind.

    Version 7 is `00000007.bin` and, written after it, `00000007.json`: a version exists once its
    JSON does. `current` holds the number of the current version. Every file is replaced
    atomically, so reading takes no lock.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Use the folder `root`, which need not exist yet; `clock` dates new versions."""
        self._root = root
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
        folder = self._folder(kind)
        with locked(folder / "lock"):
            current = self._current_version(kind)
            if make_current:
                check_current(kind, current, expected_current)
            version = max(self._versions(kind), default=0) + 1
            info = replace(draft, version=version, parent=current)
            replace_file(_payload_file(folder, info.version), payload)
            replace_file(_info_file(folder, info.version), info.to_json())
            if make_current:
                replace_file(folder / "current", str(info.version).encode())
        return info

    def current(self, kind: str) -> ArtifactInfo | None:
        """Return the current version; see `Registry.current`."""
        version = self._current_version(kind)
        return None if version is None else self._info(kind, version)

    def changed(self, kind: str, since_version: int | None) -> bool:
        """Return whether there is another current version, by reading one tiny file."""
        return self._current_version(kind) != since_version

    def load(self, kind: str, version: int | None = None) -> tuple[ArtifactInfo, bytes]:
        """Return a version with its verified payload; see `Registry.load`."""
        wanted = self._current_version(kind) if version is None else version
        if wanted is None:
            raise no_version(kind, None)
        info = self._info(kind, wanted)
        path = _payload_file(self._folder(kind), wanted)
        payload = _read(path)
        if payload is None or hashlib.sha256(payload).hexdigest() != info.sha256:
            raise _damaged(path, info)
        return info, payload

    def fetch(self, kind: str, version: int, file: BinaryIO) -> ArtifactInfo:
        """Write a version's payload into a file; see `Registry.fetch`."""
        info = self._info(kind, version)
        path = _payload_file(self._folder(kind), version)
        digest = hashlib.sha256()
        try:
            with path.open("rb") as source:
                while piece := source.read(_PIECE_BYTES):
                    digest.update(piece)
                    file.write(piece)
        except FileNotFoundError as error:
            raise _damaged(path, info) from error
        except OSError as error:
            raise StorageError(f"cannot copy {path}: {error}") from error
        if digest.hexdigest() != info.sha256:
            raise _damaged(path, info)
        return info

    def set_current(self, kind: str, version: int, *, expected: int | None) -> ArtifactInfo:
        """Make an existing version current; see `Registry.set_current`."""
        folder = self._folder(kind)
        with locked(folder / "lock"):
            info = self._info(kind, version)
            check_current(kind, self._current_version(kind), expected)
            replace_file(folder / "current", str(version).encode())
        return info

    def history(self, kind: str) -> list[ArtifactInfo]:
        """Return all versions, newest first; see `Registry.history`."""
        with locked(self._folder(kind) / "lock"):
            return [self._info(kind, v) for v in sorted(self._versions(kind), reverse=True)]

    def prune(self, kind: str, *, keep: int) -> list[int]:
        """Remove old versions; see `Registry.prune`."""
        # The newest version always stays, or its number would be given out again.
        if keep < 1:
            raise ValueError(f"keep is {keep}, must be at least 1")
        folder = self._folder(kind)
        with locked(folder / "lock"):
            kept = {*sorted(self._versions(kind))[-keep:], self._current_version(kind)}
            removed = sorted(self._versions(kind) - kept)
            try:
                for version in removed:
                    _info_file(folder, version).unlink()
                    _payload_file(folder, version).unlink(missing_ok=True)
                sync_directory(folder)
            except OSError as error:
                raise StorageError(f"cannot prune {folder}: {error}") from error
        return removed

    def kinds(self) -> list[str]:
        """Return all kinds that have a version; see `Registry.kinds`."""
        return sorted({path.parent.name for path in self._root.glob("*/*.json")})

    def adopt(self, info: ArtifactInfo, payload: bytes) -> None:
        """Store a version of another registry; see `Registry.adopt`."""
        folder = self._folder(info.kind)
        with locked(folder / "lock"):
            if info.version not in self._versions(info.kind):
                replace_file(_payload_file(folder, info.version), payload)
                replace_file(_info_file(folder, info.version), info.to_json())

    def _folder(self, kind: str) -> Path:
        return self._root / checked_kind(kind)

    def _versions(self, kind: str) -> set[int]:
        return {int(p.stem) for p in self._folder(kind).glob("*.json")}

    def _current_version(self, kind: str) -> int | None:
        path = self._folder(kind) / "current"
        content = _read(path)
        if content is None:
            return None
        if not content.isdigit():
            raise StorageError(f"{path} is damaged: {content[:20]!r} is not a version")
        return int(content)

    def _info(self, kind: str, version: int) -> ArtifactInfo:
        path = _info_file(self._folder(kind), version)
        content = _read(path)
        if content is None:
            raise no_version(kind, version)
        try:
            info = ArtifactInfo.from_json(content)
        except (ValueError, TypeError) as error:
            raise StorageError(f"{path} is damaged: {error}") from error
        return replace(info, kind=kind, version=version)


def _damaged(path: Path, info: ArtifactInfo) -> StorageError:
    return StorageError(
        f"{path} is damaged: it does not have the SHA-256 that {info.kind} version {info.version}"
        " was published with",
        metadata={"file": str(path)},
    )


def _payload_file(folder: Path, version: int) -> Path:
    return folder / f"{version:08d}.bin"


def _info_file(folder: Path, version: int) -> Path:
    return folder / f"{version:08d}.json"


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}", metadata={"file": str(path)}) from error
