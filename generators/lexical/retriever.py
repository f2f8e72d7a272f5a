"""Finds items by their words: the lexical generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from forage.errors import StartupError, UnavailableError
from forage.log import Projection
from forage.retrieval import Deadline, Hit, Query, Retrieval
from forage.services import Runtime
from generators.lexical.analysis import Stemmer
from generators.lexical.binding import Binder, Plan
from generators.lexical.clauses import Combination, Engine
from generators.lexical.corpus import Statistics
from generators.lexical.expansion import Expander
from generators.lexical.index import LexicalProjection, View
from generators.lexical.layout import Layout
from generators.lexical.query_language import QueryLanguage
from generators.lexical.reasons import Reasons
from generators.lexical.scoring import score
from generators.lexical.settings import LexicalSettings

_PARSED = 1_024
_MAX_REMEMBERED = 200
_PACKAGES = {"tantivy": "tantivy", "whoosh": "whoosh3"}


class LexicalRetriever:
    """BM25 over boosted fields with a popularity prior, behind the query language.

    The engine finds the matches and hands over the best by its own count; `scoring` then scores
    these exactly, from statistics of the living items. So both engines, and an index rebuilt from
    the log, give the same answers. Scores are comparable within one query only.

    A blank text finds all items that satisfy the filters, most popular first; with example items
    and no text it finds nothing, for words are all it knows. The answer does not depend on the
    user, the time or the seed.
    """

    name = "lexical"

    def __init__(
        self, projection: LexicalProjection, layout: Layout, settings: LexicalSettings
    ) -> None:
        """Search what `projection` has indexed."""
        stemmer = Stemmer(settings.language)
        self._projection = projection
        self._settings = settings
        self._binder = Binder(layout, settings, Expander(settings.expansion, stemmer))
        self._parse = QueryLanguage(layout).parse
        self._parse_short = lru_cache(maxsize=_PARSED)(self._parse)

    @classmethod
    def open(cls, settings: LexicalSettings, runtime: Runtime) -> LexicalRetriever:
        """Return the retriever on `data_dir/lexical`; raises `StartupError` for bad settings."""
        if settings.depth < 2 * settings.max_limit:
            raise StartupError(
                f"depth: {settings.depth} is too small; allowed: at least 2 * max_limit,"
                f" {2 * settings.max_limit}"
            )
        layout = Layout.of(runtime.schema)
        projection = LexicalProjection(
            settings.data_dir / "lexical",
            layout,
            Stemmer(settings.language),
            partial(_open_engine, settings, layout),
            layout.fingerprint(settings.engine, settings.language, settings.popularity_weight),
            files_of=_files_of(settings.engine),
        )
        return cls(projection, layout, settings)

    @property
    def projections(self) -> Sequence[Projection]:
        """The one index."""
        return (self._projection,)

    def entries(self) -> dict[str, int]:
        """Return how many items are indexed."""
        view = self._projection.view
        return {self._projection.name: 0 if view is None else view.statistics.items}

    def close(self) -> None:
        """Release the engine."""
        self._projection.close()

    def retrieve(
        self, query: Query, limit: int, deadline: Deadline, *, explain: bool = False
    ) -> Retrieval:
        """Return the best matches; see `Retriever.retrieve`."""
        deadline.check()
        view = self._projection.view
        if view is None:
            raise UnavailableError("lexical: the index is not open")
        plan = self._plan(query, view.statistics)
        if plan is None:
            return Retrieval(())
        rows = self._matches(plan, query, view, max(limit, self._settings.depth))
        deadline.check()
        hits = self._ranked(rows, plan, view.statistics, limit, explain=explain)
        deadline.check()
        return Retrieval(hits, scanned=_postings(plan.weights, view.statistics))

    def _plan(self, query: Query, known: Statistics) -> Plan | None:
        short = len(query.text) <= _MAX_REMEMBERED
        parsed = (self._parse_short if short else self._parse)(query.text)
        if parsed is not None:
            return self._binder.bind(parsed, query.text, query.interpretations, known)
        if query.like_item_ids:
            return None
        return Plan(Combination(), {}, {})

    @staticmethod
    def _matches(plan: Plan, query: Query, view: View, depth: int) -> npt.NDArray[np.int64]:
        find = view.searcher.best if plan.weights else view.searcher.popular
        return np.array(find(plan.clause, query.filters, depth), np.int64)

    def _ranked(
        self,
        rows: npt.NDArray[np.int64],
        plan: Plan,
        known: Statistics,
        limit: int,
        *,
        explain: bool,
    ) -> tuple[Hit, ...]:
        scored = score(rows, plan, known, self._settings.popularity_weight)
        best = np.lexsort((-known.rows.ties[rows], -scored.scores))[:limit]
        reasons = Reasons(rows, scored, known).of(best) if explain else [()] * len(best)
        item_ids = known.rows.item_ids
        return tuple(
            Hit(item_ids[row], points, why)
            for row, points, why in zip(
                rows[best].tolist(), scored.scores[best].tolist(), reasons, strict=True
            )
        )


def _postings(weights: Mapping[int, float], known: Statistics) -> int:
    """Return how many postings the query's tokens have; all items, if it has no tokens."""
    if not weights:
        return known.items
    return int(known.frequencies[list(weights)].sum())


def _files_of(engine: str) -> str:
    """Return what the engine's files are readable by; a collection of Milvus is no file."""
    package = _PACKAGES.get(engine)
    return "" if package is None else f"{package} {version(package)}"


def _open_engine(settings: LexicalSettings, layout: Layout, folder: Path) -> Engine:
    # Every engine is a heavy import, and only one is needed.
    if settings.engine == "whoosh":
        from generators.lexical.whoosh_index import WhooshEngine

        return WhooshEngine(folder, layout)
    if settings.engine == "milvus":
        from generators.lexical.milvus_index import MilvusEngine

        return MilvusEngine(folder, layout, settings.milvus)
    from generators.lexical.tantivy_index import TantivyEngine

    return TantivyEngine(
        folder,
        layout,
        heap_mb=settings.heap_mb,
        popularity_weight=settings.popularity_weight,
    )
