"""What the learner publishes: at most as often as told, by its holder alone, and after trouble."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from forage.errors import StorageError
from forage.log import Event
from forage.log.sqlite import SqliteEventLog
from forage.registry import DirectoryRegistry
from orchestrator.learning import LEASE, POLICY
from tests.unit.learned import Learned, later, long_story


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog.open(tmp_path / "log.db")
    yield log
    log.close()


def publishing(log: SqliteEventLog, folder: Path, events: Sequence[Event] = ()) -> Learned:
    log.append(list(events) or long_story())
    return Learned(log, folder).follow()


def test_what_was_learned_is_published_at_most_as_often_as_configured(log, tmp_path):
    learned = publishing(log, tmp_path)
    first = learned.publish()
    log.append([later("more", 500)])
    learned.follow()
    learned.now += 0.1
    learned.projection.publish_if_due()
    too_soon = learned.registry.current(POLICY)
    second = learned.publish()
    learned.publish()
    unchanged = learned.registry.current(POLICY)

    assert first is not None
    assert second is not None
    assert too_soon is not None
    assert unchanged is not None
    assert (too_soon.version, unchanged.version) == (1, 2)
    assert second.sequence > first.sequence


def test_without_a_lease_nothing_is_published(log, tmp_path):
    log.append(long_story())
    learned = Learned(log, tmp_path, lease=False).follow()

    assert learned.publish() is None


def test_only_one_of_two_learners_publishes_until_it_lets_go(log, tmp_path):
    mine = publishing(log, tmp_path)
    yours = Learned(log, tmp_path).follow()
    mine.publish()
    yours.publish()
    alone = mine.registry.current(POLICY)
    mine.projection.release()
    yours.publish()
    taken_over = mine.registry.current(POLICY)

    assert alone is not None
    assert taken_over is not None
    assert (alone.version, taken_over.version) == (1, 2)
    assert mine.beliefs() == yours.beliefs()


class Paused(DirectoryRegistry):
    """A registry whose user is stopped, before it publishes, until another learner has."""

    def __init__(self, root: Path, meanwhile: Callable[[], object]) -> None:
        super().__init__(root)
        self.meanwhile = meanwhile

    def publish(self, *args, **kwargs):
        self.meanwhile()
        return super().publish(*args, **kwargs)


def test_a_learner_stopped_beyond_its_lease_publishes_nothing_over_its_successor(log, tmp_path):
    mine = publishing(log, tmp_path)
    yours = Learned(log, tmp_path).follow()

    def your_turn() -> None:
        mine.projection.release()
        log.append([later("more", 500)])
        yours.follow().publish()

    mine.projection._registry = Paused(tmp_path / "registry", your_turn)
    mine.now += 10
    mine.projection.publish_if_due()

    (only,) = yours.registry.history(POLICY)
    assert only.metadata["sequence"] == yours.publish().sequence


def test_a_learner_that_has_read_less_waits_until_it_has_read_as_much(log, tmp_path):
    yours = publishing(log, tmp_path)
    mine = Learned(log, tmp_path).follow()
    log.append([later("more", 500)])
    yours.follow().publish()
    yours.projection.release()
    mine.publish()
    behind = yours.registry.history(POLICY)
    log.append([later("most", 1_000)])
    mine.follow().publish()
    caught_up = yours.registry.history(POLICY)

    assert (len(behind), len(caught_up)) == (1, 2)


def test_the_lease_is_held_while_there_is_nothing_to_publish(log, tmp_path):
    mine = publishing(log, tmp_path)
    mine.publish()
    mine.now += 4
    before = (tmp_path / "leases" / f"{LEASE}.lease").read_bytes()
    mine.projection.publish_if_due()

    assert (tmp_path / "leases" / f"{LEASE}.lease").read_bytes() != before


class Overtaken(DirectoryRegistry):
    """A registry in which another learner publishes just before this one does."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.overtake = True

    def current(self, kind):
        found = super().current(kind)
        if self.overtake:
            self.overtake = False
            super().publish(kind, b"theirs", {}, expected_current=found.version if found else None)
        return found


def test_a_snapshot_that_was_overtaken_is_dropped_and_the_next_one_published(log, tmp_path):
    learned = publishing(log, tmp_path)
    learned.projection._registry = registry = Overtaken(tmp_path / "registry")
    learned.now += 10
    learned.projection.publish_if_due()
    overtaken = registry.load(POLICY)[1]
    snapshot = learned.publish()

    assert overtaken == b"theirs"
    assert snapshot is not None
    assert snapshot.sequence > 0


class Full(DirectoryRegistry):
    """A registry on a full disk."""

    def publish(self, *args, **kwargs):
        raise StorageError("no space left on device")


def test_what_could_not_be_published_is_published_later(log, tmp_path):
    learned = publishing(log, tmp_path)
    registry, learned.projection._registry = learned.registry, Full(tmp_path / "registry")
    learned.now += 10
    with pytest.raises(StorageError):
        learned.projection.publish_if_due()
    learned.projection._registry = registry

    assert learned.publish() is not None
    assert LEASE == "learner"
