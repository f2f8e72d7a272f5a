"""Snapshots of projections: when they are made and by whom, and what is never used."""

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from forage.errors import StartupError
from forage.lease import FileLease
from forage.log import Event, Record, SavedState, Stream, Topic
from forage.log.archive import compress, pack
from forage.log.checkpoint import CheckpointFile
from forage.log.follower import Follower
from forage.log.snapshots import IndexSnapshots, kind_of
from forage.log.sqlite import SqliteEventLog
from forage.registry import DirectoryRegistry
from forage.retrieval import Deadline
from forage.settings import ServiceSettings, SnapshotSettings

KIND = "index-tally"


class Tally:
    """Keeps the keys it has seen, in one file, and remembers which records it was given."""

    name = "tally"
    streams: tuple[Stream, ...] = ()

    def __init__(
        self, folder: Path, topic: Topic = Topic.CATALOG, version: int = 1, slow_s: float = 0.0
    ) -> None:
        self.topic = topic
        self.keys: list[str] = []
        self.given: list[int] = []
        self._slow_s = slow_s
        self.file = CheckpointFile(folder / "tally", name="tally", version=version)

    def restore(self) -> int:
        found = self.file.load()
        if found is None:
            return 0
        self.keys = found[1].decode().split()
        return found[0]

    def apply(self, records: Sequence[Record]) -> None:
        threading.Event().wait(self._slow_s)
        self.keys += [record.key for record in records]
        self.given += [record.sequence for record in records]

    def checkpoint(self, sequence: int) -> None:
        self.file.save(sequence, " ".join(self.keys).encode())

    def saved(self) -> SavedState:
        return self.file.saved()


class World:
    """One log and one registry, and services that follow it, each in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = SqliteEventLog.open(folder / "log.db")
        self.now = 1_000.0
        self.registry = DirectoryRegistry(folder / "registry", clock=lambda: self.now)
        self._running: list[Follower] = []

    def snapshots(
        self, folder: Path, log: SqliteEventLog | None = None, **changes
    ) -> IndexSnapshots:
        forgets_s = changes.pop("forgets_s", math.inf)
        settings = SnapshotSettings(**{"every_s": 0.1, "least_changes": 1, **changes})
        lease = FileLease(self.folder / "leases")
        return IndexSnapshots(
            settings,
            log or self.log,
            self.registry,
            lease,
            folder,
            forgets_s=forgets_s,
            clock=lambda: self.now,
        )

    def follow(self, name: str, log: SqliteEventLog | None = None, **changes) -> Tally:
        """Start a service and wait until it has caught up."""
        folder = self.folder / name
        given = {k: changes.pop(k) for k in ("topic", "version") if k in changes}
        tally = Tally(folder, **given)
        follower = Follower(
            log or self.log,
            [tally],
            checkpoint_every_s=0.02,
            snapshots=self.snapshots(folder, log, **changes),
        )
        self._running.append(follower)
        follower.start()
        assert follower.caught_up.wait(10.0)
        return tally

    def stop(self) -> None:
        while self._running:
            self._running.pop().stop()

    def fill(self, start: int, end: int, stream: Stream = Stream.CATALOG) -> None:
        self.log.append([Event(stream, str(n), b"x%d" % n, 1.0) for n in range(start, end)])

    def versions(self) -> list[int]:
        return [info.version for info in self.registry.history(KIND)]

    def published(self, topic: Topic = Topic.CATALOG) -> None:
        """Have a first service publish a snapshot of all there is, and stop it."""
        before = max(self.versions(), default=0)
        self.follow(f"publisher-{before}", topic=topic)
        until(lambda: max(self.versions(), default=0) > before)
        self.stop()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.stop()
    world.log.close()


def until(condition: Callable[[], object]) -> None:
    deadline = Deadline.after(10.0)
    while not condition():
        deadline.check()
        threading.Event().wait(0.005)


def refusals(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(r.message for r in caplog.records if r.levelno >= logging.WARNING)


def test_a_new_replica_starts_from_a_snapshot_then_the_tail(world: World):
    world.fill(0, 500)
    world.published()
    world.fill(500, 510)

    tally = world.follow("new")

    assert tally.keys == [str(n) for n in range(510)]
    assert tally.given == list(range(501, 511)), "the rest came with the snapshot"


def test_without_a_snapshot_the_log_is_read_from_its_beginning(world: World):
    world.fill(0, 5)

    assert world.follow("new").given == [1, 2, 3, 4, 5]


def test_state_that_is_there_is_not_replaced(world: World):
    world.fill(0, 10)
    world.follow("old", least_changes=10**6, every_s=3_600.0)
    world.stop()
    world.fill(10, 20)
    world.published()

    assert world.follow("old").given == list(range(11, 21))


def test_a_snapshot_is_due_after_time_and_changes(world: World):
    world.fill(0, 10)
    world.follow("a", every_s=0.1, least_changes=5)
    until(lambda: world.versions() == [1])

    def offered() -> None:
        threading.Event().wait(0.4)

    world.fill(10, 20)
    offered()
    assert world.versions() == [1], "no time has passed"
    world.now += 0.2
    until(lambda: world.versions() == [2, 1])
    world.now += 0.2
    world.fill(20, 24)
    offered()
    assert world.versions() == [2, 1], "there are too few changes"
    world.fill(24, 25)
    until(lambda: 3 in world.versions())


def test_a_few_changes_are_enough_before_the_log_forgets_them(world: World):
    world.fill(0, 10)
    world.follow("a", every_s=1.0, least_changes=1_000, forgets_s=100.0)
    until(lambda: world.versions() == [1])
    world.fill(10, 11)
    world.now += 49.0
    threading.Event().wait(0.4)
    assert world.versions() == [1]

    world.now += 2.0

    until(lambda: world.versions() == [2, 1])


def test_of_many_replicas_one_publishes(world: World):
    world.fill(0, 100)
    for index in range(5):
        world.follow(f"replica-{index}")
    until(lambda: world.versions())
    threading.Event().wait(0.6)

    assert world.versions() == [1]


def test_another_takes_over_when_the_publisher_is_gone(world: World):
    world.fill(0, 10)
    world.published()
    world.fill(10, 20)
    world.now += 10.0

    world.follow("second")

    until(lambda: 2 in world.versions())
    assert world.registry.current(KIND).metadata["sequence"] == 20


def test_old_snapshots_are_removed(world: World):
    for number in range(5):
        world.fill(10 * number, 10 * number + 10)
        world.now += 1.0
        world.published()

    assert world.versions() == [5, 4]


def test_nothing_is_published_before_it_has_caught_up_or_when_it_is_empty(world: World):
    world.follow("empty")
    threading.Event().wait(0.4)

    assert world.versions() == []


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda content: content[:-600], "SHA-256"),
        (lambda content: content[:100] + b"?" + content[101:], "SHA-256"),
        (lambda content: b"", "SHA-256"),
        (None, "damaged"),
    ],
)
def test_a_damaged_snapshot_is_refused_by_name_and_the_log_is_read(
    world: World,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes] | None,
    named: str,
):
    world.fill(0, 10)
    world.published()
    path = world.folder / "registry" / KIND / "00000001.bin"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))

    tally = world.follow("new")

    assert tally.given == list(range(1, 11))
    assert "snapshot 1 of projection tally is refused: " in refusals(caplog)
    assert named in refusals(caplog)
    assert "it is built from the log" in refusals(caplog)
    assert not list((world.folder / "new").glob(".snapshot*"))


def test_from_a_damaged_snapshot_the_one_before_is_taken(
    world: World, caplog: pytest.LogCaptureFixture
):
    world.fill(0, 10)
    world.published()
    world.fill(10, 20)
    world.now += 1.0
    world.published()
    (world.folder / "registry" / KIND / "00000002.bin").write_bytes(b"?")

    tally = world.follow("new")

    assert tally.given == list(range(11, 21))
    assert "snapshot 2 of projection tally is refused" in refusals(caplog)


def test_an_archive_that_is_whole_but_not_what_it_should_be_is_refused(
    world: World, caplog: pytest.LogCaptureFixture
):
    world.fill(0, 10)
    world.published()
    metadata = world.registry.current(KIND).metadata
    world.registry.publish(KIND, b"no archive" * 999, metadata, expected_current=1)

    assert world.follow("new").given == []
    assert "snapshot 2 of projection tally is refused: the archive cannot be read" in refusals(
        caplog
    )


def test_what_restore_does_not_accept_is_built_from_the_log(
    world: World, caplog: pytest.LogCaptureFixture
):
    world.fill(0, 10)
    world.follow("first")
    until(lambda: world.versions())
    world.stop()
    file = world.folder / "first" / "tally"
    file.write_bytes(file.read_bytes()[:-1])
    snapshots = world.snapshots(world.folder / "first")
    note = snapshots.take(Tally(world.folder / "first"), world.folder / "a.tar")
    assert note is None, "nothing is known of the file until it is read"
    metadata = world.registry.current(KIND).metadata
    pack(world.folder / "a.tar", {"tally": file})
    payload = compress(world.folder / "a.tar").read_bytes()
    world.registry.publish(KIND, payload, metadata, expected_current=1)

    assert world.follow("new").given == list(range(1, 11))
    assert "cannot use the snapshot" in refusals(caplog)


def test_a_snapshot_of_another_format_is_refused_and_an_older_one_of_this_is_taken(
    world: World, caplog: pytest.LogCaptureFixture
):
    world.fill(0, 10)
    world.published()
    world.follow("newer release", version=2)
    until(lambda: world.versions() == [2, 1])
    world.stop()
    world.fill(10, 12)

    assert world.follow("this release").given == [11, 12]
    assert "'tally, version 2', and this is 'tally, version 1'" in refusals(caplog)
    assert world.follow("the newer again", version=2).given == [11, 12]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, "has format 2"),
        ({"sequence": 99}, "the log ends at 10"),
        ({"projection": "other"}, "of projection 'other'"),
        ({"topic": "interactions"}, "topic 'interactions'"),
        ({"record": [10, "catalog", "9", 1]}, "another log"),
        ({"record": [9, "catalog", "no such item", 1]}, "another log"),
        ({"record": [10, "catalog", "0", 1]}, "another log"),
        ({"record": "nonsense"}, "damaged"),
        ({"sequence": None}, "damaged"),
        ({"size": "much"}, "damaged"),
        ({"size": 100}, "larger than the archive"),
        ({"unknown": 1}, "damaged"),
    ],
)
def test_a_snapshot_that_does_not_belong_here_is_refused_by_name(
    world: World, caplog: pytest.LogCaptureFixture, change: dict[str, object], named: str
):
    world.fill(0, 10)
    world.published()
    info, payload = world.registry.load(KIND)
    world.registry.publish(KIND, payload, {**info.metadata, **change}, expected_current=1)
    (world.folder / "registry" / KIND / "00000001.json").unlink()

    assert world.follow("new").given == list(range(1, 11))
    assert named in refusals(caplog)


def test_a_snapshot_of_another_log_is_refused(world: World, caplog: pytest.LogCaptureFixture):
    world.fill(0, 10)
    world.published()
    other = SqliteEventLog.open(world.folder / "other.db")
    other.append([Event(Stream.CATALOG, str(n), b"other", 1.0) for n in range(20)])

    assert world.follow("new", other).given == list(range(1, 21))
    assert "it was made from another log" in refusals(caplog)
    world.stop()
    other.close()


def test_a_replaced_item_does_not_make_it_another_log(world: World):
    world.fill(0, 10)
    world.published()
    world.fill(0, 10)

    assert world.follow("new").given == list(range(11, 21))


def test_interactions_have_snapshots_too(world: World):
    world.fill(0, 10, Stream.FEEDBACK)
    world.published(Topic.INTERACTIONS)
    world.fill(10, 15, Stream.FEEDBACK)

    assert world.follow("new", topic=Topic.INTERACTIONS).given == [11, 12, 13, 14, 15]


def test_a_snapshot_is_consistent_while_the_projection_goes_on(world: World):
    world.fill(0, 10)
    world.follow("busy", keep=50)
    for number in range(1, 20):
        world.fill(10 * number, 10 * number + 10)
        world.now += 1.0
        threading.Event().wait(0.05)
    until(lambda: len(world.versions()) > 3)
    world.stop()

    for info in world.registry.history(KIND):
        fresh = Tally(world.folder / f"check-{info.version}")
        registry = DirectoryRegistry(world.folder / f"one-{info.version}")
        registry.adopt(*world.registry.load(KIND, info.version))
        snapshots = world.snapshots(world.folder / f"check-{info.version}")
        snapshots.registry = registry
        assert snapshots.install(fresh) == fresh.restore() == len(fresh.keys)


def test_a_projection_without_files_is_left_alone(world: World):
    class Server:
        name, topic, streams = "tally", Topic.CATALOG, ()

    assert world.snapshots(world.folder).install(Server()) == 0


def test_names_become_kinds():
    assert kind_of("graph.engagement") == "index-graph-engagement"
    assert kind_of("Ünique " * 20) == kind_of("Ünique " * 20)[:63]


@pytest.mark.parametrize(
    ("settings", "on"),
    [
        ({}, False),
        ({"snapshots": {"enabled": True}}, True),
        ({"log_url": "nats://127.0.0.1:4222"}, True),
        ({"log_url": "nats://127.0.0.1:4222", "snapshots": {"enabled": False}}, False),
    ],
)
def test_they_are_on_with_nats_and_otherwise_as_told(world: World, settings: dict, on: bool):
    lease = FileLease(world.folder / "leases")

    found = IndexSnapshots.open(ServiceSettings(**settings), world.log, world.registry, lease)

    assert (found is not None) is on


def test_snapshots_rarer_than_the_logs_memory_are_refused_by_name(world: World):
    settings = ServiceSettings(
        log_url="nats://127.0.0.1:4222",
        nats={"interactions_max_age_days": 0.5},
        snapshots={"every_s": 21_601},
    )

    with pytest.raises(StartupError, match=r"snapshots\.every_s.*interactions_max_age_days"):
        IndexSnapshots.open(settings, world.log, world.registry, FileLease(world.folder))
