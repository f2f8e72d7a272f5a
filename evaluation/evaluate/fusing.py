"""Static fusions, the rivals of learning: equal weights, and weights tuned on training topics.

All rules of one shape (reciprocal rank with k of 5, 20 or 60, or scores scaled to [0, 1] within
each list) with weights on a grid of tenths are measured at once, as matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from evaluation.evaluate.recording import FAN_OUT, Found, Plan
from evaluation.mesh import GENERATORS

Floats = NDArray[np.float64]
TOP = 10
_STEPS = 10
_KS = (5.0, 20.0, 60.0)
SHAPES = (*(f"rrf{k:.0f}" for k in _KS), "share")
_DISCOUNTS = 1.0 / np.log2(np.arange(2, TOP + 2))
_TIE = 1e-12


@dataclass(frozen=True, slots=True)
class Fusion:
    """One way to merge the lists."""

    shape: str
    """`rrf5`, `rrf20`, `rrf60`, or `share`: scores scaled to [0, 1] within each list."""
    weights: Mapping[str, float]

    @property
    def plan(self) -> Plan:
        """The generators it needs."""
        return {name: FAN_OUT for name, weight in self.weights.items() if weight}

    def order(self, found: Found) -> list[str]:
        """Return the union of the lists, best first; ties by item id."""
        union = Union.of(found)
        weights = np.array([self.weights.get(name, 0.0) for name in GENERATORS])
        scores = union.signals[SHAPES.index(self.shape)] @ weights
        kept = [(-s, i) for s, i in zip(scores.tolist(), union.item_ids, strict=True) if s > 0]
        return [item_id for _, item_id in sorted(kept)]

    def __str__(self) -> str:
        weights = ", ".join(f"{n} {w:.1f}" for n, w in self.weights.items() if w)
        return f"{self.shape}: {weights}"


EQUAL = Fusion("rrf60", dict.fromkeys(GENERATORS, 1.0))
"""Reciprocal rank fusion as it is usually used (Cormack, Clarke & Büttcher, 2009)."""
LEXICAL_AND_SEMANTIC = Fusion("rrf60", {"lexical": 1.0, "semantic": 1.0})
"""The same of the two generators that need neither users nor entities: the usual hybrid."""


@dataclass(frozen=True, slots=True)
class Union:
    """All items found for a topic, and what each shape of rule says of them."""

    item_ids: Sequence[str]
    """Sorted."""
    signals: Floats
    """By shape, item and generator; 0 where the generator did not find the item."""

    @classmethod
    def of(cls, found: Found) -> Union:
        """Return the union of the lists of everything."""
        item_ids = sorted({hit.item_id for hits in found.hits.values() for hit in hits})
        place = {item_id: row for row, item_id in enumerate(item_ids)}
        signals = np.zeros((len(SHAPES), len(item_ids), len(GENERATORS)))
        for column, name in enumerate(GENERATORS):
            hits = found.hits[name]
            if not hits:
                continue
            rows = [place[hit.item_id] for hit in hits]
            ranks = np.arange(1, len(hits) + 1)
            for shape, k in enumerate(_KS):
                signals[shape, rows, column] = 1.0 / (k + ranks)
            scores = np.array([hit.score for hit in hits])
            low, high = float(scores.min()), float(scores.max())
            # The last of a list still was found: it is worth a little.
            share = (scores - low) / (high - low) if high > low else np.ones(len(hits))
            signals[-1, rows, column] = 0.01 + 0.99 * share
        return cls(item_ids, signals)


class StaticRules:
    """The nDCG@10 of every rule for every topic."""

    def __init__(self, found: Sequence[Found], judgments: Mapping[str, Mapping[str, int]]) -> None:
        """Measure all rules; takes some 10 ms per topic."""
        self._weights = np.array(list(_grid(len(GENERATORS), _STEPS))) / _STEPS
        self._rows = {f.topic.query_id: row for row, f in enumerate(found)}
        self._ndcg = np.array([self._measure(f, judgments[f.topic.query_id]) for f in found])

    def best(self, query_ids: Sequence[str]) -> Fusion:
        """Return the rule with the largest mean over these topics; the first of equals."""
        means = self._ndcg[[self._rows[q] for q in query_ids]].mean(axis=0)
        best = int(np.argmax(means))
        shape, place = divmod(best, len(self._weights))
        weights = dict(zip(GENERATORS, self._weights[place].tolist(), strict=True))
        return Fusion(SHAPES[shape], weights)

    def _measure(self, found: Found, judged: Mapping[str, int]) -> Floats:
        union = Union.of(found)
        gains = np.array([float(judged.get(i, 0)) for i in union.item_ids])
        ideal = np.sort([float(g) for g in judged.values() if g > 0])[::-1][:TOP]
        best = float(ideal @ _DISCOUNTS[: len(ideal)])
        values = []
        for signal in union.signals:
            scores = signal @ self._weights.T
            scores -= _TIE * np.arange(len(scores))[:, None]
            found_gains = np.where(scores > 0, gains[:, None], 0.0)
            top = _top(scores)
            ranked = np.take_along_axis(found_gains, top, axis=0)
            values.append(_DISCOUNTS[: len(top)] @ ranked / best)
        return np.concatenate(values)


def _top(scores: Floats) -> NDArray[np.intp]:
    """Return the rows of the ten largest scores of every column, best first."""
    if len(scores) > TOP:
        rows = np.argpartition(-scores, TOP - 1, axis=0)[:TOP]
    else:
        rows = np.broadcast_to(np.arange(len(scores))[:, None], scores.shape)
    order = np.argsort(-np.take_along_axis(scores, rows, axis=0), axis=0)
    top: NDArray[np.intp] = np.take_along_axis(rows, order, axis=0)
    return top


def _grid(parts: int, steps: int) -> Iterator[tuple[int, ...]]:
    """Yield all ways to share out `steps` among `parts`."""
    for bars in combinations(range(steps + parts - 1), parts - 1):
        edges = (-1, *bars, steps + parts - 1)
        yield tuple(b - a - 1 for a, b in pairwise(edges))
