"""Which files belong to a checkpoint, and whether they are still what they were.

Engines map their files into memory and trust them; a file that was cut short or overwritten would
crash the process or, worse, give wrong answers.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path

from forage.log.checkpoint import CheckpointFile

_CHUNK = 2**20
_FORMAT_VERSION = 2
_logger = logging.getLogger(__name__)


class Manifest:
    """The position of an index in the log, with size and CRC-32 of each of its files.

    Files of a commit never change, so each is read once; lock files do not count.
    """

    def __init__(self, folder: Path, file: Path, fingerprint: str) -> None:
        """Watch over `folder` from `file`; `fingerprint` tells indexes of unlike layout apart."""
        self._folder = folder
        self._file = CheckpointFile(file, name="lexical", version=_FORMAT_VERSION)
        self._fingerprint = fingerprint
        self._seen: dict[str, tuple[int, int, int]] = {}

    @property
    def format(self) -> str:
        """Names the form of the manifest."""
        return self._file.saved().format

    def save(self, sequence: int) -> None:
        """Record the files as they are, as state up to `sequence`."""
        content = {"fingerprint": self._fingerprint, "files": self._sums()}
        self._file.save(sequence, json.dumps(content).encode())

    def load(self) -> int:
        """Return the sequence that the files stand for; 0 if they cannot be trusted."""
        loaded = self._file.load()
        if loaded is None:
            return 0
        sequence, payload = loaded
        content = json.loads(payload)
        if content["fingerprint"] != self._fingerprint:
            _logger.warning("rebuilding %s: the schema or the settings changed", self._folder)
            return 0
        changed = _difference(content["files"], self._sums())
        if changed:
            _logger.warning("rebuilding %s: %s is damaged or missing", self._folder, changed)
            return 0
        return sequence

    def _sums(self) -> dict[str, tuple[int, int]]:
        sums: dict[str, tuple[int, int]] = {}
        for path in sorted(self._folder.rglob("*")):
            if not path.is_file() or path.name.lower().endswith("lock"):
                continue
            state = path.stat()
            size, modified, crc = self._seen.get(path.name, (-1, -1, 0))
            if (size, modified) != (state.st_size, state.st_mtime_ns):
                crc = _crc(path)
                self._seen[path.name] = (state.st_size, state.st_mtime_ns, crc)
            sums[path.name] = (state.st_size, crc)
        return sums


def _difference(recorded: Mapping[str, list[int]], found: Mapping[str, tuple[int, int]]) -> str:
    """Return the first recorded file that is not as it was; files that are new do no harm."""
    return next((n for n, sums in recorded.items() if tuple(sums) != found.get(n)), "")


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc
