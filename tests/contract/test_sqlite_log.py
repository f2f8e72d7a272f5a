"""The SQLite engine keeps the contract of the event log, and what only a file can break."""

import functools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest

from forage.errors import StartupError, StorageError
from forage.log.engines import open_log
from forage.log.interface import Event, Stream, Topic
from forage.log.sqlite import SqliteEventLog
from forage.log.sqlite_file import FORMAT_VERSION
from forage.testing.log_contract import EventLogContract, Opener, event

APPEND_UNTIL_KILLED = """
    import sys
    from pathlib import Path
    from forage.log.interface import Event, Stream
    from forage.log.sqlite import SqliteEventLog

    log, prefix = SqliteEventLog.open(Path(sys.argv[1])), sys.argv[2]
    for index in range(1_000_000):
        (sequence,) = log.append([Event(Stream.DECISIONS, f"{prefix}-{index}", b"x" * 3000, 1.0)])
        print(sequence, f"{prefix}-{index}", flush=True)
"""
# A limit on file size makes the kernel refuse writes in mid-file, as a full disk does.
APPEND_UNTIL_REFUSED = """
    import resource, sys
    from pathlib import Path
    from forage.errors import StorageError
    from forage.log.interface import Event, Stream, Topic
    from forage.log.sqlite import SqliteEventLog

    log = SqliteEventLog.open(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    acknowledged = 0
    try:
        while True:
            log.append([Event(Stream.DECISIONS, str(acknowledged), b"x" * 20_000, 1.0)])
            acknowledged += 1
    except StorageError as error:
        print(error)
    assert len(log.read(Topic.INTERACTIONS, 0, 1000)) == acknowledged > 5
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert log.append([Event(Stream.DECISIONS, "after", b"", 1.0)]) == [acknowledged + 1]
    print(acknowledged + 1)
"""
# A private mount needs privileges that not every machine gives; 77 says that they are missing.
ON_A_TINY_DISK = "mount -t tmpfs -o size=1m none $1 || exit 77; shift; exec $@"
APPEND_UNTIL_FULL = """
    import sys
    from pathlib import Path
    from forage.errors import StorageError
    from forage.log.interface import Event, Stream, Topic
    from forage.log.sqlite import SqliteEventLog

    path, acknowledged = Path(sys.argv[1]), 0
    log = SqliteEventLog.open(path)
    try:
        while True:
            log.append([Event(Stream.DECISIONS, str(acknowledged), b"x" * 20_000, 1.0)])
            acknowledged += 1
    except StorageError as error:
        print(error)
    log.close()
    log = SqliteEventLog.open(path)
    assert len(log.read(Topic.INTERACTIONS, 0, 1000)) == acknowledged > 5
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data of ? 100%" / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog.open(path)
    yield log
    log.close()


class TestSqliteEventLog(EventLogContract):
    @pytest.fixture
    def opener(self, path: Path) -> Opener:
        return functools.partial(SqliteEventLog.open, path)


def python(script: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]


def test_an_acknowledged_append_survives_sigkill(path: Path) -> None:
    acknowledged: dict[str, int] = {}
    for run in range(3):
        with subprocess.Popen(
            python(APPEND_UNTIL_KILLED, path, f"run{run}"), stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(50 + 17 * run):
                sequence, key = process.stdout.readline().split()
                acknowledged[key] = int(sequence)
            process.send_signal(signal.SIGKILL)
            # What was printed before the signal struck was acknowledged too.
            for line in process.stdout.read().splitlines():
                if len(fields := line.split()) == 2:
                    acknowledged[fields[1]] = int(fields[0])

    with closing(SqliteEventLog.open(path)) as log:
        records = log.read(Topic.INTERACTIONS, 0, 1_000_000)

    stored = {record.key: record.sequence for record in records}
    assert acknowledged.items() <= stored.items()
    assert [r.sequence for r in records] == list(range(1, len(records) + 1))


def test_a_disk_that_refuses_writes_is_a_storage_error_and_heals(path: Path) -> None:
    done = subprocess.run(
        python(APPEND_UNTIL_REFUSED, path), capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    message, last = done.stdout.splitlines()
    assert str(path) in message
    with closing(SqliteEventLog.open(path)) as log:
        assert log.head(Topic.INTERACTIONS) == int(last)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare (util-linux)")
def test_a_full_disk_loses_nothing_acknowledged(tmp_path: Path) -> None:
    script = tmp_path / "append_until_full.py"
    script.write_text(textwrap.dedent(APPEND_UNTIL_FULL))
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["unshare", "-m", "sh", "-c", ON_A_TINY_DISK, "sh", disk, sys.executable, script]

    done = subprocess.run(
        [*map(str, command), str(disk / "log.db")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )

    if done.returncode in {1, 77} and "Traceback" not in done.stderr:
        pytest.skip(f"may not mount a disk: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "disk is full" in done.stdout


def test_all_members_of_a_failed_group_are_told(log: SqliteEventLog, path: Path) -> None:
    log.close()
    reader = SqliteEventLog.open(path, read_only=True)

    with ThreadPoolExecutor(8) as pool:
        appends = [
            pool.submit(reader.append, [event(Stream.FEEDBACK, str(index))]) for index in range(32)
        ]

    assert all(isinstance(future.exception(), StorageError) for future in appends)
    assert reader.head(Topic.INTERACTIONS) == 0
    reader.close()


def test_a_read_only_log_follows_the_writer_and_refuses_appends(
    log: SqliteEventLog, path: Path
) -> None:
    with closing(SqliteEventLog.open(path, read_only=True)) as reader:
        log.append([event(Stream.CATALOG, "a")])

        assert reader.wait(Topic.CATALOG, 0, 5.0)
        assert [r.key for r in reader.read(Topic.CATALOG, 0, 10)] == ["a"]
        with pytest.raises(StorageError, match="readonly"):
            reader.append([event(Stream.CATALOG, "b")])


def test_a_missing_file_is_created_unless_read_only(path: Path) -> None:
    with pytest.raises(StartupError, match=r"log\.db"):
        SqliteEventLog.open(path, read_only=True)

    SqliteEventLog.open(path).close()

    assert sorted(p.name for p in path.parent.iterdir()) == ["log.db"]


def test_many_openers_at_once_create_one_log(path: Path) -> None:
    def create(index: int) -> list[int]:
        with closing(SqliteEventLog.open(path)) as log:
            return log.append([event(Stream.FEEDBACK, str(index))])

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(create, range(16)))

    assert sorted(chain.from_iterable(given)) == list(range(1, 17))


def test_a_log_of_a_newer_version_is_refused(log: SqliteEventLog, path: Path) -> None:
    log.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION + 41}")

    with pytest.raises(StartupError) as refused:
        SqliteEventLog.open(path)

    assert str(path) in refused.value.message
    assert f"version {FORMAT_VERSION + 41}; " in refused.value.message
    assert refused.value.metadata["supported"] == str(FORMAT_VERSION)


@pytest.mark.parametrize("content", [b"", b"id,title\n1,Amelie\n" * 300])
def test_a_file_that_is_no_log_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(StartupError, match=r"log\.db"):
        SqliteEventLog.open(path)

    assert path.read_bytes() == content


def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE heads (topic, sequence)")

    with pytest.raises(StartupError, match="not a Forage event log"):
        SqliteEventLog.open(path)


def test_a_truncated_log_is_refused(log: SqliteEventLog, path: Path) -> None:
    log.append([Event(Stream.CATALOG, str(i), b"x" * 2000, 1.0) for i in range(50)])
    log.close()
    os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(StartupError, match="malformed"):
        SqliteEventLog.open(path)


def test_damage_found_later_is_a_storage_error(log: SqliteEventLog, path: Path) -> None:
    log.append([Event(Stream.CATALOG, str(i), b"x" * 2000, 1.0) for i in range(50)])
    log.close()
    content = path.read_bytes()
    path.write_bytes(content[:40_000] + b"\xff" * (len(content) - 40_000))

    with (
        closing(SqliteEventLog.open(path)) as damaged,
        pytest.raises(StorageError, match="malformed"),
    ):
        damaged.read(Topic.CATALOG, 0, 100)


def test_get_and_filtered_reads_use_an_index(log: SqliteEventLog, path: Path) -> None:
    by_key = "SELECT * FROM interactions WHERE stream = ? AND key = ?"
    by_stream = (
        "SELECT * FROM interactions WHERE sequence > ? AND stream IN (?) ORDER BY sequence LIMIT ?"
    )
    with closing(sqlite3.connect(path)) as connection:
        plans = [
            connection.execute(f"EXPLAIN QUERY PLAN {by_key}", ("", "")).fetchall(),
            connection.execute(f"EXPLAIN QUERY PLAN {by_stream}", (0, "", 1)).fetchall(),
        ]

    assert all(len(plan) == 1 and "SEARCH" in plan[0][3] for plan in plans)


@pytest.mark.parametrize("url", ["sqlite:", "log.db", "redis://127.0.0.1:6379", ""])
def test_an_address_that_names_no_engine_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(StartupError, match=r"^log_url: .* allowed: sqlite:FILE"):
        open_log(url, tmp_path)
