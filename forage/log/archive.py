"""A projection's saved files as one tar file, and back again without trusting its content."""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath

from forage.durable import sync_directory
from forage.errors import StorageError

_SQLITE = b"SQLite format 3\0"
_COPY_BYTES = 2**20


class ArchiveError(StorageError):
    """The archive is cut short, damaged, or holds what no archive of Forage holds."""


def pack(archive: Path, files: Mapping[str, Path]) -> None:
    """Write the files, and folders with all that is in them, under the given names.

    What does not exist is left out. A SQLite database, which its engine may have open, is copied
    through SQLite, so that the copy is of one moment. Raises `StorageError`.
    """
    try:
        with tarfile.open(archive, "w") as tar:
            for name, path in files.items():
                for member, file in _walk(name, path):
                    _add(tar, member, file, archive.parent)
    except (OSError, sqlite3.Error, tarfile.TarError) as error:
        raise StorageError(f"cannot pack {archive}: {error}") from error


def compress(archive: Path) -> Path:
    """Replace an archive by one that takes less than half of the room, and return it."""
    compressed = archive.with_name(f"{archive.name}.gz")
    try:
        with (
            archive.open("rb") as source,
            gzip.open(compressed, "wb", compresslevel=1) as target,
        ):
            shutil.copyfileobj(source, target, _COPY_BYTES)
        archive.unlink()
    except OSError as error:
        raise StorageError(f"cannot compress {archive}: {error}") from error
    return compressed


def unpack(archive: Path, files: Mapping[str, Path], *, size: int, staging: Path) -> None:
    """Put what was packed and compressed where `files` says; a crash may leave a part of it.

    Nothing is written outside of `staging`, a folder on the same file system, before all of the
    archive has been read, and no more than `size` bytes, which it had before it was compressed.
    Raises `ArchiveError` for an archive that is not whole, or has anything but files below these
    names, and `StorageError` if the disk fails.
    """
    left = size
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                left -= member.size + tarfile.BLOCKSIZE
                _extract(tar, member, _checked(member, files, left), staging)
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError) as error:
        raise ArchiveError(f"the archive cannot be read: {error}") from error
    except OSError as error:
        raise StorageError(f"cannot unpack into {staging}: {error}") from error
    try:
        for name, path in files.items():
            if (staging / name).exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                (staging / name).replace(path)
                sync_directory(path.parent)
    except OSError as error:
        raise StorageError(f"cannot move files out of {staging}: {error}") from error


@contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    """Give a new folder in `folder` that is removed at the end, with those a crash has left."""
    prefix = f".snapshot-{name}-"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    except OSError as error:
        raise StorageError(f"cannot make a folder in {folder}: {error}") from error
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _walk(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield name, path
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield f"{name}/{file.relative_to(path).as_posix()}", file


def _add(tar: tarfile.TarFile, name: str, path: Path, folder: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            file.seek(0)
            info = tarfile.TarInfo(name)
            info.size = os.fstat(file.fileno()).st_size
            tar.addfile(info, file)
            return
    copy = folder / "database.copy"
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    with copy.open("rb") as file:
        info = tarfile.TarInfo(name)
        info.size = os.fstat(file.fileno()).st_size
        tar.addfile(info, file)
    copy.unlink()


def _checked(member: tarfile.TarInfo, files: Mapping[str, Path], left: int) -> PurePosixPath:
    """Return where a member goes, below the staging folder; refuse all that is out of place."""
    path = PurePosixPath(member.name)
    problem = ""
    if not member.isreg() or member.issparse():
        problem = "is not a plain file"
    elif path.is_absolute() or ".." in path.parts or "\0" in member.name or "\\" in member.name:
        problem = "leads out of its folder"
    elif not path.parts or path.parts[0] not in files:
        problem = "does not belong to this projection"
    elif left < 0:
        problem = "is larger than the archive"
    if problem:
        raise ArchiveError(f"the archive's member {member.name[:200]!r} {problem}")
    return path


def _extract(
    tar: tarfile.TarFile, member: tarfile.TarInfo, path: PurePosixPath, staging: Path
) -> None:
    target = staging / path
    target.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    if source is None:
        raise ArchiveError(f"the archive's member {member.name[:200]!r} has no content")
    # "x": a name that comes twice is refused, and nothing is followed that is there already.
    with source, target.open("xb") as file:
        shutil.copyfileobj(source, file, _COPY_BYTES)
        if file.tell() != member.size:
            raise ArchiveError(f"the archive's member {member.name[:200]!r} is cut short")
        file.flush()
        os.fsync(file.fileno())
