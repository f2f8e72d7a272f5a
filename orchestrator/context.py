"""Context: an understood query and what is known of the generators, as named numbers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np

from forage.retrieval import Query, QueryClass
from orchestrator.bandit import BIAS
from orchestrator.bandit.arrays import FloatArray

QUERY_FEATURES: tuple[tuple[str, str], ...] = (
    (BIAS, "1"),
    ("navigational", "1 if one particular item is wanted"),
    ("browse", "1 if the query has only entities or filters"),
    ("empty", "1 if there is no query at all"),
    ("length", "log(1 + tokens) / log(33)"),
    ("slot_confidence", "highest slot confidence of the best interpretation"),
    ("entity_slots", "min(slots that name an item other than a title, 3) / 3"),
    ("title_slot", "confidence of a title slot in the best interpretation"),
    ("ambiguity", "1 - confidence of the best interpretation"),
    ("residual", "share of the tokens that the best interpretation leaves unexplained"),
    ("filtered", "1 if there are filters"),
    ("like", "1 if example items are given"),
    ("history", "log(1 + recent items of the user) / log(51)"),
    ("remembered", "log(1 + engagements seen for this query) / log(101), at most 1"),
    ("other_language", "1 if the query is not English"),
    ("phone", "1 on a phone"),
    ("weekend", "1 on Saturday and Sunday, UTC"),
    ("evening", "1 from 17:00 to 23:00 UTC"),
    ("holiday_season", "1 from 20 November to 2 January"),
)
ACTION_FEATURES: tuple[tuple[str, str], ...] = (
    ("past_hit_rate", "logit of the generator's hit rate for this query class, divided by 4"),
    ("query_hit_rate", "logit of its hit rate for this very query / 4, less past_hit_rate"),
    ("past_returned", "share of its fan-out that the generator has lately filled"),
    ("past_latency", "log(1 + its recent latency in ms) / log(1001)"),
)
FEATURES = tuple(name for name, _ in (*QUERY_FEATURES, *ACTION_FEATURES))


def definition_version(*definitions: tuple[tuple[str, str], ...]) -> str:
    """Return a version that is another as soon as a name, a meaning or their order is."""
    return hashlib.sha256(repr(definitions).encode()).hexdigest()[:12]


FEATURE_VERSION = definition_version(QUERY_FEATURES, ACTION_FEATURES)


@dataclass(frozen=True, slots=True)
class GeneratorHistory:
    """What a generator has lately done for one query class."""

    hit_rate: float
    """In (0, 1): share of its answered calls that held the engaged item."""
    query_hit_rate: float
    """The same of the calls for this very query, shrunk towards the class's."""
    returned_share: float
    """In [0, 1]: share of the candidates asked for that it returned."""
    latency_s: float


class History(Protocol):
    """What past searches say; a projection of the log."""

    def engagements(self, normalized_query: str) -> float:
        """Return how often results of this query were engaged with."""
        ...

    def generator(
        self, name: str, query_class: QueryClass, normalized_query: str
    ) -> GeneratorHistory:
        """Return what a generator has lately done for this class of query, and for this query."""
        ...


def features(
    query: Query, generators: Sequence[str], history: History, *, title: str
) -> FloatArray:
    """Return φ(x, z_g) for every generator: [G, len(FEATURES)], all finite, mostly in [0, 1].

    `title` is the schema's title attribute.
    """
    shared = _query_features(query, history.engagements(query.normalized), title)
    rows = [
        [*shared, *_action_features(history.generator(name, query.query_class, query.normalized))]
        for name in generators
    ]
    return np.array(rows, dtype=np.float64)


def _query_features(query: Query, engagements: float, title: str) -> list[float]:
    best = query.interpretations[0] if query.interpretations else None
    slots = best.slots if best else ()
    titles = [s.confidence for s in slots if s.attribute == title]
    when = datetime.fromtimestamp(query.time, UTC)
    day = (when.month, when.day)
    words = len(best.residual.split()) if best else len(query.tokens)
    return [
        1.0,
        float(query.query_class is QueryClass.NAVIGATIONAL),
        float(query.query_class is QueryClass.BROWSE),
        float(query.query_class is QueryClass.EMPTY),
        math.log1p(min(len(query.tokens), 32)) / math.log(33),
        max((s.confidence for s in slots), default=0.0),
        min(sum(1 for s in slots if s.item_id and s.attribute != title), 3) / 3,
        max(titles, default=0.0),
        1 - best.confidence if best else 1.0,
        words / len(query.tokens) if query.tokens else 0.0,
        float(bool(query.filters)),
        float(bool(query.like_item_ids)),
        math.log1p(min(len(query.user.recent_item_ids), 50)) / math.log(51),
        min(1.0, math.log1p(engagements) / math.log(101)),
        float(query.language != "en"),
        float(query.device.casefold() in {"phone", "mobile"}),
        float(when.weekday() >= 5),
        float(17 <= when.hour < 23),
        float(day >= (11, 20) or day <= (1, 2)),
    ]


def _action_features(past: GeneratorHistory) -> list[float]:
    of_class = _logit(past.hit_rate) / 4
    return [
        of_class,
        _logit(past.query_hit_rate) / 4 - of_class,
        past.returned_share,
        min(1.0, math.log1p(past.latency_s * 1000) / math.log(1001)),
    ]


def _logit(rate: float) -> float:
    inside = min(max(rate, 0.001), 0.999)
    return math.log(inside / (1 - inside))
