"""Index snapshots: copies of projections' files in the registry, for new replicas to start from.

A snapshot is a shortcut and never the truth: it is used by processes that would have made the very
same files, from the very same log, and whatever cannot be trusted is refused, named in the log, and
replaced by reading the event log from its beginning (ADR-0013).
"""

from __future__ import annotations

import logging
import math
import mmap
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import crc32

from forage.errors import ForageError, NotFoundError, StartupError
from forage.lease import Lease
from forage.log.archive import compress, pack, scratch, unpack
from forage.log.interface import EventLog, Record, Stream, Topic
from forage.log.projection import Portable, Projection, SavedState
from forage.registry import ArtifactInfo, Registry
from forage.settings import ServiceSettings, SnapshotSettings

FORMAT = 1
"""Version of the archive and of what is noted with it."""
PREFIX = "index-"
"""Begins the registry's kinds of snapshots of projections."""
_ARCHIVE = "archive.tar"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Note:
    """What is noted with a snapshot, and decides who may use it."""

    format: int
    projection: str
    topic: str
    sequence: int
    """The sequence of the topic that the snapshot includes."""
    made_of: str
    """`SavedState.format`: only a process with the same one can use it."""
    forage: str
    """The release that made it; for people."""
    record: tuple[int, str, str, int]
    """A record of the log it was made from: sequence, stream, key, CRC-32 of the payload."""
    size: int
    """Bytes of the archive before it is compressed."""

    @classmethod
    def of(cls, info: ArtifactInfo) -> Note:
        """Read it; raises `ValueError` if it is not one that this release understands."""
        found: dict[str, Any] = dict(info.metadata)
        if found.get("format") != FORMAT:
            raise ValueError(f"it has format {found.get('format')!r}, this Forage reads {FORMAT}")
        try:
            sequence, stream, key, checksum = found.pop("record")
            record = (int(sequence), str(Stream(stream)), str(key), int(checksum))
            numbers = {name: int(found[name]) for name in ("sequence", "size")}
            note = cls(**{**found, **numbers}, record=record)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"what is noted of it is damaged: {error!r}") from error
        return note


@dataclass(frozen=True, slots=True)
class Newest:
    """How new the newest snapshot is."""

    sequence: int = 0
    created: float = 0.0
    """Seconds since the epoch, by the clock of whoever made it."""


class IndexSnapshots:
    """Takes snapshots of projections, and starts empty ones from them."""

    def __init__(
        self,
        settings: SnapshotSettings,
        log: EventLog,
        registry: Registry,
        lease: Lease,
        folder: Path,
        *,
        forgets_s: float = math.inf,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep snapshots in `registry`, and drafts for a moment in `folder`, beside the state.

        `forgets_s` is the age at which the log forgets interactions.
        """
        self.settings = settings
        self.forgets_s = forgets_s
        self.registry = registry
        self.lease = lease
        self.clock = clock
        self._log = log
        self._folder = folder

    @classmethod
    def open(
        cls, settings: ServiceSettings, log: EventLog, registry: Registry, lease: Lease | None
    ) -> IndexSnapshots | None:
        """Return what the settings ask for; None if that is no snapshots.

        Raises `StartupError` for settings that contradict each other.
        """
        wanted = settings.snapshots.enabled
        if wanted is None:
            wanted = lease is not None and not settings.log_url.startswith("sqlite:")
        if not wanted or lease is None:
            return None
        forgets_s = settings.nats.interactions_max_age_days * 86_400 or math.inf
        if settings.snapshots.every_s > forgets_s / 2:
            raise StartupError(
                f"snapshots.every_s: {settings.snapshots.every_s:.0f} s between snapshots, and"
                " nats.interactions_max_age_days has interactions forgotten after"
                f" {forgets_s:.0f} s: a new replica could miss what lies between; allowed: at most"
                " half of that"
            )
        return cls(settings.snapshots, log, registry, lease, settings.data_dir, forgets_s=forgets_s)

    def install(self, projection: Projection) -> int:
        """Give a projection that has no files those of the newest snapshot that it can use.

        Call it before `restore`. Returns the sequence they include; 0 if there are none.
        """
        state = portable(projection)
        if state is None or any(path.exists() for path in state.files.values()):
            return 0
        try:
            found = self._history(kind_of(projection.name))
        except ForageError as error:
            _logger.warning("no snapshot of %s can be had: %s", projection.name, error.message)
            return 0
        for info in found:
            try:
                return self._install(projection, state, info)
            except (ForageError, ValueError) as error:
                _logger.warning(
                    "snapshot %d of projection %s is refused: %s",
                    info.version,
                    projection.name,
                    error.message if isinstance(error, ForageError) else error,
                )
        _logger.log(
            logging.WARNING if found else logging.INFO,
            "projection %s has no state and there is no snapshot that it can use: it is built from"
            " the log",
            projection.name,
        )
        return 0

    def newest(self, projection: Projection) -> tuple[int | None, Newest | None]:
        """Return the current version, whoever made it, and the newest that this process can use.

        Raises as the registry does.
        """
        kind, state = kind_of(projection.name), portable(projection)
        current = self.registry.current(kind)
        if current is None or state is None:
            return None, None
        for info in self._history(kind):
            with suppress(ValueError):
                note = Note.of(info)
                if note.made_of == state.format:
                    return current.version, Newest(note.sequence, info.created)
        return current.version, None

    def take(self, projection: Projection, archive: Path) -> Note | None:
        """Write an archive of the files as they are; call between two batches.

        Returns what is to be noted with it; None if there is nothing to be copied. Raises
        `StorageError`.
        """
        state = portable(projection)
        record = None if state is None else self._witness(projection.topic, state.sequence)
        if state is None or record is None:
            return None
        pack(archive, state.files)
        return Note(
            format=FORMAT,
            projection=projection.name,
            topic=str(projection.topic),
            sequence=state.sequence,
            made_of=state.format,
            forage=version("forage-mesh"),
            record=(record.sequence, str(record.stream), record.key, crc32(record.payload)),
            size=archive.stat().st_size,
        )

    def publish(self, archive: Path, note: Note, *, expected: int | None) -> ArtifactInfo:
        """Make an archive the current snapshot if `expected` still is current; remove old ones.

        The archive is compressed, and used up.

        Raises `ConflictError` if somebody else was faster, `StorageError` if it cannot be stored.
        """
        kind = kind_of(note.projection)
        metadata = {**asdict(note), "record": list(note.record)}
        # Mapped and not read: an index may be larger than what the process has left.
        with (
            compress(archive).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as payload,
        ):
            info = self.registry.publish(kind, payload, metadata, expected_current=expected)
        self.registry.prune(kind, keep=self.settings.keep)
        return info

    def scratch(self, projection: Projection) -> AbstractContextManager[Path]:
        """Give a folder for an archive, for a while."""
        return scratch(self._folder, kind_of(projection.name))

    def _history(self, kind: str) -> list[ArtifactInfo]:
        try:
            return self.registry.history(kind)
        except NotFoundError:
            # One was removed between two reads, because there is a newer one.
            return self.registry.history(kind)

    def _install(self, projection: Projection, state: SavedState, info: ArtifactInfo) -> int:
        note = Note.of(info)
        self._check(projection, state, note)
        with self.scratch(projection) as folder:
            archive, staging = folder / _ARCHIVE, folder / "files"
            staging.mkdir()
            with archive.open("wb") as file:
                self.registry.fetch(info.kind, info.version, file)
            unpack(archive, state.files, size=note.size, staging=staging)
        _logger.info(
            "projection %s starts from snapshot %d: sequence %d, %d bytes",
            projection.name,
            info.version,
            note.sequence,
            info.size,
        )
        return note.sequence

    def _check(self, projection: Projection, state: SavedState, note: Note) -> None:
        """Raise `ValueError` unless this process would have made these files from this log."""
        topic = projection.topic
        if (note.projection, note.topic) != (projection.name, str(topic)):
            raise ValueError(f"it is of projection '{note.projection}', topic '{note.topic}'")
        if note.made_of != state.format:
            raise ValueError(
                f"it was made by forage {note.forage} as '{note.made_of}', and this is"
                f" '{state.format}'"
            )
        head = self._log.head(topic)
        if note.sequence > head:
            raise ValueError(f"it includes sequence {note.sequence}, and the log ends at {head}")
        first = next(iter(self._log.read(topic, 0, 1)), None)
        begins = head + 1 if first is None else first.sequence
        self._check_record(note, begins)
        if topic is Topic.INTERACTIONS and begins > note.sequence + 1:
            _logger.warning(
                "projection %s: sequences %d to %d are neither in its snapshot nor in the log any"
                " more (nats.interactions_max_age_days); it goes on without them",
                projection.name,
                note.sequence + 1,
                begins - 1,
            )

    def _check_record(self, note: Note, begins: int) -> None:
        sequence, stream, key, checksum = note.record
        found = self._log.get(Stream(stream), key)
        if found is None:
            # Interactions may have been forgotten since; an item's last record never is.
            same = Stream(stream) is not Stream.CATALOG and begins > sequence
        elif found.sequence == sequence:
            same = crc32(found.payload) == checksum
        else:
            same = Stream(stream) is Stream.CATALOG and found.sequence > sequence
        if not same:
            raise ValueError(f"it was made from another log, with '{key}' at sequence {sequence}")

    def _witness(self, topic: Topic, sequence: int) -> Record | None:
        """Return a record up to this sequence by which the log can be known again."""
        for after in (sequence - 1, 0):
            found = self._log.read(topic, after, 1) if sequence else []
            if found and found[0].sequence <= sequence:
                return found[0]
        return None


def portable(projection: object) -> SavedState | None:
    """Describe the projection's files; None if it has none that could be copied."""
    state = projection.saved() if isinstance(projection, Portable) else None
    return state if state is not None and state.files else None


def kind_of(projection: str) -> str:
    """Return under which kind the registry keeps the snapshots of a projection."""
    return f"{PREFIX}{re.sub('[^a-z0-9_-]', '-', projection.lower())}"[:63]
