"""A model obeys the directions of its features, whatever the clicks it was taught by say."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ranker.boosting import Preferences, boost
from ranker.model import RankingModel
from ranker.settings import BoostingSettings

NAMES = ("lexical.score", "engagement.dislike", "item.age", "position")
LISTS, SIZE = 80, 10
values = st.floats(-2, 2, width=32)


@cache
def taught(*, monotone: bool) -> RankingModel:
    """Learn from users who like what has little evidence, is disliked, and is old."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(LISTS * SIZE, len(NAMES))).astype(np.float32)
    appeal = -rows[:, 0] + rows[:, 1] + rows[:, 2] + rng.normal(size=len(rows))
    labels = (appeal > 1).astype(float)
    sizes = np.full(LISTS, SIZE)
    settings = BoostingSettings(trees=40, depth=3, threads=1, monotone=monotone)
    return boost(Preferences(rows, labels, sizes, np.ones(LISTS)), NAMES, "v1", settings, seed=1)


def step(model: RankingModel, row: list[float], feature: str, more: float) -> float:
    """Return how much the score changes when one feature has so much more."""
    before = np.array([row], np.float32)
    after = before.copy()
    after[0, NAMES.index(feature)] += more
    return float(model.scores(after)[0] - model.scores(before)[0])


@given(st.lists(values, min_size=4, max_size=4), st.floats(0, 2))
def test_more_evidence_never_lowers_a_score_and_more_dislike_never_raises_it(
    row: list[float], more: float
) -> None:
    model = taught(monotone=True)

    assert step(model, row, "lexical.score", more) >= 0
    assert step(model, row, "engagement.dislike", more) <= 0


def test_without_the_directions_the_same_clicks_teach_the_contrary() -> None:
    model = taught(monotone=False)

    assert step(model, [-1.0, 0.0, 0.0, 1.0], "lexical.score", 2.0) < 0
    assert step(model, [0.0, -1.0, 0.0, 1.0], "engagement.dislike", 2.0) > 0


def test_a_feature_without_a_direction_is_learned_either_way() -> None:
    assert step(taught(monotone=True), [0.0, 0.0, -1.0, 1.0], "item.age", 2.0) > 0
