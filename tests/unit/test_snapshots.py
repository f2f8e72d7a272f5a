"""Snapshots of projections: when they are made and by whom, and how a replica starts from one."""

import itertools
import threading

import pytest

from forage.errors import StartupError
from forage.lease import FileLease
from forage.log import Stream, Topic
from forage.log.follower import Follower
from forage.log.snapshots import IndexSnapshots, kind_of
from forage.registry import DirectoryRegistry
from forage.settings import ServiceSettings
from tests.unit.snapshot_world import KIND, Tally, World
from tests.waiting import eventually


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
    eventually(lambda: world.versions() == [1])

    def offered() -> None:
        threading.Event().wait(0.4)

    world.fill(10, 20)
    offered()
    assert world.versions() == [1], "no time has passed"
    world.now += 0.2
    eventually(lambda: world.versions() == [2, 1])
    world.now += 0.2
    world.fill(20, 24)
    offered()
    assert world.versions() == [2, 1], "there are too few changes"
    world.fill(24, 25)
    eventually(lambda: 3 in world.versions())


def test_a_few_changes_are_enough_before_the_log_forgets_them(world: World):
    world.fill(0, 10)
    world.follow("a", every_s=1.0, least_changes=1_000, forgets_s=100.0)
    eventually(lambda: world.versions() == [1])
    world.fill(10, 11)
    world.now += 49.0
    threading.Event().wait(0.4)
    assert world.versions() == [1]

    world.now += 2.0

    eventually(lambda: world.versions() == [2, 1])


def test_of_many_replicas_one_publishes(world: World):
    world.fill(0, 100)
    for index in range(5):
        world.follow(f"replica-{index}")
    eventually(lambda: world.versions())
    threading.Event().wait(0.6)

    assert world.versions() == [1]


def test_nobody_publishes_while_another_has_the_lease(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("forage.log.snapshot_publisher._CHECK_S", 0.1)
    world.lease.acquire(KIND, "another", 600.0)
    world.fill(0, 10)
    world.follow("a")
    eventually(lambda: world.lease.granted.count(False) == 2)
    assert world.versions() == []

    world.lease.release(KIND, "another")

    eventually(lambda: world.versions() == [1])


def test_another_takes_over_when_the_publisher_is_gone(world: World):
    world.fill(0, 10)
    world.published()
    world.fill(10, 20)
    world.now += 10.0

    world.follow("second")

    eventually(lambda: 2 in world.versions())
    assert world.registry.current(KIND).metadata["sequence"] == 20


def test_old_snapshots_are_removed(world: World):
    for number in range(5):
        world.fill(10 * number, 10 * number + 10)
        world.now += 1.0
        world.published()

    assert world.versions() == [5, 4]


def test_nothing_is_published_of_an_empty_log(world: World):
    world.follow("empty")
    threading.Event().wait(0.4)

    assert world.versions() == []


def test_nothing_is_published_before_it_has_caught_up(world: World):
    world.fill(0, 2_000)
    slow = Tally(world.folder / "slow", slow_s=0.2)
    follower = Follower(
        world.log,
        [slow],
        batch=200,
        checkpoint_every_s=0.02,
        snapshots=world.snapshots(world.folder / "slow"),
    )

    follower.start()
    eventually(lambda: world.versions() == [1])
    follower.stop()

    assert world.registry.current(KIND).metadata["sequence"] == 2_000, "there was none before"


def test_interactions_have_snapshots_too(world: World):
    world.fill(0, 10, Stream.FEEDBACK)
    world.published(Topic.INTERACTIONS)
    world.fill(10, 15, Stream.FEEDBACK)

    assert world.follow("new", topic=Topic.INTERACTIONS).given == [11, 12, 13, 14, 15]


def test_a_snapshot_is_consistent_while_the_projection_goes_on(world: World):
    world.fill(0, 10)
    world.follow("busy", keep=50)
    numbers = itertools.count(10, 10)

    def published_while_it_goes_on() -> bool:
        start = next(numbers)
        world.fill(start, start + 10)
        world.now += 1.0
        return len(world.versions()) > 3

    eventually(published_while_it_goes_on)
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
