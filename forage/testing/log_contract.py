"""What every engine of the event log owes its callers, as tests to inherit."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from forage.errors import StorageError
from forage.log.interface import Event, EventLog, Record, Stream, Topic

Opener = Callable[[], EventLog]

_processes = multiprocessing.get_context("spawn")


def event(stream: Stream, key: str, payload: bytes = b"", time: float = 1.0) -> Event:
    """Return an event without headers."""
    return Event(stream, key, payload, time)


def append_feedback(opener: Opener, prefix: str, count: int) -> None:
    """Append `count` feedback events, one by one, to the log that `opener` opens."""
    log = opener()
    for index in range(count):
        log.append([event(Stream.FEEDBACK, f"{prefix}-{index}")])
    log.close()


class EventLogContract:
    """The promises of `EventLog`; subclasses supply the fixture `opener`.

    Each call of `opener` opens another handle on the same log, empty at first. It can be
    pickled, for other processes open the log with it too: a `functools.partial` of a class
    method will do.
    """

    @pytest.fixture
    def log(self, opener: Opener) -> Iterator[EventLog]:
        """Give one handle, closed after the test."""
        log = opener()
        yield log
        log.close()

    def test_sequences_start_at_one_and_follow_the_order_of_appends(self, log: EventLog) -> None:
        first = log.append([event(Stream.CATALOG, "a"), event(Stream.CATALOG, "b")])
        second = log.append([event(Stream.CATALOG, "c")])

        assert first + second == [1, 2, 3]
        assert [r.key for r in log.read(Topic.CATALOG, 0, 10)] == ["a", "b", "c"]

    def test_a_record_comes_back_as_the_event_went_in(self, log: EventLog) -> None:
        headers = {"traceparent": "00-ab-cd-01", "note": "über ☂ \n"}
        key, payload = "Amélie 映画 עברית 🎬 'quoted' %", bytes(range(256))

        log.append([Event(Stream.DECISIONS, key, payload, 1234.5678, headers)])

        wanted = Record(1, Stream.DECISIONS, key, payload, 1234.5678, headers)
        assert log.read(Topic.INTERACTIONS, 0, 1) == [wanted]
        assert log.get(Stream.DECISIONS, key) == wanted

    def test_the_topics_count_separately(self, log: EventLog) -> None:
        log.append([event(Stream.CATALOG, "a"), event(Stream.CATALOG, "b")])

        assert log.append([event(Stream.DECISIONS, "d")]) == [1]
        assert (log.head(Topic.CATALOG), log.head(Topic.INTERACTIONS)) == (2, 1)

    def test_decisions_and_feedback_share_one_order(self, log: EventLog) -> None:
        log.append([event(Stream.DECISIONS, "d1"), event(Stream.FEEDBACK, "f1")])
        log.append([event(Stream.DECISIONS, "d2")])

        assert [r.key for r in log.read(Topic.INTERACTIONS, 0, 10)] == ["d1", "f1", "d2"]

    def test_an_empty_log_has_head_zero_and_nothing_to_read(self, log: EventLog) -> None:
        assert log.head(Topic.INTERACTIONS) == 0
        assert log.read(Topic.INTERACTIONS, 0, 10) == []
        assert log.get(Stream.CATALOG, "a") is None

    def test_appending_nothing_changes_nothing(self, log: EventLog) -> None:
        assert log.append([]) == []
        assert [log.head(topic) for topic in Topic] == [0, 0]

    def test_what_was_appended_is_there_after_reopening(
        self, log: EventLog, opener: Opener
    ) -> None:
        log.append([event(Stream.CATALOG, "a", b"old"), event(Stream.CATALOG, "b")])
        log.append([event(Stream.CATALOG, "a", b"new")])
        before = log.read(Topic.CATALOG, 0, 10)
        log.close()

        reopened = opener()

        assert reopened.read(Topic.CATALOG, 0, 10) == before
        assert reopened.head(Topic.CATALOG) == 3
        reopened.close()

    @pytest.mark.parametrize("stream", [Stream.DECISIONS, Stream.FEEDBACK])
    def test_a_repeated_interaction_keeps_its_first_sequence_and_payload(
        self, log: EventLog, stream: Stream
    ) -> None:
        log.append([event(stream, "x", b"first"), event(stream, "y")])

        again = log.append([event(stream, "z"), event(stream, "x", b"second"), event(stream, "w")])

        assert again == [3, 1, 4]
        assert log.head(Topic.INTERACTIONS) == 4
        assert [r.payload for r in log.read(Topic.INTERACTIONS, 0, 1)] == [b"first"]

    def test_a_key_repeated_within_one_append_is_one_interaction(self, log: EventLog) -> None:
        twins = [event(Stream.FEEDBACK, "x", b"first"), event(Stream.FEEDBACK, "x", b"second")]

        assert log.append(twins) == [1, 1]
        assert [r.payload for r in log.read(Topic.INTERACTIONS, 0, 9)] == [b"first"]

    def test_the_same_key_in_two_streams_is_two_records(self, log: EventLog) -> None:
        sequences = log.append([event(Stream.DECISIONS, "x"), event(Stream.FEEDBACK, "x")])

        assert sequences == [1, 2]

    def test_the_catalog_keeps_only_the_latest_record_of_a_key(self, log: EventLog) -> None:
        log.append([event(Stream.CATALOG, "a", b"1"), event(Stream.CATALOG, "b", b"2")])
        log.append([event(Stream.CATALOG, "a", b"3"), event(Stream.CATALOG, "a", b"4")])

        records = log.read(Topic.CATALOG, 0, 10)

        assert [(r.sequence, r.key, r.payload) for r in records] == [(2, "b", b"2"), (4, "a", b"4")]

    def test_a_tombstone_is_a_record_like_any_other(self, log: EventLog) -> None:
        log.append([event(Stream.CATALOG, "a", b"alive")])
        log.append([event(Stream.CATALOG, "a", b"")])

        latest = log.get(Stream.CATALOG, "a")

        assert latest is not None
        assert (latest.sequence, latest.payload) == (2, b"")
        assert log.read(Topic.CATALOG, 1, 10) == [latest]

    def test_sequences_are_not_reused_after_compaction_and_reopening(
        self, log: EventLog, opener: Opener
    ) -> None:
        for _ in range(3):
            log.append([event(Stream.CATALOG, "a")])
        log.close()

        reopened = opener()

        assert reopened.append([event(Stream.CATALOG, "a")]) == [4]
        reopened.close()

    def test_reads_start_after_a_sequence_and_stop_at_the_limit(self, log: EventLog) -> None:
        log.append([event(Stream.FEEDBACK, str(i)) for i in range(1, 8)])

        assert [r.sequence for r in log.read(Topic.INTERACTIONS, 2, 3)] == [3, 4, 5]
        assert [r.sequence for r in log.read(Topic.INTERACTIONS, 5, 10)] == [6, 7]
        assert log.read(Topic.INTERACTIONS, 7, 10) == []
        assert log.read(Topic.INTERACTIONS, 0, 0) == []

    def test_reads_narrow_to_the_streams_asked_for(self, log: EventLog) -> None:
        kinds = [Stream.DECISIONS, Stream.FEEDBACK, Stream.FEEDBACK, Stream.DECISIONS]
        log.append([event(stream, str(i)) for i, stream in enumerate(kinds)])

        def read(*streams: Stream, after: int = 0, limit: int = 10) -> list[int]:
            found = log.read(Topic.INTERACTIONS, after, limit, streams)
            return [record.sequence for record in found]

        assert read(Stream.FEEDBACK) == [2, 3]
        assert read(Stream.DECISIONS, after=1) == [4]
        assert read(Stream.FEEDBACK, limit=1) == [2]
        assert read(Stream.FEEDBACK, Stream.DECISIONS) == [1, 2, 3, 4]

    def test_an_append_of_two_topics_is_refused_as_a_whole(self, log: EventLog) -> None:
        with pytest.raises(ValueError, match="one topic"):
            log.append([event(Stream.CATALOG, "a"), event(Stream.FEEDBACK, "f")])

        assert [log.head(topic) for topic in Topic] == [0, 0]

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_an_event_without_a_finite_time_is_refused(self, log: EventLog, bad: float) -> None:
        with pytest.raises(ValueError, match="finite"):
            log.append([event(Stream.CATALOG, "a", time=bad)])

    def test_a_stream_of_another_topic_cannot_be_read(self, log: EventLog) -> None:
        with pytest.raises(ValueError, match="topic"):
            log.read(Topic.CATALOG, 0, 1, (Stream.FEEDBACK,))

    def test_waiting_ends_when_the_time_is_over(self, log: EventLog) -> None:
        began = time.monotonic()

        assert not log.wait(Topic.CATALOG, 0, 0.05)
        assert 0.04 < time.monotonic() - began < 2.0

    def test_waiting_for_what_is_there_returns_at_once(self, log: EventLog) -> None:
        log.append([event(Stream.CATALOG, "a")])

        assert log.wait(Topic.CATALOG, 0, 0.0)
        assert not log.wait(Topic.CATALOG, 1, 0.0)

    def test_waiting_wakes_on_an_append_by_another_thread(self, log: EventLog) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(log.wait, Topic.INTERACTIONS, 0, 10.0)
            log.append([event(Stream.FEEDBACK, "x")])

            assert waiting.result(timeout=5.0)

    def test_waiting_is_not_woken_by_the_other_topic(self, log: EventLog) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(log.wait, Topic.INTERACTIONS, 0, 0.1)
            log.append([event(Stream.CATALOG, "x")])

            assert not waiting.result(timeout=5.0)

    def test_waiting_wakes_on_an_append_by_another_process(
        self, log: EventLog, opener: Opener
    ) -> None:
        other = _processes.Process(target=append_feedback, args=(opener, "other", 1))
        other.start()

        assert log.wait(Topic.INTERACTIONS, 0, 30.0)
        assert [r.key for r in log.read(Topic.INTERACTIONS, 0, 10)] == ["other-0"]
        other.join()

    def test_concurrent_appends_get_unique_sequences_without_gaps(self, log: EventLog) -> None:
        start = threading.Barrier(8)

        def append(thread: int) -> list[int]:
            start.wait()
            return [log.append([event(Stream.FEEDBACK, f"{thread}-{i}")])[0] for i in range(20)]

        with ThreadPoolExecutor(8) as pool:
            given = list(pool.map(append, range(8)))

        assert all(own == sorted(own) for own in given)
        assert sorted(chain.from_iterable(given)) == list(range(1, 161))
        stored = {r.key: r.sequence for r in log.read(Topic.INTERACTIONS, 0, 1000)}
        assert stored == {f"{t}-{i}": s for t, own in enumerate(given) for i, s in enumerate(own)}

    def test_a_refused_append_does_not_disturb_concurrent_ones(self, log: EventLog) -> None:
        def append(index: int) -> list[int]:
            key = "\ud800" if index % 2 else f"key-{index}"
            return log.append([event(Stream.FEEDBACK, key)])

        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(append, index) for index in range(32)]

        refused = [isinstance(future.exception(), ValueError) for future in futures]
        assert refused == [False, True] * 16
        assert log.head(Topic.INTERACTIONS) == 16

    def test_several_processes_append_to_one_order(self, log: EventLog, opener: Opener) -> None:
        others = [
            _processes.Process(target=append_feedback, args=(opener, name, 30)) for name in "ab"
        ]
        for other in others:
            other.start()
        for index in range(30):
            log.append([event(Stream.FEEDBACK, f"own-{index}")])
        for other in others:
            other.join()

        records = log.read(Topic.INTERACTIONS, 0, 1000)

        assert [r.sequence for r in records] == list(range(1, 91))
        for name in ("a", "b", "own"):
            keys = [r.key for r in records if r.key.startswith(f"{name}-")]
            assert keys == [f"{name}-{index}" for index in range(30)]

    def test_a_closed_log_says_so_and_closing_twice_is_harmless(self, log: EventLog) -> None:
        log.close()
        log.close()

        with pytest.raises(StorageError, match="closed"):
            log.append([event(Stream.CATALOG, "a")])
        with pytest.raises(StorageError, match="closed"):
            log.read(Topic.CATALOG, 0, 1)
        with pytest.raises(StorageError, match="closed"):
            log.head(Topic.CATALOG)
        with pytest.raises(StorageError, match="closed"):
            log.wait(Topic.CATALOG, 0, 1.0)

    def test_closing_ends_a_wait_on_another_thread(self, opener: Opener) -> None:
        log = opener()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(log.wait, Topic.CATALOG, 0, 30.0)
            assert not log.wait(Topic.CATALOG, 0, 0.01)
            log.close()

            with pytest.raises(StorageError, match="closed"):
                waiting.result(timeout=5.0)
