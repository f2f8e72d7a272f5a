"""How much of what full information teaches is learned from clicks that follow the position.

Users look at position k with probability k^-0.7 and click what they look at by its grade (Joachims,
Swaminathan & Schnabel, 2017). A poor ranker decides what is shown where. The ranker's own trainer
then learns from the clicks: with the bias taken out, as it does by default, and believing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.bootstrap import Interval, mean_interval
from evaluation.collections.files import first_of
from evaluation.evaluate.letor import LetorQuery, Scorer, groups, ndcg, read_letor
from evaluation.simulation.clicks import PositionBased
from ranker.boosting import boost, fit
from ranker.examination import Examination
from ranker.features import POSITION
from ranker.settings import BoostingSettings, TrainingSettings
from ranker.training_set import JudgedDecision, TrainingSet

DECAY = 0.7
_SHOWN = 10
_NOISE = 0.1
"""Chance that a result is clicked though it is not relevant, once it is looked at."""
_VARIETY = 0.3
_MOST = 2
"""The best grade of MQ2008."""
_POOR_QUERIES = 3
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

    @property
    def kept(self) -> float:
        """What debiased training reaches, as a share of full information."""
        return self.debiased.mean / self.full.mean

    @property
    def naive_kept(self) -> float:
        """What naive training reaches, as a share of full information."""
        return self.naive.mean / self.full.mean


def measure_debiasing(
    data: Path, *, seeds: Sequence[int], searches_per_query: int = 100
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
        shown = _trained(train[:_POOR_QUERIES], seed)
        decisions = _search(train, shown, searches_per_query, rng)
        searches += len(decisions)
        clicks += sum(int(d.rewards.sum()) for d in decisions)
        scorers = {
            "full": _trained(train, seed),
            "shown": shown,
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
    settings = BoostingSettings(threads=1)
    return boost(groups(queries, gains=True), names, "letor", settings, seed=seed).scores


def _search(
    queries: Sequence[LetorQuery], shown: Scorer, searches: int, rng: np.random.Generator
) -> list[JudgedDecision]:
    """Let users search; the order varies a little, as that of successive rankers does."""
    model = PositionBased(DECAY)
    decisions: list[JudgedDecision] = []
    for query in queries:
        scores = shown(query.rows)
        spread = float(scores.std()) or 1.0
        attraction = _NOISE + (1 - _NOISE) * (2.0**query.labels - 1) / (2.0**_MOST - 1)
        for _ in range(searches):
            page = np.argsort(-(scores + _VARIETY * spread * rng.gumbel(size=len(scores))))[:_SHOWN]
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
            boosting=BoostingSettings(threads=1),
        ),
        seed=seed,
        progress=lambda stage, share: None,
    )
    # As in serving, every item is scored as if it were shown first.
    return lambda rows: model.scores(np.column_stack([rows, np.ones(len(rows), np.float32)]))
