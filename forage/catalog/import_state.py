"""How far an import has come, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

from forage.errors import InvalidArgumentError, StorageError

_log = logging.getLogger(__name__)


class ImportState:
    """The number of rows of one source file that are safely in the log.

    Kept in a small JSON file and bound to the content of the source (size and SHA-256): another
    content begins at row 0. Writing is atomic; a damaged state file counts as none.
    """

    def __init__(self, path: Path, source: Path) -> None:
        self._path = path
        self._source = _fingerprint(source)
        self.rows_done = self._load()

    def advance(self, rows_done: int) -> None:
        """Record durably that the first `rows_done` rows are done."""
        self.rows_done = rows_done
        temporary = self._path.with_name(self._path.name + ".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                json.dump({**self._source, "rows_done": rows_done}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            raise StorageError(f"import state {self._path}: {error}") from error

    def clear(self) -> None:
        """Forget the progress: the import is complete."""
        self.rows_done = 0
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"import state {self._path}: {error}") from error

    def _load(self) -> int:
        try:
            state = json.loads(self._path.read_bytes())
            if {key: state[key] for key in self._source} == self._source:
                rows = state["rows_done"]
                if isinstance(rows, int) and rows >= 0:
                    return rows
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise StorageError(f"import state {self._path}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("import state %s is damaged (%s): starting over", self._path, error)
        return 0


def _fingerprint(source: Path) -> dict[str, str | int]:
    try:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "size": source.stat().st_size}
    except OSError as error:
        raise InvalidArgumentError(
            "path", f"{source} cannot be read: {error.strerror}", allowed="a readable file"
        ) from error
