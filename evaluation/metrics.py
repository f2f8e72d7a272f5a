"""How good lists are: nDCG, recall and MRR by trec_eval, checked before it is asked.

trec_eval's nDCG has linear gains (Järvelin & Kekäläinen, 2002, with the logarithm of rank + 1).
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytrec_eval
from numpy.typing import NDArray

from forage.errors import InvalidArgumentError

Judgments = Mapping[str, Mapping[str, int]]
Floats = NDArray[np.float64]
NAMES = {
    "ndcg@10": "ndcg_cut_10",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "mrr": "recip_rank",
}
_MEASURES = {"ndcg_cut.10", "recall.10,100", "recip_rank"}
# No catalogue has it: validated ids have no control characters.
_NOTHING = "\x00"


@dataclass(frozen=True, slots=True)
class Measured:
    """Metrics by name, one value per query, in the order of `query_ids`."""

    query_ids: tuple[str, ...]
    values: Mapping[str, Floats]

    def mean(self, metric: str) -> float:
        """Return the mean over queries."""
        return float(self.values[metric].mean())

    def of(self, query_ids: Sequence[str]) -> Measured:
        """Return the same for some of the queries, in that order."""
        place = {query_id: row for row, query_id in enumerate(self.query_ids)}
        rows = [place[query_id] for query_id in query_ids]
        return Measured(tuple(query_ids), {n: v[rows] for n, v in self.values.items()})


def measure_lists(
    judgments: Judgments,
    lists: Mapping[str, Sequence[str]],
    *,
    known: Container[str] | None = None,
) -> Measured:
    """Measure lists of item ids, best first, by query id.

    An empty list is a query for which nothing was found, and scores 0. Raises
    `InvalidArgumentError` for an item twice, and for whatever `measure_scores` refuses.
    """
    for query_id, items in lists.items():
        if len(set(items)) < len(items):
            raise InvalidArgumentError(
                f"lists[{query_id!r}]", "an item occurs twice", allowed="each item once"
            )
    # Descending scores say the order; trec_eval would break ties by item id.
    scores = {
        query_id: {item: float(len(items) - rank) for rank, item in enumerate(items)}
        for query_id, items in lists.items()
    }
    return measure_scores(judgments, scores, known=known)


def measure_scores(
    judgments: Judgments,
    run: Mapping[str, Mapping[str, float]],
    *,
    known: Container[str] | None = None,
) -> Measured:
    """Measure scored items by query id; equal scores are ordered by item id, as trec_eval does.

    Raises `InvalidArgumentError` for an empty run, a query without judgments, a query without a
    relevant item, an item that is not among the `known`, or a score that is no finite number.
    """
    if not run:
        raise InvalidArgumentError("run", "empty", allowed="at least one query")
    for query_id, scores in run.items():
        _check(query_id, scores, judgments, known)
    evaluator = pytrec_eval.RelevanceEvaluator(
        {query_id: dict(judgments[query_id]) for query_id in run}, _MEASURES
    )
    # trec_eval leaves queries without any result out of its means; here they count as 0.
    found = evaluator.evaluate({q: dict(s) or {_NOTHING: 0.0} for q, s in run.items()})
    query_ids = tuple(run)
    values = {
        name: np.array([found[q][measure] for q in query_ids]) for name, measure in NAMES.items()
    }
    return Measured(query_ids, values)


def _check(
    query_id: str,
    scores: Mapping[str, float],
    judgments: Judgments,
    known: Container[str] | None,
) -> None:
    gains = judgments.get(query_id)
    if gains is None:
        raise InvalidArgumentError(
            f"run[{query_id!r}]", "a query without judgments", allowed="a query id of the qrels"
        )
    if not any(gain > 0 for gain in gains.values()):
        raise InvalidArgumentError(
            f"judgments[{query_id!r}]", "no relevant item", allowed="at least one gain above 0"
        )
    for item_id, score in scores.items():
        if known is not None and item_id not in known:
            raise InvalidArgumentError(
                f"run[{query_id!r}][{item_id!r}]", "unknown item id", allowed="an item's id"
            )
        if not math.isfinite(score):
            raise InvalidArgumentError(
                f"run[{query_id!r}][{item_id!r}]", f"score {score}", allowed="a finite number"
            )
