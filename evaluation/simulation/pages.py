"""What one plan shows for one need: candidates found once, cut to any plan, fused and ranked.

The five generators answer each need once, at the largest fan-out. A plan sees the first k of each
list, which is exactly what the generators would have answered; the evidence is cut likewise, and
fused and ranked by the product's own code. So tens of thousands of requests replay quickly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evaluation.collections.collection import Topic
from forage.retrieval import Query
from orchestrator.settings import OrchestratorSettings
from ranker.evidence import Evidence
from ranker.extraction import FeatureExtractor, Matrix
from ranker.features import FeatureList
from ranker.matching import standardized
from ranker.model import RankingModel
from ranker.neighbours import Neighbours

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PAGE = 10


class EvidenceColumns(FeatureExtractor):
    """The part of the ranker's features that depends on the plan, computed by the ranker's code.

    That part needs no catalogue and no statistics, so this extractor has none.
    """

    def __init__(self, features: FeatureList) -> None:
        self._features = features
        self._generators = {name: column for column, name in enumerate(features.generators)}

    def fill(
        self, matrix: Matrix, query: Query, evidence: Evidence, neighbours: Neighbours
    ) -> None:
        """Overwrite what the generators and fusion say, and what compares candidates, in place."""
        columns = self._generator(evidence)
        columns["match.bm25"] = bm25 = matrix[:, self.columns["match.bm25"]].astype(float)
        columns["match.bm25_z"] = standardized(bm25)
        columns |= self._neighbours(query, evidence, columns, lambda: neighbours)
        for name, values in columns.items():
            matrix[:, self.columns[name]] = values

    @cached_property
    def columns(self) -> Mapping[str, int]:
        """The column of each feature."""
        return {name: column for column, name in enumerate(self._features.names)}


@dataclass(frozen=True, slots=True)
class Page:
    """The first page of an answer, and what the plan had found."""

    shown: Ints
    """Places of the shown items among the need's candidates, best first."""
    ndcg: float
    """nDCG@10 against the need's judgments."""
    covered: float
    """Share of the wanted gain that is among the candidates the plan found."""
    candidates: int


@dataclass(slots=True)
class Question:
    """One need with everything the generators found for it."""

    topic: Topic
    query: Query
    held_out: bool
    """Whether it may only be asked after everything has been trained."""
    item_ids: tuple[str, ...]
    ranks: NDArray[np.int16]
    """The rank of each candidate in each generator's list, 0 if it is not there: [G, N]."""
    scores: Floats
    """The score of each candidate in each list, 0 if it is not there: [G, N]."""
    features: Matrix
    """The ranker's features of all candidates when everybody is asked for everything: [N, F]."""
    neighbours: Neighbours
    """How alike all the candidates are."""
    grades: Ints
    """Judged grade of each candidate, [N]."""
    ideal: float
    """DCG@10 of the best page there could be, whether or not anybody finds it."""
    gain: float
    """The summed grades of all wanted items."""
    pages: dict[tuple[int, ...], Page] = field(default_factory=dict)
    """Pages by fan-outs, filled as plans ask for them."""

    def fan_out_ranks(self, fan_outs: Sequence[int]) -> NDArray[np.int16]:
        """Return the ranks that a plan sees: those beyond its fan-outs are 0."""
        limits = np.array(fan_outs, np.int16)[:, None]
        cut: NDArray[np.int16] = np.where(self.ranks <= limits, self.ranks, 0)
        return cut


class Pages:
    """Shows the page of any plan."""

    def __init__(
        self,
        settings: OrchestratorSettings,
        features: FeatureList,
        model: RankingModel | None,
        *,
        title: str,
    ) -> None:
        """Fuse by the configured hit rates and rank with `model`, if there is one."""
        self.title = title
        self.generators = tuple(settings.generators)
        self._weights = np.array([target.hit_rate for target in settings.generators.values()])
        self._columns = EvidenceColumns(features)
        self._model = model
        self._k = settings.fusion_k
        self._most = settings.ranker.max_candidates

    def page(self, question: Question, fan_outs: tuple[int, ...]) -> Page:
        """Return the page; the same question and fan-outs give the same page."""
        known = question.pages.get(fan_outs)
        if known is None:
            known = question.pages[fan_outs] = self._make(question, fan_outs)
        return known

    def _make(self, question: Question, fan_outs: tuple[int, ...]) -> Page:
        ranks = question.fan_out_ranks(fan_outs)
        order, fused = self.fuse(question, ranks)
        head = order[: self._most]
        scores = fused[head]
        if self._model is not None and len(head):
            scores = self._model.scores(self.matrix(question, ranks, fan_outs, head, scores))
        best = np.lexsort((np.arange(len(head)), -scores))[:PAGE]
        shown = head[best]
        covered = float(question.grades[order].sum())
        return Page(
            shown,
            dcg(question.grades[shown]) / question.ideal,
            covered / question.gain,
            len(order),
        )

    def fuse(self, question: Question, ranks: NDArray[np.int16]) -> tuple[Ints, Floats]:
        """Return the found candidates in fused order, and the fused score of every candidate."""
        found = ranks > 0
        parts = np.where(found, self._weights[:, None] / (self._k + ranks), 0.0)
        fused: Floats = parts.sum(axis=0)
        best = np.where(found, ranks, np.iinfo(np.int16).max).min(axis=0, initial=32_767)
        places = np.flatnonzero(found.any(axis=0))
        # Candidates are in the order of their ids, so a stable sort breaks ties as fusion does.
        order = places[np.lexsort((places, best[places], -fused[places]))]
        return order, fused

    def matrix(
        self,
        question: Question,
        ranks: NDArray[np.int16],
        fan_outs: Sequence[int],
        head: Ints,
        fused: Floats,
    ) -> Matrix:
        """Return the features of the candidates `head`, as the ranker would compute them."""
        matrix = question.features[head].copy()
        seen = ranks[:, head].T
        rows, columns = np.nonzero(seen)
        evidence = Evidence(
            item_ids=[question.item_ids[place] for place in head.tolist()],
            fused=fused,
            rows=rows.tolist(),
            generators=[self.generators[g] for g in columns.tolist()],
            scores=question.scores[columns, head[rows]].tolist(),
            ranks=seen[rows, columns].tolist(),
            answered=frozenset(
                name for name, k in zip(self.generators, fan_outs, strict=True) if k
            ),
        )
        neighbours = question.neighbours.among(head)
        self._columns.fill(matrix, question.query, evidence, neighbours)
        return matrix


def dcg(grades: Ints) -> float:
    """Return the discounted gain, linear in the grade, of a ranking from its top; 10 count."""
    top = grades[:PAGE]
    return float((top / np.log2(np.arange(2, 2 + len(top)))).sum())


def ideal_dcg(grades: Sequence[int]) -> float:
    """Return the largest DCG@10 that items with these grades allow."""
    return dcg(np.array(sorted(grades, reverse=True), np.int64))
