"""How much of what full information teaches is learned from clicks that follow the position.

Users look at position k with probability k^-0.7 and click what they look at by its grade (Joachims,
Swaminathan & Schnabel, 2017). What is shown where is decided by BM25. The ranker's own trainer
then learns from the clicks: with the bias taken out, as it does by default, and believing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import Interval, mean_interval
from evaluation.collections.files import first_of
from evaluation.evaluate.letor import LetorQuery, Scorer, groups, ndcg, read_letor
from evaluation.evaluate.ranking import BOOSTING
from evaluation.simulation.clicks import PositionBased
from ranker.boosting import boost, fit
from ranker.examination import Examination
from ranker.features import POSITION
from ranker.settings import TrainingSettings
from ranker.training_set import JudgedDecision, TrainingSet

DECAY = 0.7
_SHOWN = 10
_NOISE = 0.1
"""Chance that a result is clicked though it is not relevant, once it is looked at."""
_MOST = 2
"""The best grade of MQ2008."""
_BM25 = 25
"""The column of BM25 over the whole document in LETOR 4.0."""
_TEST_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class DebiasingReport:
    """nDCG@10 on held-out queries, with true grades; intervals over queries."""

    searches: int
    clicks: int
    full: Interval
    """Trained on the true grades."""
    debiased: Interval
    """Trained on clicks, weighted by one over the probability of a look."""
    naive: Interval
    """Trained on clicks as if every position were looked at."""
    shown: Interval
    """The order that was shown."""
    seeds: tuple[int, ...]


def measure_debiasing(
    data: Path, *, seeds: Sequence[int], searches_per_query: int = 60
) -> DebiasingReport:
    """Simulate clicks on the MQ2008 part and train on them; `data` has the judged collections."""
    queries = read_letor(first_of(data / "letor", "mq2008_fold1_test.txt"))
    queries = [q for q in queries if q.labels.any() and not q.labels.all()]
    values: dict[str, list[float]] = {"full": [], "debiased": [], "naive": [], "shown": []}
    clicks = searches = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(queries))
        cut = round(_TEST_SHARE * len(queries))
        test, train = [queries[i] for i in order[:cut]], [queries[i] for i in order[cut:]]
        decisions = _search(train, searches_per_query, rng)
        searches += len(decisions)
        clicks += sum(int(d.rewards.sum()) for d in decisions)
        scorers = {
            "full": _trained(train, seed),
            "shown": _bm25,
            "debiased": _learned(decisions, seed, debias=True),
            "naive": _learned(decisions, seed, debias=False),
        }
        for name, scorer in scorers.items():
            values[name] += ndcg(test, scorer).values()
    rng = np.random.default_rng(0)
    found = {name: mean_interval(ndcgs, rng) for name, ndcgs in values.items()}
    return DebiasingReport(searches, clicks, seeds=tuple(seeds), **found)


def _trained(queries: Sequence[LetorQuery], seed: int) -> Scorer:
    names = [f"feature{column}" for column in range(queries[0].rows.shape[1])]
    return boost(groups(queries, gains=True), names, "letor", BOOSTING, seed=seed).scores


def _bm25(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    return rows[:, _BM25].astype(float)


def _search(
    queries: Sequence[LetorQuery], searches: int, rng: np.random.Generator
) -> list[JudgedDecision]:
    """Let users search; a query has one order, that of BM25."""
    model = PositionBased(DECAY)
    decisions: list[JudgedDecision] = []
    for query in queries:
        page = np.argsort(-_bm25(query.rows), kind="stable")[:_SHOWN]
        attraction = _NOISE + (1 - _NOISE) * (2.0**query.labels - 1) / (2.0**_MOST - 1)
        for _ in range(searches):
            rewards = np.zeros(len(page))
            rewards[model.draw(attraction[page], rng)] = 1.0
            if rewards.any():
                positions = np.arange(1, len(page) + 1)
                rows = np.column_stack([query.rows[page], positions]).astype(np.float32)
                number = len(decisions)
                decisions.append(
                    JudgedDecision(str(number), number, float(number), rows, positions, rewards)
                )
    return decisions


def _learned(decisions: Sequence[JudgedDecision], seed: int, *, debias: bool) -> Scorer:
    """Train by the ranker's own `fit`, as `forage train` does."""
    width = decisions[0].features.shape[1] - 1
    names = (*(f"feature{column}" for column in range(width)), POSITION)
    model = fit(
        TrainingSet(decisions, names, "letor", {}),
        decisions,
        Examination(DECAY, "known"),
        TrainingSettings(
            inverse_propensity=debias,
            position_feature=debias,
            boosting=BOOSTING,
        ),
        seed=seed,
        progress=lambda stage, share: None,
    )
    # As in serving, every item is scored as if it were shown first.
    return lambda rows: model.scores(np.column_stack([rows, np.ones(len(rows), np.float32)]))
