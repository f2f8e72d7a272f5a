"""Compares orders of the same held-out searches, with the position bias taken out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.examination import Examination
from ranker.training_set import JudgedDecision

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""Scores the rows of a feature matrix."""
_TOP = 10


@dataclass(frozen=True, slots=True)
class Comparison:
    """A difference of nDCG@10, with its 95 % bootstrap interval over searches."""

    gain: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Per search, the weighted value of an order and the weight; what metrics are made of."""

    ndcg: NDArray[np.float64]
    mrr: NDArray[np.float64]
    weight: NDArray[np.float64]

    def mean(self, values: NDArray[np.float64]) -> float:
        """Return the self-normalised inverse-propensity estimate."""
        total = float(self.weight.sum())
        return float(values.sum()) / total if total > 0 else 0.0


def measure(
    decisions: Sequence[JudgedDecision],
    scorer: Scorer,
    position_column: int,
    examination: Examination,
    *,
    max_weight: float,
) -> Measured:
    """Reorder what each search showed and see where the engaged items end up.

    Every engagement is a query with one relevant item, so its ideal DCG is 1; it is weighted by
    its reward and by one over the probability that its position was looked at, clipped. Ties
    share the mean rank.
    """
    rows = np.concatenate([d.features for d in decisions])
    rows[:, position_column] = 1.0
    scores = np.split(scorer(rows), np.cumsum([len(d.rewards) for d in decisions])[:-1])
    values = np.zeros((len(decisions), 3))
    for index, decision in enumerate(decisions):
        engaged = np.flatnonzero(decision.rewards > 0)
        inverse = examination.weights(decision.positions[engaged], largest=max_weight)
        weights = decision.rewards[engaged] * inverse
        ranks = _ranks(scores[index], engaged)
        discounts = np.where(ranks <= _TOP, 1.0 / np.log2(1.0 + ranks), 0.0)
        values[index] = weights @ discounts, weights @ (1.0 / ranks), weights.sum()
    return Measured(*values.T)


def _ranks(scores: NDArray[np.float64], of: NDArray[np.intp]) -> NDArray[np.float64]:
    better = (scores[None, :] > scores[of, None]).sum(axis=1)
    equal = (scores[None, :] == scores[of, None]).sum(axis=1)
    ranks: NDArray[np.float64] = better + (1 + equal) / 2
    return ranks


def compare(
    candidate: Measured, other: Measured, *, samples: int, rng: np.random.Generator
) -> Comparison:
    """Return how much better the candidate's nDCG@10 is, on the same searches."""
    gain = candidate.ndcg - other.ndcg
    searches = len(gain)
    drawn = np.empty(samples)
    for index in range(samples):
        times = np.bincount(rng.integers(0, searches, searches), minlength=searches)
        weight = float(times @ candidate.weight)
        drawn[index] = float(times @ gain) / weight if weight > 0 else 0.0
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Comparison(candidate.mean(gain), float(low), float(high))


def metrics(
    candidate: Measured, others: Mapping[str, tuple[Measured, Comparison]]
) -> dict[str, float]:
    """Return all figures by name, such as `ndcg@10`, `fused_mrr` and `gain_over_fused_low`."""
    figures = {
        "ndcg@10": candidate.mean(candidate.ndcg),
        "mrr": candidate.mean(candidate.mrr),
        "holdout_decisions": float(len(candidate.weight)),
    }
    for name, (measured, comparison) in others.items():
        figures[f"{name}_ndcg@10"] = measured.mean(measured.ndcg)
        figures[f"{name}_mrr"] = measured.mean(measured.mrr)
        figures[f"gain_over_{name}"] = comparison.gain
        figures[f"gain_over_{name}_low"] = comparison.low
        figures[f"gain_over_{name}_high"] = comparison.high
    return figures
