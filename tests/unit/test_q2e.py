"""Laws of the query-to-entity table, of credit, and of what the memory learner takes in."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.log import Event, Record, Topic
from forage.log.interactions import examination_probability
from forage.log.sqlite import SqliteEventLog
from forage.retrieval import Interpretation, Query, Slot, UserContext
from forage.settings import FeedbackSettings
from forage.testing.interactions import decision, feedback
from generators.engagement_projection import EngagementProjection
from generators.evidence import Credit, decay, pack, unpack
from generators.memory.engagement import MemoryLearner
from generators.memory.q2e import FORGOTTEN, Q2E
from generators.memory.settings import MemorySettings

DAY = 86_400.0
NOW = 1_700_000_000.0


def table(*, half_life_s: float = DAY, keys: int = 10, items_per_key: int = 10) -> Q2E:
    return Q2E(half_life_s=half_life_s, keys=keys, items_per_key=items_per_key)


def test_counts_add_up() -> None:
    q2e = table()
    q2e.touch("moon")
    q2e.add("moon", "a", NOW, exposure=1.0, shown=1)
    q2e.add("moon", "b", NOW, exposure=0.5, shown=1)
    q2e.add("moon", "b", NOW, success=0.4, engaged=1)

    found = q2e.recall("moon", NOW)

    assert found is not None
    assert found.item_ids == ("a", "b")
    assert found.success.tolist() == [0.0, 0.4]
    assert found.exposure.tolist() == [1.0, 0.5]
    assert found.engaged.tolist() == [0, 1]
    assert found.shown.tolist() == [1, 1]


@given(age=st.floats(0, 6))
def test_a_count_halves_with_every_half_life(age: float) -> None:
    q2e = table(half_life_s=DAY)
    q2e.touch("moon")
    q2e.add("moon", "a", NOW, success=8.0)

    found = q2e.recall("moon", NOW + age * DAY)

    assert found is not None
    assert found.success[0] == pytest.approx(8.0 * 0.5**age)


def test_a_recollection_before_the_last_event_does_not_grow() -> None:
    q2e = table()
    q2e.touch("moon")
    q2e.add("moon", "a", NOW, success=1.0)

    found = q2e.recall("moon", NOW - 10 * DAY)

    assert found is not None
    assert found.success[0] == 1.0


@given(times=st.lists(st.floats(0, 5), min_size=1, max_size=6), data=st.data())
def test_late_events_count_as_if_they_had_come_in_time(
    times: list[float], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(times))

    found = []
    for order in (sorted(times), shuffled):
        q2e = table()
        q2e.touch("moon")
        for time in order:
            q2e.add("moon", "a", NOW + time * DAY, success=1.0)
        found.append(q2e.recall("moon", NOW + 5 * DAY))

    assert found[0] is not None
    assert found[1] is not None
    assert found[0].success[0] == pytest.approx(found[1].success[0])


def test_what_has_faded_away_is_as_if_it_had_never_been() -> None:
    q2e = table(half_life_s=DAY)
    q2e.touch("moon")
    q2e.add("moon", "a", NOW, success=1.0, engaged=1, shown=1)
    later = NOW + 7 * DAY
    assert FORGOTTEN > 0.5**7

    assert q2e.recall("moon", later) is None
    q2e.add("moon", "a", later, exposure=1.0, shown=1)

    found = q2e.recall("moon", later)
    assert found is not None
    assert (found.success[0], found.engaged[0], found.shown[0]) == (0.0, 0.0, 1.0)


def test_the_key_written_longest_ago_makes_room() -> None:
    q2e = table(keys=2)

    dropped = [q2e.touch(key) for key in ("a", "b", "a", "c")]

    assert dropped == [[], [], [], ["b"]]
    assert list(q2e) == ["a", "c"]


def test_the_item_that_succeeded_least_makes_room() -> None:
    q2e = table(items_per_key=2)
    q2e.touch("moon")
    q2e.add("moon", "good", NOW, success=1.0)
    q2e.add("moon", "bad", NOW, exposure=3.0)

    q2e.add("moon", "new", NOW, exposure=1.0)

    found = q2e.recall("moon", NOW)
    assert found is not None
    assert set(found.item_ids) == {"good", "new"}


def test_an_impression_earns_its_best_reward_once() -> None:
    credit = Credit()

    gains = [credit.gain("r", "a", reward) for reward in (0.4, 0.4, 1.0, -0.2, -1.0)]

    assert gains[0] == (0.4, 0.0, True)
    assert gains[1] == (0.0, 0.0, False)
    assert gains[2] == (pytest.approx(0.6), 0.0, False)
    assert gains[3] == (0.0, 0.2, False)
    assert gains[4] == (0.0, pytest.approx(0.8), False)
    assert credit.gain("r", "b", 0.4) == (0.4, 0.0, True)


def test_decay_is_one_at_no_age_and_never_above() -> None:
    assert decay(0.0, DAY) == decay(-5.0, DAY) == 1.0
    assert decay(DAY, DAY) == 0.5


def test_saved_tables_load_equal() -> None:
    q2e = table()
    for key in ("moon", "", "東京"):
        q2e.touch(key)
        for item_id in ("a", "b"):
            q2e.add(key, item_id, NOW, success=0.25, exposure=1.0, shown=1)

    names, arrays = unpack(pack(*q2e.dump()))
    loaded = table()
    loaded.load(names, arrays)

    assert pack(*loaded.dump()) == pack(*q2e.dump())
    assert list(loaded) == ["moon", "", "東京"]


QUERIES = (
    Query(normalized="moon", text="moon", tokens=("moon",)),
    Query(normalized="moon", text="moon", tokens=("moon",), locale="en-GB"),
    Query(
        normalized="mara films",
        text="mara films",
        interpretations=(Interpretation((Slot("cast", "Mara", 0.9),), "films", 0.8),),
        user=UserContext("u"),
    ),
    Query(),
)
PAGE = ("a", "b", "c", "d")


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Draw searches, and acts on their results some time later."""
    events: list[Event] = []
    for i in range(draw(st.integers(1, 6))):
        time = NOW + draw(st.floats(0, 40)) * DAY
        shown = draw(st.lists(st.sampled_from(PAGE), min_size=1, unique=True))
        events.append(decision(f"r{i}", draw(st.sampled_from(QUERIES)), shown, time=time))
        for j in range(draw(st.integers(0, 2))):
            kind = draw(st.sampled_from(("click", "play", "like", "skip", "dislike")))
            item_id = draw(st.sampled_from(shown))
            events.append(feedback(f"e{i}-{j}", f"r{i}", item_id, time=time + 60 * j, kind=kind))
    return events


def state(log: SqliteEventLog, batches: Sequence[Sequence[Record]], folder: Path) -> bytes:
    learner = MemoryLearner(MemorySettings(max_queries=3, items_per_query=3), None)
    projection = EngagementProjection(
        "memory.engagement",
        log,
        learner,
        threading.Lock(),
        folder=folder,
        feedback=FeedbackSettings(),
        rules={},
    )
    for batch in batches:
        projection.apply(batch)
    return pack(*learner.dump())


@settings(max_examples=40)
@given(events=histories(), cuts=st.lists(st.integers(0, 20)), again=st.integers(0, 5))
def test_neither_batches_nor_redelivery_change_what_is_learned(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], cuts: list[int], again: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = SqliteEventLog.open(folder / "log.db")
    log.append(events)
    records = log.read(Topic.INTERACTIONS, 0, 1000)
    edges = sorted({0, len(records), *(c for c in cuts if c < len(records))})
    batches = [records[max(0, start - again) : end] for start, end in pairwise(edges)]

    assert state(log, [records], folder) == state(log, batches, folder)
    log.close()


def test_looks_are_weighted_by_how_probably_the_position_was_seen(tmp_path: Path) -> None:
    log = SqliteEventLog.open(tmp_path / "log.db")
    log.append([decision("r", QUERIES[0], PAGE, time=NOW)])
    learner = MemoryLearner(MemorySettings(), None)
    rules = FeedbackSettings()
    projection = EngagementProjection(
        "memory.engagement",
        log,
        learner,
        threading.Lock(),
        folder=tmp_path,
        feedback=rules,
        rules={},
    )

    projection.apply(log.read(Topic.INTERACTIONS, 0, 10))

    found = learner.queries.recall("moon", NOW)
    assert found is not None
    assert found.item_ids == PAGE
    assert found.exposure.tolist() == [examination_probability(k, rules) for k in (1, 2, 3, 4)]
    log.close()


def test_a_slot_learns_by_its_confidence(tmp_path: Path) -> None:
    log = SqliteEventLog.open(tmp_path / "log.db")
    sure = Query(
        normalized="x", interpretations=(Interpretation((Slot("cast", "Mara", 0.5),), "", 0.8),)
    )
    vague = replace(sure, interpretations=(Interpretation((Slot("cast", "Jun", 0.5),), "", 0.3),))
    log.append([decision("r1", sure, ["a"], time=NOW), decision("r2", vague, ["a"], time=NOW)])
    learner = MemoryLearner(MemorySettings(), None)
    EngagementProjection(
        "memory.engagement",
        log,
        learner,
        threading.Lock(),
        folder=tmp_path,
        feedback=FeedbackSettings(),
        rules={},
    ).apply(log.read(Topic.INTERACTIONS, 0, 10))

    assert len(learner.slots) == 1
    found = learner.slots.recall("cast\x1fmara", NOW)
    assert found is not None
    assert found.exposure[0] == pytest.approx(0.4)
    log.close()
