"""Archives of projections' files: what is packed comes back, and nothing else comes in."""

import io
import os
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from forage.errors import StorageError
from forage.log.archive import ArchiveError, compress, pack, scratch, unpack


def files(folder: Path) -> dict[str, Path]:
    return {"index": folder / "deep" / "index", "checkpoint": folder / "checkpoint"}


def unpacked(archive: Path, there: dict[str, Path], staging: Path) -> None:
    """Compress and unpack."""
    size = archive.stat().st_size
    unpack(compress(archive), there, size=size, staging=staging)


def everything(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def written(archive: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(archive, "w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive


def plain(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), b"content"


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def test_files_and_folders_come_back_and_what_is_absent_is_left_out(tmp_path: Path):
    here, there = files(tmp_path / "a"), files(tmp_path / "b")
    (here["index"] / "sub").mkdir(parents=True)
    (here["index"] / "sub" / "segment").write_bytes(b"x" * 3_000_000)
    (here["index"] / "empty").touch()
    staging = tmp_path / "staging"
    staging.mkdir()

    pack(tmp_path / "a.tar", here)
    unpacked(tmp_path / "a.tar", there, staging)

    assert (there["index"] / "sub" / "segment").read_bytes() == b"x" * 3_000_000
    assert (there["index"] / "empty").read_bytes() == b""
    assert not there["checkpoint"].exists()
    assert everything(staging) == set()


def test_a_database_that_is_being_written_is_copied_as_of_its_last_commit(tmp_path: Path):
    database = tmp_path / "a" / "checkpoint"
    database.parent.mkdir()
    staging = tmp_path / "staging"
    staging.mkdir()
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE rows (n)")
        writer.executemany("INSERT INTO rows VALUES (?)", [(n,) for n in range(1_000)])
        writer.commit()
        writer.execute("INSERT INTO rows VALUES (-1)")

        pack(tmp_path / "a.tar", files(tmp_path / "a"))

    unpacked(tmp_path / "a.tar", files(tmp_path / "b"), staging)
    with closing(sqlite3.connect(tmp_path / "b" / "checkpoint")) as copy:
        assert copy.execute("SELECT count(*), min(n) FROM rows").fetchone() == (1_000, 0)


@pytest.mark.parametrize(
    ("member", "named"),
    [
        (plain("../outside"), "leads out of its folder"),
        (plain("index/../../outside"), "leads out of its folder"),
        (plain("/outside"), "leads out of its folder"),
        (plain("index\\..\\outside"), "leads out of its folder"),
        (plain("other"), "does not belong"),
        (plain("."), "does not belong"),
        (special("index/link", tarfile.SYMTYPE, "/etc/passwd"), "not a plain file"),
        (special("index", tarfile.SYMTYPE, ".."), "not a plain file"),
        (special("index/link", tarfile.LNKTYPE, "checkpoint"), "not a plain file"),
        (special("index/device", tarfile.CHRTYPE), "not a plain file"),
        (special("index/pipe", tarfile.FIFOTYPE), "not a plain file"),
        (special("index", tarfile.DIRTYPE), "not a plain file"),
    ],
)
def test_what_has_no_place_in_an_archive_is_refused_and_nothing_is_put_anywhere(
    tmp_path: Path, member: tuple[tarfile.TarInfo, bytes], named: str
):
    archive = written(tmp_path / "bad.tar", plain("checkpoint"), member)
    staging = tmp_path / "a" / "staging"
    staging.mkdir(parents=True)

    with pytest.raises(ArchiveError, match=named):
        unpacked(archive, files(tmp_path / "b"), staging)

    assert everything(tmp_path) <= {"bad.tar.gz", "a", "a/staging", "a/staging/checkpoint"}


def test_a_name_that_comes_twice_is_refused(tmp_path: Path):
    archive = written(tmp_path / "bad.tar", plain("checkpoint"), plain("checkpoint"))

    with pytest.raises(StorageError, match="exist"):
        unpacked(archive, files(tmp_path / "b"), tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:700],
        lambda content: b"no archive" * 200,
        lambda content: content[:512] + b"\xff" * 512 + content[1024:][:-512],
    ],
)
def test_a_damaged_archive_is_refused_or_whole(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    here = files(tmp_path / "a")
    here["index"].mkdir(parents=True)
    for name in "abc":
        (here["index"] / name).write_bytes(name.encode() * 5_000)
    archive, staging = tmp_path / "a.tar", tmp_path / "staging"
    staging.mkdir()
    pack(archive, here)
    archive.write_bytes(damage(archive.read_bytes()))
    there = files(tmp_path / "b")

    try:
        unpacked(archive, there, staging)
    except StorageError:
        assert not there["index"].exists()
    else:
        assert sum(p.stat().st_size for p in there["index"].iterdir()) == 15_000


@pytest.mark.parametrize("left", [0, 5, 0.5, 0.99])
def test_a_compressed_archive_that_is_cut_short_is_refused(tmp_path: Path, left: float):
    here, there = files(tmp_path / "a"), files(tmp_path / "b")
    here["index"].mkdir(parents=True)
    (here["index"] / "random").write_bytes(os.urandom(50_000))
    staging = tmp_path / "staging"
    staging.mkdir()
    pack(tmp_path / "a.tar", here)
    size = (tmp_path / "a.tar").stat().st_size
    archive = compress(tmp_path / "a.tar")
    content = archive.read_bytes()
    archive.write_bytes(content[: round(left * len(content)) if left < 1 else round(left)])

    with pytest.raises(ArchiveError, match="cannot be read"):
        unpack(archive, there, size=size, staging=staging)

    assert not there["index"].exists()


def test_more_files_than_the_archive_had_are_refused(tmp_path: Path):
    archive = written(tmp_path / "many.tar", *(plain(f"index/{n}") for n in range(500)))
    compressed = compress(archive)

    with pytest.raises(ArchiveError, match="larger than the archive"):
        unpack(compressed, files(tmp_path / "b"), size=10_240, staging=tmp_path)

    assert len(everything(tmp_path)) < 25


def test_a_size_that_is_not_true_writes_no_more_than_the_archive_has(tmp_path: Path):
    info = tarfile.TarInfo("checkpoint")
    info.size = 10**12
    (tmp_path / "bomb.tar").write_bytes(info.tobuf() + b"x" * 4_096)

    with pytest.raises(ArchiveError, match="larger than the archive"):
        unpacked(tmp_path / "bomb.tar", files(tmp_path / "b"), tmp_path)

    assert everything(tmp_path) == {"bomb.tar.gz"}


def test_a_folder_for_a_while_is_removed_and_so_is_what_a_crash_has_left(tmp_path: Path):
    left = tmp_path / ".snapshot-x-crashed"
    left.mkdir()
    other = tmp_path / ".snapshot-y-1"
    other.mkdir()

    with scratch(tmp_path, "x") as folder:
        assert folder.is_dir()
        assert not left.exists()
        (folder / "file").touch()

    assert list(tmp_path.iterdir()) == [other]
