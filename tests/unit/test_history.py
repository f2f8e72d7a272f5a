"""History: what past searches say, the same however the log was read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forage.log import Event, Topic
from forage.log.sqlite import SqliteEventLog
from forage.retrieval import QueryClass, UserContext
from forage.settings import FeedbackSettings
from orchestrator import history as history_module
from orchestrator.history import HistoryProjection
from tests.unit.orchestrator_decisions import (
    NAMES,
    START,
    TIMED_OUT,
    configured,
    decided,
    feedback,
    page,
    search,
    shown,
)

CONFIG = configured()
EMPTY = QueryClass.EMPTY


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog.open(tmp_path / "log.db")
    yield log
    log.close()


def history(log: SqliteEventLog, folder: Path) -> HistoryProjection:
    return HistoryProjection(folder, log, FeedbackSettings())


def follow(
    log: SqliteEventLog, projection: HistoryProjection, *, after: int = 0, batch: int = 1_000
) -> int:
    """Apply the log in batches, and return its head."""
    while records := log.read(Topic.INTERACTIONS, after, batch):
        projection.apply(records)
        after = records[-1].sequence
    return after


def state(found: HistoryProjection) -> object:
    """Return all that the projection answers."""
    users = ["u1", "u2", ""]
    return (
        found.entries(),
        [found.recent_items(u) for u in users],
        [found.explored_today(u, START + 100) for u in users],
        [found.engagements(q) for q in ("moon", "rain", "")],
        [found.generator(n, c, q) for n in NAMES for c in QueryClass for q in ("moon", "rain")],
        found.arms(NAMES),
    )


def story() -> list[Event]:
    """Return some searches, pages and acts of two users."""
    explored = shown("item:9", 5, {"lexical": 40})
    explored.exploration_propensity = 0.02
    first = decided(CONFIG, "r1", at=0, user="u1", policy="full")
    second = decided(CONFIG, "r2", at=10, user="u2", text="rain", statuses={"semantic": TIMED_OUT})
    third = decided(
        CONFIG, "r3", at=20, user="u1", displayed=[shown("item:1", 1, {"lexical": 1}), explored]
    )
    return [
        search(first),
        feedback("e1", "r1", "item:1", at=1),
        search(second),
        feedback("e2", "r1", "item:2", at=11, kind=1),
        feedback("e3", "r2", "item:3", at=12),
        search(page(first, at=13, item_id="item:late")),
        feedback("e4", "r1~10~10", "item:late", at=14),
        feedback("e5", "r2", "item:4", at=15, kind=5),
        search(third),
        feedback("e6", "r3", "item:1", at=25, amount=0.5),
    ]


def test_a_user_is_known_by_what_they_engaged_with_latest_first(log, tmp_path):
    log.append(story())
    found = history(log, tmp_path)
    follow(log, found)

    assert found.recent_items("u1") == ("item:1", "item:late", "item:2")
    assert found.recent_items("u2") == ("item:3",)
    assert found.recent_items("nobody") == ()


def test_what_the_caller_says_of_the_user_comes_first_and_nothing_twice(log, tmp_path):
    log.append(story())
    found = history(log, tmp_path)
    follow(log, found)

    user = found.with_history(UserContext("u1", ("said", "item:2")))
    unknown = found.with_history(UserContext("", ("said",)))

    assert user.recent_item_ids == ("said", "item:2", "item:1", "item:late")
    assert unknown.recent_item_ids == ("said",)


def test_a_query_remembers_the_rewards_it_earned(log, tmp_path):
    log.append(story())
    found = history(log, tmp_path)
    follow(log, found)

    # A play, a click, a play on a later page, and half a play.
    assert found.engagements("moon") == pytest.approx(1.0 + 0.4 + 1.0 + 0.5)
    assert found.engagements("rain") == pytest.approx(1.0)


def test_exploration_slots_count_for_a_day(log, tmp_path):
    log.append(story())
    found = history(log, tmp_path)
    follow(log, found)

    assert found.explored_today("u1", START + 20) == 1
    assert found.explored_today("u1", START + 20 + 86_400) == 0
    assert found.explored_today("u2", START + 20) == 0


def test_a_generator_is_known_by_its_answers_only(log, tmp_path):
    log.append(story())
    found = history(log, tmp_path)
    before = found.generator("semantic", EMPTY, "")
    follow(log, found)
    searches, arms = found.arms(NAMES)

    assert before == found.generator("semantic", QueryClass.BROWSE, "")
    assert searches == 3
    assert [arms[n].calls for n in NAMES] == [3, 2, 3]
    assert [arms[n].engaged for n in NAMES] == [3, 3, 3]
    # The item of r1 is credited by its first engagement, and was found by two generators.
    assert [arms[n].found for n in NAMES] == [3, 2, 0]
    lexical = found.generator("lexical", EMPTY, "")
    memory = found.generator("memory", EMPTY, "")
    assert lexical.hit_rate > before.hit_rate > memory.hit_rate > 0
    assert lexical.latency_s == pytest.approx((3 * 0.02 + 0.05) / 8, rel=0.01)


def test_a_generator_is_known_by_what_it_did_for_this_very_query(log, tmp_path):
    log.append(story())
    found = history(log, tmp_path)
    follow(log, found)

    def shrunk(name: str, hits: int, calls: int) -> float:
        return (hits + 2 * found.generator(name, EMPTY, "").hit_rate) / (calls + 2)

    # Of "moon" two searches ended with an engagement: lexical found both, memory none.
    wanted = {
        ("lexical", "moon"): shrunk("lexical", 2, 2),
        ("semantic", "moon"): shrunk("semantic", 1, 2),
        ("memory", "moon"): shrunk("memory", 0, 2),
        ("lexical", "rain"): shrunk("lexical", 1, 1),
        ("semantic", "rain"): shrunk("semantic", 0, 0),  # it timed out
        ("lexical", "unheard"): shrunk("lexical", 0, 0),
    }
    told = {(n, q): found.generator(n, EMPTY, q).query_hit_rate for n, q in wanted}
    assert told == pytest.approx(wanted)


def test_queries_asked_longest_ago_are_forgotten(log, tmp_path, monkeypatch):
    monkeypatch.setattr(history_module, "_RECORDED_QUERIES", 1)
    log.append(story())
    found = history(log, tmp_path)
    follow(log, found)

    rain, moon = (found.generator("lexical", EMPTY, q) for q in ("rain", "moon"))
    assert rain.query_hit_rate == rain.hit_rate
    assert moon.query_hit_rate > moon.hit_rate


def test_a_first_search_is_a_mild_prior(log, tmp_path):
    found = history(log, tmp_path)

    prior = found.generator("lexical", EMPTY, "moon")
    assert prior.query_hit_rate == prior.hit_rate
    assert (prior.hit_rate, prior.returned_share, prior.latency_s) == (0.3, 0.5, 0.01)


def test_events_that_are_delivered_twice_count_once(log, tmp_path):
    log.append(story())
    found = history(log, tmp_path)
    head = follow(log, found)
    once = state(found)

    found.apply(log.read(Topic.INTERACTIONS, head - 4, 10))

    assert state(found) == once


@given(
    cuts=st.lists(st.integers(1, 4), min_size=1, max_size=10),
    restart=st.sets(st.integers(0, 9)),
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_neither_batches_nor_restarts_matter(tmp_path_factory, cuts, restart):
    folder = tmp_path_factory.mktemp("history")
    log = SqliteEventLog.open(folder / "log.db")
    log.append(story())
    whole = history(log, folder / "whole")
    follow(log, whole)

    pieces = history(log, folder / "pieces")
    after = 0
    for step, cut in enumerate([*cuts, *[4] * 10]):
        records = log.read(Topic.INTERACTIONS, after, cut)
        pieces.apply(records)
        after = records[-1].sequence if records else after
        if step in restart:
            pieces.checkpoint(after)
            pieces = history(log, folder / "pieces")
            assert pieces.restore() == after
    log.close()

    assert state(pieces) == state(whole)


def test_a_lost_or_damaged_checkpoint_is_rebuilt_from_the_log(log, tmp_path):
    log.append(story())
    found = history(log, tmp_path)
    head = follow(log, found)
    found.checkpoint(head)
    (file,) = (tmp_path / found.name).iterdir()

    again = history(log, tmp_path)
    assert again.restore() == head
    file.write_bytes(file.read_bytes()[:-10])
    damaged = history(log, tmp_path)
    assert damaged.restore() == 0
    follow(log, damaged)

    assert state(damaged) == state(again) == state(found)


def test_only_the_latest_searches_are_summarised(log, tmp_path):
    events: Sequence[Event] = [search(decided(CONFIG, f"r{n:04}", at=n)) for n in range(520)]
    log.append(events)
    found = history(log, tmp_path)
    follow(log, found)

    searches, arms = found.arms(NAMES)
    assert searches == 500
    assert arms["lexical"].calls == 500
