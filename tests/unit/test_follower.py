"""The follower: order, visibility, checkpoints, errors, and what the status says of them."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from forage.errors import StartupError, StorageError, UnavailableError
from forage.log.follower import Follower
from forage.log.interface import Event, Record, Stream, Topic
from forage.log.sqlite import SqliteEventLog
from forage.retrieval import Deadline
from tests.waiting import eventually

SOON_S = 10.0


class Keys:
    """A projection that lists the keys it has seen; its state outlives it in `disk`."""

    def __init__(
        self,
        name: str = "keys",
        *,
        topic: Topic = Topic.CATALOG,
        streams: tuple[Stream, ...] = (Stream.CATALOG,),
        refuse: Callable[[Record], None] = lambda record: None,
    ) -> None:
        self.name = name
        self.topic = topic
        self.streams = streams
        self.keys: list[str] = []
        self.batches: list[int] = []
        self.disk: tuple[int, list[str]] = (0, [])
        self.saves: list[int] = []
        self.saving: list[tuple[float, float]] = []
        self.save_s = 0.0
        self.disk_is_full = False
        self._refuse = refuse

    def restore(self) -> int:
        sequence, keys = self.disk
        self.keys = list(keys)
        return sequence

    def apply(self, records: Sequence[Record]) -> None:
        for record in records:
            self._refuse(record)
        self.keys += [record.key for record in records]
        self.batches.append(len(records))

    def checkpoint(self, sequence: int) -> None:
        if self.disk_is_full:
            raise StorageError("disk full")
        began = time.monotonic()
        threading.Event().wait(self.save_s)
        self.disk = (sequence, list(self.keys))
        self.saves.append(sequence)
        self.saving.append((began, time.monotonic()))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog.open(tmp_path / "log.db")
    yield log
    log.close()


@pytest.fixture
def follow(log: SqliteEventLog) -> Iterator[Callable[..., Follower]]:
    started: list[Follower] = []

    def start(*projections: Keys, **options: object) -> Follower:
        follower = Follower(log, projections, **options)  # type: ignore[arg-type]
        started.append(follower)
        follower.start()
        return follower

    yield start
    for follower in started:
        follower.stop()


def upserts(*keys: object) -> list[Event]:
    return [Event(Stream.CATALOG, str(key), b"", 1.0) for key in keys]


def test_records_are_applied_in_order_and_waited_for(
    log: SqliteEventLog, follow: Callable[..., Follower]
) -> None:
    keys = Keys()
    follower = follow(keys, batch=10)

    log.append(upserts(*range(25)))
    last = log.append(upserts("last"))[0]
    follower.wait_for(Topic.CATALOG, last, Deadline.after(SOON_S))

    assert keys.keys == [*map(str, range(25)), "last"]
    assert max(keys.batches) <= 10
    assert follower.applied("keys") == 26


def test_an_append_is_visible_within_fifty_milliseconds(
    log: SqliteEventLog, tmp_path: Path, follow: Callable[..., Follower]
) -> None:
    follower = follow(Keys())
    other = SqliteEventLog.open(tmp_path / "log.db")
    delays = []
    for index in range(9):
        (sequence,) = other.append(upserts(index))
        began = time.monotonic()
        follower.wait_for(Topic.CATALOG, sequence, Deadline.after(SOON_S))
        delays.append(time.monotonic() - began)
    other.close()

    assert sorted(delays)[4] < 0.05


def test_it_has_caught_up_once_the_head_seen_at_start_is_applied(
    log: SqliteEventLog, follow: Callable[..., Follower]
) -> None:
    log.append(upserts(*range(50)))
    gate = threading.Event()

    def hold(record: Record) -> None:
        gate.wait(SOON_S)

    slow = Keys("slow", refuse=hold)
    fast = Keys("fast")

    follower = follow(slow, fast, batch=10)
    eventually(lambda: follower.applied("fast") == 50)
    behind, ahead = follower.status()

    assert (behind.ready, behind.rebuilding, behind.lag) == (False, True, 50)
    assert (ahead.ready, ahead.rebuilding, ahead.lag, ahead.head) == (True, False, 0, 50)
    assert not follower.caught_up.is_set()
    gate.set()
    assert follower.caught_up.wait(SOON_S)
    assert all(status.ready for status in follower.status())


def test_an_empty_log_is_caught_up_at_once(follow: Callable[..., Follower]) -> None:
    assert follow(Keys()).caught_up.is_set()


def test_records_of_other_streams_count_as_applied(
    log: SqliteEventLog, follow: Callable[..., Follower]
) -> None:
    feedback = Keys(topic=Topic.INTERACTIONS, streams=(Stream.FEEDBACK,))
    follower = follow(feedback, batch=2)

    for key in range(5):
        log.append([Event(Stream.DECISIONS, f"d{key}", b"", 1.0)])
        log.append([Event(Stream.FEEDBACK, f"f{key}", b"", 1.0)])
    (last,) = log.append([Event(Stream.DECISIONS, "last", b"", 1.0)])
    follower.wait_for(Topic.INTERACTIONS, last, Deadline.after(SOON_S))

    assert feedback.keys == [f"f{key}" for key in range(5)]


def test_waiting_ignores_projections_of_the_other_topic(
    log: SqliteEventLog, follow: Callable[..., Follower]
) -> None:
    follower = follow(Keys())

    follower.wait_for(Topic.INTERACTIONS, 1_000, Deadline.after(0.0))
    with pytest.raises(UnavailableError):
        follower.wait_for(Topic.CATALOG, 1_000, Deadline.after(0.0))

    assert follower.applied("keys") == 0


def test_waiting_too_long_names_the_projection_and_both_sequences(
    log: SqliteEventLog, follow: Callable[..., Follower]
) -> None:
    follower = follow(Keys("lexical"))
    log.append(upserts("a"))
    follower.wait_for(Topic.CATALOG, 1, Deadline.after(SOON_S))
    deadline = Deadline.after(0.05)

    with pytest.raises(UnavailableError) as late:
        follower.wait_for(Topic.CATALOG, 7, deadline)

    assert deadline.remaining() > 0, "some time must be left to answer"
    assert late.value.metadata == {"projection": "lexical", "applied": "1", "wanted": "7"}
    assert "'lexical' has applied sequence 1" in late.value.message


def test_waiting_ends_when_the_follower_stops(follow: Callable[..., Follower]) -> None:
    follower = follow(Keys())
    stopper = threading.Timer(0.02, follower.stop)
    stopper.start()

    with pytest.raises(UnavailableError):
        follower.wait_for(Topic.CATALOG, 1, Deadline.after(float("inf")))
    stopper.join()


def test_stopping_saves_and_a_restart_goes_on_from_there(
    log: SqliteEventLog, follow: Callable[..., Follower]
) -> None:
    log.append(upserts("a", "b"))
    first = Keys()
    follower = follow(first, checkpoint_every_s=1000.0)
    assert follower.caught_up.wait(SOON_S)
    follower.stop()
    log.append(upserts("c"))
    second = Keys()
    second.disk = first.disk

    follower = follow(second)
    assert follower.caught_up.wait(SOON_S)

    assert first.saves == [2]
    assert second.keys == ["a", "b", "c"]
    assert second.batches == [1], "only what was missing is applied"


def test_state_is_saved_after_so_much_time(
    log: SqliteEventLog, follow: Callable[..., Follower]
) -> None:
    keys = Keys()
    follow(keys, checkpoint_every_s=0.02)

    log.append(upserts("a"))

    eventually(lambda: keys.disk == (1, ["a"]))


def test_state_is_saved_after_so_many_records(
    log: SqliteEventLog, follow: Callable[..., Follower]
) -> None:
    keys = Keys()
    follow(keys, batch=10, checkpoint_every_s=1000.0, checkpoint_every_records=20)

    log.append(upserts(*range(25)))

    eventually(lambda: keys.saves == [20])


@pytest.mark.parametrize(
    ("limits", "share"),
    [
        ({"checkpoint_every_s": 0.0}, 1 / 50),
        ({"checkpoint_every_s": 1000.0, "checkpoint_every_records": 1}, 1 / 10),
    ],
)
def test_saving_slow_state_takes_a_small_share_of_the_time(
    log: SqliteEventLog, follow: Callable[..., Follower], limits: dict[str, float], share: float
) -> None:
    keys = Keys()
    keys.save_s = 0.01
    follow(keys, **limits)

    def saved_again() -> bool:
        log.append(upserts(time.monotonic()))
        return len(keys.saving) >= 2

    eventually(saved_again)

    (began, first), (again, _) = keys.saving[:2]
    assert first - began <= share * (again - began)


def test_unchanged_state_is_not_saved_again_and_again(
    log: SqliteEventLog, follow: Callable[..., Follower]
) -> None:
    feedback = Keys(topic=Topic.INTERACTIONS, streams=(Stream.FEEDBACK,))
    follower = follow(feedback, checkpoint_every_s=0.0)

    log.append([Event(Stream.FEEDBACK, "f", b"", 1.0)])
    eventually(lambda: feedback.saves == [1])
    for key in range(20):
        log.append([Event(Stream.DECISIONS, str(key), b"", 1.0)])
        follower.wait_for(Topic.INTERACTIONS, key + 2, Deadline.after(SOON_S))
    follower.stop()

    assert feedback.saves == [1, 21], "once after the change, and once at the end"


def test_a_poison_record_holds_up_its_projection_only_and_is_named(
    log: SqliteEventLog, follow: Callable[..., Follower], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(record: Record) -> None:
        if record.key == "37":
            raise ZeroDivisionError("weights sum to nothing")

    log.append(upserts(*range(1, 101)))
    poisoned, healthy = Keys("poisoned", refuse=refuse), Keys("healthy")

    follower = follow(poisoned, healthy)
    eventually(
        lambda: follower.applied("poisoned") == 36 and "'37'" in follower.status()[0].last_error
    )
    eventually(lambda: follower.applied("healthy") == 100)
    stuck, well = follower.status()

    assert poisoned.keys == [str(key) for key in range(1, 37)]
    assert stuck.last_error == (
        "ZeroDivisionError: weights sum to nothing; applying catalog '37' (sequence 37)"
    )
    assert (stuck.lag, stuck.ready, well.last_error) == (64, False, "")
    traced = [r for r in caplog.records if r.levelno == logging.ERROR and r.exc_info]
    assert traced, "the traceback must be logged"
    with pytest.raises(UnavailableError, match="weights sum to nothing"):
        follower.wait_for(Topic.CATALOG, 100, Deadline.after(0.02))


def test_a_storage_error_is_waited_out(
    log: SqliteEventLog, follow: Callable[..., Follower], caplog: pytest.LogCaptureFixture
) -> None:
    full = threading.Event()
    full.set()

    def refuse(record: Record) -> None:
        if full.is_set():
            raise StorageError("index folder is full")

    log.append(upserts(*range(30)))
    keys = Keys(refuse=refuse)

    follower = follow(keys)
    eventually(lambda: "index folder is full" in follower.status()[0].last_error)
    full.clear()
    follower.wait_for(Topic.CATALOG, 30, Deadline.after(SOON_S))

    assert keys.keys == [str(key) for key in range(30)]
    assert keys.batches == [30], "the disk is at fault, so the batch is not made smaller"
    assert follower.status()[0].last_error == ""
    failures = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert failures
    assert not any(r.exc_info for r in failures), "only a defect needs a traceback"


def waiting_in_the_log(
    log: SqliteEventLog, follow: Callable[..., Follower], caplog: pytest.LogCaptureFixture
) -> list[logging.LogRecord]:
    """Have a projection wait three times, each for something else; return what is logged of it."""
    behind = iter(range(3))

    def refuse(record: Record) -> None:
        reached = next(behind, None)
        if reached is not None:
            raise UnavailableError(f"the collection has come to {reached}: waiting for the indexer")

    log.append(upserts("a"))
    follower = follow(Keys(refuse=refuse), batch=1)
    eventually(lambda: "waiting for the indexer" in follower.status()[0].last_error)
    follower.wait_for(Topic.CATALOG, 1, Deadline.after(SOON_S))
    return [r for r in caplog.records if r.name == "forage.log.tail"]


def test_waiting_for_another_process_is_one_warning_in_words(
    log: SqliteEventLog, follow: Callable[..., Follower], caplog: pytest.LogCaptureFixture
) -> None:
    (said,) = waiting_in_the_log(log, follow, caplog)

    assert (said.levelno, said.exc_info) == (logging.WARNING, None)
    assert said.getMessage() == (
        "projection keys waits: the collection has come to 0: waiting for the indexer"
    )


def test_long_waiting_is_said_again(
    log: SqliteEventLog,
    follow: Callable[..., Follower],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("forage.log.tail._SAY_WAITING_S", 0.0)

    said = waiting_in_the_log(log, follow, caplog)

    assert len(said) == 3
    assert {r.levelno for r in said} == {logging.WARNING}


def test_state_that_cannot_be_saved_is_reported_and_applying_goes_on(
    log: SqliteEventLog, follow: Callable[..., Follower]
) -> None:
    keys = Keys()
    keys.disk_is_full = True
    follower = follow(keys, checkpoint_every_s=0.01)

    log.append(upserts("a"))
    eventually(lambda: "disk full" in follower.status()[0].last_error)
    log.append(upserts("b"))
    follower.wait_for(Topic.CATALOG, 2, Deadline.after(SOON_S))
    keys.disk_is_full = False
    eventually(lambda: follower.status()[0].last_error == "")

    assert keys.disk == (2, ["a", "b"])


def test_a_projection_of_another_log_refuses_to_start(log: SqliteEventLog) -> None:
    log.append(upserts("a"))
    stranger = Keys("graph")
    stranger.disk = (500, [])

    with pytest.raises(StartupError, match=r"'graph' includes sequence 500 .* ends at 1"):
        Follower(log, [stranger]).start()


def test_projections_with_the_same_name_are_refused(log: SqliteEventLog) -> None:
    with pytest.raises(ValueError, match="repeat"):
        Follower(log, [Keys("twin"), Keys("twin")])


def test_stopping_before_starting_is_harmless(log: SqliteEventLog) -> None:
    keys = Keys()
    log.append(upserts("a"))
    follower = Follower(log, [keys])

    follower.stop()

    assert (keys.keys, keys.disk, keys.saves) == ([], (0, []), [])
    assert not follower.caught_up.is_set()
