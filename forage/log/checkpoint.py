"""Checkpoints: the state of an in-memory projection, in one file, with the sequence it includes."""

from __future__ import annotations

import hashlib
import logging
import struct
from pathlib import Path

from forage.durable import replace_file
from forage.errors import StorageError
from forage.log.projection import SavedState

_MAGIC = b"FORAGECP"
_DIGEST_SIZE = hashlib.sha256().digest_size
_NAME_SIZE = struct.Struct(">H")
_POSITION = struct.Struct(">IQ")
_logger = logging.getLogger(__name__)


class CheckpointFile:
    """A file that holds (sequence, payload) of one named and versioned format, or nothing.

    The file is replaced as a whole, so a crash leaves the previous checkpoint. Whatever cannot be
    trusted is treated as absent: the log is the truth, and the projection replays it.

    Layout: magic, SHA-256 of all that follows, length and UTF-8 of the format name, format
    version (uint32), sequence (uint64), payload; integers big-endian.
    """

    def __init__(self, path: Path, *, name: str, version: int) -> None:
        """Describe the file; nothing is read or written yet.

        `version` changes whenever older payloads can no longer be understood.
        """
        encoded = name.encode()
        self._path = path
        self._name = name
        self._version = version
        self._prefix = _NAME_SIZE.pack(len(encoded)) + encoded
        self._sequence = 0

    def save(self, sequence: int, payload: bytes) -> None:
        """Replace the checkpoint, durably; raises `StorageError` naming the file."""
        header = self._prefix + _POSITION.pack(self._version, sequence)
        digest = hashlib.sha256(header)
        digest.update(payload)
        replace_file(self._path, _MAGIC, digest.digest(), header, payload)
        self._sequence = sequence

    def load(self) -> tuple[int, bytes] | None:
        """Return (sequence, payload); None if there is no checkpoint that can be trusted.

        A damaged or truncated file, and one of another format or version, is warned about.
        Raises `StorageError` if there is a file and it cannot be read at all.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(
                f"cannot read {self._path}: {error}", metadata={"file": str(self._path)}
            ) from error
        problem, found = self._parse(content)
        if problem:
            _logger.warning("discarding checkpoint %s: %s", self._path, problem)
        self._sequence = 0 if found is None else found[0]
        return found

    def saved(self) -> SavedState:
        """Describe the file, as last saved or loaded, for `Portable.saved`."""
        return SavedState(
            f"{self._name}, version {self._version}", {self._path.name: self._path}, self._sequence
        )

    def _parse(self, content: bytes) -> tuple[str, tuple[int, bytes] | None]:
        body_at = len(_MAGIC) + _DIGEST_SIZE
        if content[: len(_MAGIC)] != _MAGIC:
            return "it is not a checkpoint file", None
        body = memoryview(content)[body_at:]
        if hashlib.sha256(body).digest() != content[len(_MAGIC) : body_at]:
            return "it is damaged or truncated", None
        if body[: len(self._prefix)] != self._prefix:
            return f"it does not hold '{self._name}'", None
        version, sequence = _POSITION.unpack_from(body, len(self._prefix))
        if version != self._version:
            return f"it has format version {version}, this Forage reads {self._version}", None
        return "", (sequence, bytes(body[len(self._prefix) + _POSITION.size :]))
