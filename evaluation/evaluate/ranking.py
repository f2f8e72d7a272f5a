"""The ranker, trained by its own trainer on judgments instead of clicks, and what it orders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.collections.collection import Collection
from evaluation.evaluate.recording import Found, Plan
from evaluation.mesh import Mesh
from ranker.boosting import Preferences, boost
from ranker.model import RankingModel
from ranker.settings import BoostingSettings

BOOSTING = BoostingSettings(trees=250, eta=0.05, depth=4, reg_lambda=2.0, monotone=False, threads=1)
"""One setting for every collection: slower and shallower than for a log of many thousand searches,
because there are a few hundred judged queries at most; and free of directions, which are there for
clicks (ADR 19): judgments are certain."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The candidates of one topic under one plan, as the ranker sees them."""

    query_id: str
    item_ids: Sequence[str]
    """In fused order."""
    matrix: NDArray[np.float32]
    gains: NDArray[np.float64]
    """0 for items that are not judged."""


def judge(mesh: Mesh, collection: Collection, found: Found, plan: Plan) -> Judged:
    """Return the features that the ranker would compute for a plan's candidates."""
    lists = found.lists(plan)
    most = mesh.settings.orchestrator.ranker.max_candidates
    candidates = mesh.fuse(lists)[:most]
    called = {name: plan[name] for name in lists}
    judged = collection.judgments[found.topic.query_id]
    return Judged(
        found.topic.query_id,
        [c.item_id for c in candidates],
        mesh.matrix(found.query, candidates, called),
        np.array([float(judged.get(c.item_id, 0)) for c in candidates]),
    )


def train(
    mesh: Mesh, judged: Iterable[Judged], settings: BoostingSettings, *, seed: int
) -> RankingModel:
    """Train on whole lists with their gains; lists without a relevant item teach nothing."""
    lists = [j for j in judged if j.gains.any() and not j.gains.all()]
    groups = Preferences(
        np.concatenate([j.matrix for j in lists]),
        np.concatenate([j.gains for j in lists]),
        np.array([len(j.gains) for j in lists]),
        np.ones(len(lists)),
    )
    return boost(groups, mesh.features.names, mesh.features.version, settings, seed=seed)


def order(model: RankingModel, judged: Judged) -> list[str]:
    """Return the candidates best first; ties keep the fused order, as in the service."""
    places = np.argsort(-model.scores(judged.matrix), kind="stable")
    return [judged.item_ids[place] for place in places]


def orders(model: RankingModel, judged: Iterable[Judged]) -> Mapping[str, list[str]]:
    """Return the ordered candidates by query id."""
    return {j.query_id: order(model, j) for j in judged}
