"""Finds items worth a look: relevant, and new, seldom shown, or of uncertain appeal."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forage.catalog.checkpoint import CatalogCheckpoint
from forage.catalog.view import CatalogView
from forage.log import Projection
from forage.retrieval import Deadline, Hit, Query, Reason, Retrieval
from forage.services import Runtime
from generators.catalog_projection import CatalogProjection
from generators.engagement_projection import EngagementProjection
from generators.evidence import Floats
from generators.exploration.pool import ExplorationIndex
from generators.exploration.posterior import ItemLearner, Posterior, Rows
from generators.exploration.settings import ExplorationSettings

_SECONDS_PER_DAY = 86_400.0
_LEAST_SHARE = 0.1
"""Reasons that add less than this share of the strongest one are not given."""
_LEAST_FRESH = 0.01
_OWED = 0.5
"""An item that was never shown enough is owed looks while it is younger than one half-life."""


@dataclass(frozen=True, slots=True)
class _Draws:
    """What speaks for each item of the pool; arrays are aligned."""

    pool: Rows
    relevance: Floats
    mean: Floats
    deviation: Floats
    drawn: Floats
    novelty: Floats
    freshness: Floats
    shown: Floats
    age_days: Floats

    @property
    def scores(self) -> Floats:
        return self.relevance * (self.drawn + self.novelty + self.freshness)

    def reasons(self, at: int) -> tuple[Reason, ...]:
        """Return the reasons of the item at a place in the pool, strongest first."""
        relevance, drawn = float(self.relevance[at]), float(self.drawn[at])
        mean, deviation = self.mean[at], self.deviation[at]
        times = "once" if self.shown[at] == 1 else f"{self.shown[at]:.0f} times"
        found = [
            Reason("uncertain", f"chance {mean:.2f} ± {deviation:.2f}", relevance * drawn),
            Reason("novelty", f"shown {times}", relevance * float(self.novelty[at])),
        ]
        if self.freshness[at] > 0:
            detail = f"{self.age_days[at]:.0f} days older than the newest"
            found.append(Reason("fresh", detail, relevance * float(self.freshness[at])))
        found.sort(key=lambda reason: -reason.weight)
        return tuple(r for r in found if r.weight >= _LEAST_SHARE * found[0].weight)


class ExplorationRetriever:
    """Thompson sampling over item posteriors, within what is relevant to the search.

    An item scores relevance × (draw + novelty + freshness), and freshness lasts only until the item
    has had its first looks: what is new is taken at its best, then known by what came of it. The
    draw of a seed does not depend on the order in which items arrived, so a rebuilt index answers
    as the old one.
    """

    def __init__(self, settings: ExplorationSettings, runtime: Runtime) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._view = CatalogView(runtime.schema)
        self._index = ExplorationIndex(runtime.schema, self._view)
        self._learner = ItemLearner(
            half_life_s=settings.half_life_days * _SECONDS_PER_DAY, added=self._index.link
        )
        self._index.learner = self._learner
        self._projections: tuple[Projection, ...] = (
            CatalogProjection(
                "exploration.catalog",
                runtime.log,
                self._view,
                self._index,
                self._lock,
                CatalogCheckpoint(
                    settings.data_dir / "exploration", runtime.log, runtime.schema, "exploration"
                ),
            ),
            EngagementProjection(
                "exploration.engagement",
                runtime.log,
                self._learner,
                self._lock,
                folder=settings.data_dir / "exploration",
                feedback=settings.feedback,
                rules=settings.learning_rules,
            ),
        )

    @classmethod
    def open(cls, settings: ExplorationSettings, runtime: Runtime) -> ExplorationRetriever:
        """Return the generator, empty until the follower feeds it."""
        return cls(settings, runtime)

    @property
    def name(self) -> str:
        """The generator's name."""
        return "exploration"

    @property
    def projections(self) -> Sequence[Projection]:
        """The catalogue, and the counts of items."""
        return self._projections

    def entries(self) -> dict[str, int]:
        """Return the number of items in the catalogue, and of items ever shown."""
        return {
            "exploration.catalog": len(self._view),
            "exploration.engagement": len(self._learner),
        }

    def close(self) -> None:
        """There is nothing to release."""

    def retrieve(
        self, query: Query, limit: int, deadline: Deadline, *, explain: bool = False
    ) -> Retrieval:
        """Return at most `limit` items that satisfy every filter, best draw first.

        Raises `DeadlineExceededError` if the deadline passes first.
        """
        deadline.check()
        rng = np.random.default_rng(query.seed)
        with self._lock:
            draws = self._draw(query, rng)
            scores = draws.scores
            order = np.argsort(-scores, kind="stable")[:limit].tolist()
            hits = tuple(
                Hit(self._view.id_at(index), score, draws.reasons(place) if explain else ())
                for place, index, score in zip(
                    order, draws.pool[order].tolist(), scores[order].tolist(), strict=True
                )
            )
        deadline.check()
        return Retrieval(hits, scanned=draws.pool.size)

    def _draw(self, query: Query, rng: np.random.Generator) -> _Draws:
        index, settings = self._index, self._settings
        pool, relevance = self._pool(query)
        success, exposure, shown = self._learner.counts(index.rows[pool], query.time)
        posterior = Posterior.of(
            self._prior(pool),
            strength=settings.prior_strength,
            success=success,
            exposure=exposure,
        )
        return _Draws(
            pool=pool,
            relevance=relevance,
            mean=posterior.mean,
            deviation=posterior.deviation,
            drawn=posterior.draw(rng, optimistic=settings.optimistic),
            novelty=settings.novelty_weight / np.sqrt(1.0 + exposure),
            freshness=settings.freshness_weight * self._fresh(pool, query.time),
            shown=shown,
            age_days=self._age_days(pool, query.time),
        )

    def _pool(self, query: Query) -> tuple[Rows, Floats]:
        """Return the relevant, allowed items and their relevance, in the order of their hashes.

        From a pool that is too large a weighted sample is taken, with each item's chance in
        proportion to its relevance (Efraimidis & Spirakis, 2006), by the hash of seed and item.
        What is owed its first looks is in the sample, unless it would fill more than half of it.
        """
        settings = self._settings
        relevance = self._index.relevance(query, taste_weight=settings.taste_weight)
        pool = np.flatnonzero((relevance > 0) & self._view.filter(query.filters))
        limit = settings.pool_limit
        if pool.size > limit:
            uniform = _uniform(self._index.hashes[pool], query.seed)
            keys = np.log(uniform) / relevance[pool]
            owed = self._fresh(pool, query.time) > _OWED
            if np.count_nonzero(owed) <= limit // 2:
                keys[owed] = 0.0
            pool = pool[np.argpartition(-keys, limit)[:limit]]
        pool = pool[np.argsort(self._index.hashes[pool])]
        return pool, relevance[pool]

    def _prior(self, pool: Rows) -> Floats:
        """Return each item's chance before anybody looked."""
        index, low, high = self._index, self._settings.base_rate, self._settings.popular_rate
        popularity = np.nan_to_num(index.popularity[pool], nan=index.usual_popularity)
        prior: Floats = low + (high - low) * popularity
        return prior

    def _age_days(self, pool: Rows, time: float) -> Floats:
        """Return how much older each item is than the newest there can be; NaN if unknown."""
        newest = min(self._index.newest, time) if time else self._index.newest
        age: Floats = np.maximum(0.0, newest - self._index.dates[pool]) / _SECONDS_PER_DAY
        return age

    def _fresh(self, pool: Rows, time: float) -> Floats:
        """Return how new each item is, in [0, 1]; 0 for those that had their first looks."""
        settings = self._settings
        age_days = self._age_days(pool, time)
        fresh = np.nan_to_num(np.exp2(-age_days / settings.freshness_half_life_days))
        # Only what is new enough to matter is looked up: pools can be the whole catalogue.
        new = np.flatnonzero(fresh > _LEAST_FRESH)
        shown = self._learner.counts(self._index.rows[pool[new]], time)[2]
        fresh[new[shown >= settings.first_looks]] = 0.0
        return fresh


def _uniform(hashes: npt.NDArray[np.uint64], seed: int) -> Floats:
    """Return one number in (0, 1) per hash: the finaliser of SplitMix64 (Steele et al., 2014)."""
    mixed = hashes ^ np.uint64(seed & 0xFFFF_FFFF_FFFF_FFFF)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    uniform: Floats = ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return uniform
