"""Fills the feature matrix of one search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from forage.catalog.schema import Schema
from forage.retrieval import Query, QueryClass
from ranker.catalog import Card, ItemCards, JoinedPostings
from ranker.digest import digest
from ranker.evidence import Evidence
from ranker.features import FUSED_SCORE, NEIGHBOUR_DEPTHS, NEIGHBOURS, POSITION, FeatureList
from ranker.matching import Column, Matcher, standardized
from ranker.neighbours import Neighbours
from ranker.statistics import EngagementStatistics

Matrix = NDArray[np.float32]
_YEAR_S = 365.25 * 86_400
_DAY_S = 86_400.0
_RECENT_DECAY = 0.9
_BEST = 10
# XGBoost refuses infinity, which single precision would make of larger numbers.
_LARGEST = 1e30


class FeatureExtractor:
    """Turns a query and its candidates into one row of features per candidate.

    Thread-safe. Nothing but the arguments and the two projections decides the values.
    """

    def __init__(
        self,
        features: FeatureList,
        schema: Schema,
        cards: ItemCards,
        statistics: EngagementStatistics,
        *,
        half_life_days: float,
    ) -> None:
        """Compute `features`; a user's engagements fade with `half_life_days`."""
        self._features = features
        self._kinds = schema.kinds
        self._cards = cards
        self._statistics = statistics
        self._matcher = Matcher(schema, cards)
        self._half_life_s = half_life_days * _DAY_S
        self._generators = {name: column for column, name in enumerate(features.generators)}

    def matrix(self, query: Query, evidence: Evidence) -> Matrix:
        """Return the features of all candidates, shape (candidates, features); NaN is missing."""
        cards = self._cards.find(evidence.item_ids)
        postings = JoinedPostings(cards)
        columns: dict[str, Column | float] = self._generator(evidence)
        columns |= self._matcher.columns(query, cards, postings)
        columns |= self._neighbours(
            query, evidence, columns, lambda: Neighbours.of(self._cards, cards, postings)
        )
        columns |= self._item(query, cards)
        columns |= self._query(query)
        columns |= self._engagement(query, evidence.item_ids, cards)
        columns |= self._user(query, evidence.item_ids, postings)
        columns[POSITION] = 1.0
        stacked = np.empty((len(self._features), len(cards)), np.float32)
        with np.errstate(over="ignore"):
            for row, name in enumerate(self._features.names):
                stacked[row] = columns[name]
        np.clip(stacked, -_LARGEST, _LARGEST, out=stacked)
        return np.ascontiguousarray(stacked.T)

    def compare(self, item_ids: Sequence[str]) -> Neighbours:
        """Return how alike items are; `matrix` does this by itself for its candidates."""
        cards = self._cards.find(item_ids)
        return Neighbours.of(self._cards, cards, JoinedPostings(cards))

    def _generator(self, evidence: Evidence) -> dict[str, Column | float]:
        """Return the columns of the groups `generator` and `fusion`."""
        items, generators = len(evidence.item_ids), len(self._generators)
        # Proposals of generators that are not configured end up in a last column, unused.
        columns_of = [self._generators.get(name, generators) for name in evidence.generators]
        score = np.full((items, generators + 1), np.nan)
        reciprocal = np.zeros((items, generators + 1))
        score[evidence.rows, columns_of] = np.clip(evidence.scores, -_LARGEST, _LARGEST)
        reciprocal[evidence.rows, columns_of] = 1.0 / np.array(evidence.ranks, float)
        found = reciprocal > 0
        share = _share(score, found)
        z = standardized(np.where(found, score, 0.0))
        columns = self._fusion(evidence, found)
        asked = [g for name, g in self._generators.items() if name in evidence.answered]
        columns["fusion.best_rank"] = reciprocal.max(axis=1)
        columns["fusion.shares"] = np.nan_to_num(share[:, asked]).sum(axis=1) / max(len(asked), 1)
        for name, g in self._generators.items():
            answered = name in evidence.answered
            missing = 0.0 if answered else np.nan
            columns[f"{name}.answered"] = float(answered)
            columns[f"{name}.found"] = found[:, g].astype(float) + missing
            columns[f"{name}.score"] = score[:, g]
            columns[f"{name}.share"] = share[:, g]
            columns[f"{name}.z"] = z[:, g] + missing
            columns[f"{name}.reciprocal_rank"] = reciprocal[:, g] + missing
        return columns

    def _fusion(self, evidence: Evidence, found: NDArray[np.bool_]) -> dict[str, Column | float]:
        items = len(evidence.item_ids)
        fused = np.clip(evidence.fused, -_LARGEST, _LARGEST)
        largest = fused.max(initial=0.0)
        number = np.bincount(np.array(evidence.rows, np.intp), minlength=items)
        columns: dict[str, Column | float] = {
            FUSED_SCORE: fused,
            "fusion.share": fused / (largest if largest > 0 else np.inf),
            "fusion.reciprocal_rank": 1.0 / (1 + np.arange(items)),
            "fusion.generators": number.astype(float),
            "fusion.candidates": float(items),
        }
        if "exploration" in self._generators:
            explored = found[:, self._generators["exploration"]]
            columns["exploration.only"] = (explored & (number == 1)).astype(float)
        return columns

    def _neighbours(
        self,
        query: Query,
        evidence: Evidence,
        columns: Mapping[str, Column | float],
        compare: Callable[[], Neighbours],
    ) -> dict[str, Column]:
        """Return the columns of the group `neighbours`; `compare` is called if they are wanted."""
        items = len(evidence.item_ids)
        names = [f.name for f in self._features.features if f.group == NEIGHBOURS]
        missing = np.full(items, np.nan)
        told: dict[str, Column] = dict.fromkeys(names, missing)
        if not query.tokens:
            # What is alike in words says little of a query that has none.
            return told
        neighbours = compare()
        by_place = 1 / np.sqrt(1.0 + np.arange(items))
        best = {
            depth: neighbours.sum(np.where(np.arange(items) < depth, by_place, 0.0))
            for depth in NEIGHBOUR_DEPTHS
        }
        told["neighbours.likeness"] = neighbours.density()
        told["neighbours.best"] = best[_BEST] / max(by_place[:_BEST].sum(), 1.0)
        told |= {f"neighbours.best_{d}_z": standardized(column) for d, column in best.items()}
        spread = {"fusion": "fusion.share", "bm25": "match.bm25"}
        spread |= {name: f"{name}.share" for name in self._generators if name in evidence.answered}
        for name, feature in spread.items():
            told[f"neighbours.{name}"] = neighbours.mean(np.nan_to_num(columns[feature]))
        return told

    def _item(self, query: Query, cards: Sequence[Card | None]) -> dict[str, Column | float]:
        nothing = (np.nan, np.nan, -1, np.nan)
        numbers = np.array(
            [nothing if c is None else (c.popularity, c.time, c.kind, c.length) for c in cards],
            float,
        ).reshape(-1, 4)
        columns: dict[str, Column | float] = {
            "item.known": np.array([c is not None for c in cards], float),
            "item.popularity": numbers[:, 0],
            "item.length": np.log1p(numbers[:, 3]),
            "item.age": (query.time - numbers[:, 1]) / _YEAR_S,
        }
        for index, kind in enumerate(self._kinds):
            columns[f"item.kind.{kind}"] = (numbers[:, 2] == index).astype(float)
        return columns

    def _query(self, query: Query) -> dict[str, Column | float]:
        best = query.interpretations[0].confidence if query.interpretations else np.nan
        values: dict[str, Column | float] = {
            "query.words": float(len(query.tokens)),
            "query.characters": float(len(query.normalized)),
            "query.confidence": best,
            "query.filters": float(len(query.filters)),
            "query.examples": float(len(query.like_item_ids)),
        }
        for query_class in QueryClass:
            values[f"query.class.{query_class}"] = float(query.query_class is query_class)
        return values

    def _engagement(
        self, query: Query, item_ids: Sequence[str], cards: Sequence[Card | None]
    ) -> dict[str, Column | float]:
        known = zip(item_ids, cards, strict=True)
        keys = [digest(item_id) if card is None else card.key for item_id, card in known]
        rates = self._statistics.rates(np.array(keys, np.uint64), query)
        return {
            "engagement.overall": rates.overall,
            "engagement.class": rates.by_class,
            "engagement.query": rates.by_query,
            "engagement.dislike": rates.dislike,
            "engagement.examined": np.log1p(rates.examined),
            "engagement.query_examined": np.log1p(rates.examined_by_query),
        }

    def _user(
        self, query: Query, item_ids: Sequence[str], postings: JoinedPostings
    ) -> dict[str, Column | float]:
        history = self._history(query)
        return {
            "user.affinity": self._matcher.affinity(history, postings),
            "user.engaged": np.array([item_id in history for item_id in item_ids], float),
            "user.history": float(len(history)),
        }

    def _history(self, query: Query) -> dict[str, float]:
        """Return the weight of each item that the user engaged with, lately or by report."""
        weights: dict[str, float] = {}
        if query.user.user_id:
            for past in self._statistics.history(query.user.user_id):
                age = max(query.time - past.time, 0.0) / self._half_life_s
                weights[past.item_id] = past.reward * 2.0**-age
        for place, item_id in enumerate(query.user.recent_item_ids):
            weights.setdefault(item_id, _RECENT_DECAY**place)
        return weights


def _share(score: Column, found: NDArray[np.bool_]) -> Column:
    """Return scores scaled to [0, 1] within each generator's list; 1 if all are equal."""
    low = np.where(found, score, np.inf).min(axis=0, initial=np.inf)
    high = np.where(found, score, -np.inf).max(axis=0, initial=-np.inf)
    spread = np.where(high > low, high - low, np.inf)
    share: Column = np.where(
        np.isfinite(spread), (score - low) / spread, np.where(found, 1.0, np.nan)
    )
    return share
