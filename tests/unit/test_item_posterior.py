"""Laws of item posteriors: hand-worked values, Thompson draws, decay, and replay."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.catalog.postings import Postings
from forage.log import Event, Record, Topic
from forage.log.sqlite import SqliteEventLog
from forage.retrieval import Query
from forage.settings import FeedbackSettings
from forage.testing.interactions import decision, feedback
from generators.engagement_projection import EngagementProjection
from generators.evidence import pack
from generators.exploration.posterior import ItemLearner, Posterior

DAY = 86_400.0
NOW = 1_700_000_000.0
PAGE = ("a", "b", "c", "d")


def posterior(prior: float, success: float, exposure: float, *, strength: float = 4.0) -> Posterior:
    return Posterior.of(
        np.array([prior]),
        strength=strength,
        success=np.array([success]),
        exposure=np.array([exposure]),
    )


@pytest.mark.parametrize(
    ("success", "exposure", "alpha", "beta"),
    [(0.0, 0.0, 1.0, 3.0), (2.0, 6.0, 3.0, 7.0), (2.0, 0.5, 3.0, 3.0), (0.0, 10.0, 1.0, 13.0)],
)
def test_counts_add_to_the_prior(
    success: float, exposure: float, alpha: float, beta: float
) -> None:
    found = posterior(0.25, success, exposure)

    assert (found.alpha[0], found.beta[0]) == (alpha, beta)
    assert found.mean[0] == pytest.approx(alpha / (alpha + beta))
    total = alpha + beta
    variance = alpha * beta / (total**2 * (total + 1))
    assert found.deviation[0] == pytest.approx(variance**0.5)


@given(
    prior=st.floats(0.05, 0.5),
    rate=st.floats(0.0, 1.0),
    looks=st.floats(1.0, 100.0),
)
def test_the_mean_lies_between_the_prior_and_what_was_seen(
    prior: float, rate: float, looks: float
) -> None:
    mean = posterior(prior, rate * looks, looks).mean[0]

    assert min(prior, rate) - 1e-9 <= mean <= max(prior, rate) + 1e-9


@given(prior=st.floats(0.05, 0.5), looks=st.floats(1.0, 50.0))
def test_more_looks_at_the_same_rate_leave_less_doubt(prior: float, looks: float) -> None:
    little = posterior(prior, prior * looks, looks)
    much = posterior(prior, prior * 2 * looks, 2 * looks)

    assert much.deviation[0] < little.deviation[0] < posterior(prior, 0, 0).deviation[0]


def test_draws_have_the_posteriors_mean_and_deviation() -> None:
    many = Posterior(np.full(40_000, 3.0), np.full(40_000, 7.0))

    drawn = many.draw(np.random.default_rng(5), optimistic=False)

    assert drawn.mean() == pytest.approx(0.3, rel=0.02)
    assert drawn.std() == pytest.approx(many.deviation[0], rel=0.02)


def test_an_optimistic_draw_is_never_below_the_mean() -> None:
    found = Posterior(np.linspace(0.1, 5, 500), np.linspace(8, 1, 500))

    plain = found.draw(np.random.default_rng(5), optimistic=False)
    optimistic = found.draw(np.random.default_rng(5), optimistic=True)

    assert np.array_equal(optimistic, np.maximum(plain, found.mean))


def learner() -> ItemLearner:
    return ItemLearner(half_life_s=30 * DAY, added=lambda item_id, row: None)


def projection(log: SqliteEventLog, found: ItemLearner, folder: Path) -> EngagementProjection[None]:
    return EngagementProjection(
        "exploration.engagement",
        log,
        found,
        threading.Lock(),
        folder=folder,
        feedback=FeedbackSettings(),
        rules={},
    )


def counts(found: ItemLearner, item_id: str, time: float) -> list[float]:
    rows = np.array([found.row(item_id)])
    return [float(column[0]) for column in found.counts(rows, time)]


def test_looks_and_successes_are_counted_and_fade(tmp_path: Path) -> None:
    log = SqliteEventLog.open(tmp_path / "log.db")
    log.append([decision("r", Query(), PAGE, time=NOW), feedback("e", "r", "b", time=NOW)])
    found = learner()

    projection(log, found, tmp_path).apply(log.read(Topic.INTERACTIONS, 0, 10))

    examined = 2**-0.7
    assert counts(found, "b", NOW) == pytest.approx([0.4, examined, 1])
    assert counts(found, "b", NOW + 30 * DAY) == pytest.approx([0.2, examined / 2, 1])
    assert counts(found, "a", NOW) == pytest.approx([0.0, 1.0, 1])
    assert counts(found, "never shown", NOW) == [0.0, 0.0, 0.0]
    log.close()


def test_a_click_and_a_play_of_one_impression_are_one_play(tmp_path: Path) -> None:
    log = SqliteEventLog.open(tmp_path / "log.db")
    acts = [feedback(k, "r", "a", time=NOW, kind=k) for k in ("click", "play", "like")]
    log.append([decision("r", Query(), PAGE, time=NOW), *acts])
    found = learner()

    projection(log, found, tmp_path).apply(log.read(Topic.INTERACTIONS, 0, 10))

    assert counts(found, "a", NOW)[0] == pytest.approx(1.0)
    log.close()


def test_a_dislike_is_a_look_that_came_to_nothing(tmp_path: Path) -> None:
    log = SqliteEventLog.open(tmp_path / "log.db")
    dislike = feedback("e", "r", "a", time=NOW, kind="dislike")
    log.append([decision("r", Query(), PAGE, time=NOW), dislike])
    found = learner()

    projection(log, found, tmp_path).apply(log.read(Topic.INTERACTIONS, 0, 10))

    assert counts(found, "a", NOW) == [0.0, 2.0, 1.0]
    log.close()


def test_a_checkpoint_continues_where_it_was_made(tmp_path: Path) -> None:
    log = SqliteEventLog.open(tmp_path / "log.db")
    log.append([decision("r", Query(), PAGE, time=NOW), feedback("e", "r", "b", time=NOW)])
    before = learner()
    saving = projection(log, before, tmp_path)
    saving.apply(log.read(Topic.INTERACTIONS, 0, 10))
    saving.checkpoint(2)

    after = learner()
    loading = projection(log, after, tmp_path)
    assert loading.restore() == 2
    loading.apply(log.read(Topic.INTERACTIONS, 0, 10))
    log.append([feedback("e2", "r", "b", time=NOW, kind="play")])
    for one in (saving, loading):
        one.apply(log.read(Topic.INTERACTIONS, 2, 10))

    # A play after a click adds 0.6, which only who remembers the click can know.
    assert counts(before, "b", NOW) == counts(after, "b", NOW)
    assert counts(after, "b", NOW)[0] == pytest.approx(1.0)
    log.close()


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Draw searches, and acts on their results some time later."""
    events: list[Event] = []
    for i in range(draw(st.integers(1, 6))):
        time = NOW + draw(st.floats(0, 40)) * DAY
        shown = draw(st.lists(st.sampled_from(PAGE), min_size=1, unique=True))
        events.append(decision(f"r{i}", Query(), shown, time=time))
        for j in range(draw(st.integers(0, 2))):
            kind = draw(st.sampled_from(("click", "play", "dislike")))
            item_id = draw(st.sampled_from(shown))
            events.append(feedback(f"e{i}-{j}", f"r{i}", item_id, time=time + 60 * j, kind=kind))
    return events


@settings(max_examples=30)
@given(events=histories(), cuts=st.lists(st.integers(0, 20)), again=st.integers(0, 5))
def test_neither_batches_nor_redelivery_change_what_is_counted(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], cuts: list[int], again: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = SqliteEventLog.open(folder / "log.db")
    log.append(events)
    records = log.read(Topic.INTERACTIONS, 0, 1000)
    edges = sorted({0, len(records), *(c for c in cuts if c < len(records))})

    def state(batches: Sequence[Sequence[Record]]) -> bytes:
        found = learner()
        follower = projection(log, found, folder)
        for batch in batches:
            follower.apply(batch)
        return pack(*found.dump())

    cut = [records[max(0, start - again) : end] for start, end in pairwise(edges)]
    assert state([records]) == state(cut)
    log.close()


@given(steps=st.lists(st.tuples(st.integers(0, 90), st.sets(st.sampled_from("xyz"))), max_size=200))
def test_postings_hold_the_latest_keys_of_every_item(steps: list[tuple[int, set[str]]]) -> None:
    postings, latest = Postings(), dict[int, set[str]]()
    for index, keys in steps:
        postings.replace(index, latest.get(index, set()), keys)
        latest[index] = keys

    for key in "xyz":
        assert set(postings.find(key).tolist()) == {i for i, keys in latest.items() if key in keys}


def test_long_posting_lists_shrink_again() -> None:
    postings = Postings()
    for index in range(300):
        postings.replace(index, set(), {"drama"})
    for index in range(299):
        postings.replace(index, {"drama"}, set())

    assert postings.find("drama").tolist() == [299]
