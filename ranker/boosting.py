"""Fits a LambdaMART model to judged searches, with the position bias taken out.

Every feedback is a preference of its own: the item acted on against the other items that the
search showed, weighted by its reward and by one over the probability that its position was
looked at, clipped (Joachims, Swaminathan & Schnabel, 2017). What clipping leaves is absorbed by
a position feature, which serving fixes at 1 (Ling et al., 2017).

Clicks are few and noisy, so a model is held to what is known of its features: more evidence never
lowers a score (`ranker.features.direction`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.examination import Examination
from ranker.features import POSITION, direction
from ranker.lean_xgboost import xgboost
from ranker.model import RankingModel
from ranker.settings import BoostingSettings, TrainingSettings
from ranker.training_set import JudgedDecision, Progress, TrainingSet

_TOP = 50


@dataclass(frozen=True, slots=True)
class Preferences:
    """Groups of rows; in each group the rows with the larger labels are preferred."""

    rows: NDArray[np.float32]
    labels: NDArray[np.float64]
    sizes: NDArray[np.int64]
    weights: NDArray[np.float64]
    """One per group."""


def preferences(
    decisions: Sequence[JudgedDecision],
    position_column: int,
    examination: Examination,
    settings: TrainingSettings,
) -> Preferences:
    """Turn judged searches into preference groups, in order."""
    rows, labels, sizes, weights = [], [], [], []
    for decision in decisions:
        for acted_on in np.flatnonzero(decision.rewards):
            value = decision.rewards[acted_on]
            others = decision.rewards < value if value > 0 else decision.rewards > value
            chosen = np.concatenate([[acted_on], np.flatnonzero(others)])
            if len(chosen) < 2:
                continue
            features = decision.features[chosen]
            shown_at = decision.positions[chosen]
            features[:, position_column] = shown_at if settings.position_feature else 1.0
            label = np.full(len(chosen), 0.0 if value > 0 else 1.0)
            label[0] = 1.0 - label[0]
            weight = abs(value)
            if settings.inverse_propensity:
                weight *= examination.weights(shown_at[:1], largest=settings.max_weight)[0]
            rows.append(features)
            labels.append(label)
            sizes.append(len(chosen))
            weights.append(weight)
    return Preferences(
        np.concatenate(rows) if rows else np.zeros((0, 0), np.float32),
        np.concatenate(labels) if labels else np.zeros(0),
        np.array(sizes, np.int64),
        np.array(weights, float),
    )


def fit(
    data: TrainingSet,
    decisions: Sequence[JudgedDecision],
    examination: Examination,
    settings: TrainingSettings,
    *,
    seed: int,
    progress: Progress,
) -> RankingModel:
    """Train on `decisions`; the same arguments give the same model."""
    position = data.feature_names.index(POSITION)
    pairs = preferences(decisions, position, examination, settings)
    return boost(
        pairs,
        data.feature_names,
        data.feature_version,
        settings.boosting,
        seed=seed,
        progress=progress,
    )


def boost(
    groups: Preferences,
    names: Sequence[str],
    feature_version: str,
    settings: BoostingSettings,
    *,
    seed: int,
    progress: Progress = lambda stage, share: None,
) -> RankingModel:
    """Train on groups of rows with labels: preferences, or graded judgments of whole lists.

    The same arguments give the same model.
    """
    booster = xgboost.train(
        _parameters(settings, names, seed),
        _matrix(groups, settings),
        settings.trees,
        callbacks=[_Report(progress, settings.trees)],
    )
    return RankingModel.label(booster, names, feature_version)


def _matrix(data: Preferences, settings: BoostingSettings) -> xgboost.DMatrix:
    groups = np.repeat(np.arange(len(data.sizes)), data.sizes)
    return xgboost.DMatrix(
        data.rows,
        label=data.labels,
        qid=groups,
        weight=data.weights,
        missing=np.nan,
        nthread=settings.threads or None,
    )


def _parameters(settings: BoostingSettings, names: Sequence[str], seed: int) -> dict[str, object]:
    return {
        "objective": "rank:ndcg",
        "ndcg_exp_gain": False,
        "lambdarank_pair_method": "topk",
        "lambdarank_num_pair_per_sample": _TOP,
        "tree_method": "hist",
        "max_depth": settings.depth,
        "eta": settings.eta,
        "min_child_weight": settings.min_child_weight,
        "lambda": settings.reg_lambda,
        "subsample": settings.subsample,
        "colsample_bytree": settings.colsample,
        "monotone_constraints": tuple(direction(n) if settings.monotone else 0 for n in names),
        "nthread": settings.threads,
        "seed": seed,
    }


class _Report(xgboost.callback.TrainingCallback):
    """Tells how many trees are grown."""

    def __init__(self, progress: Progress, trees: int) -> None:
        self._progress = progress
        self._trees = trees

    def after_iteration(self, model: object, epoch: int, evals_log: object) -> bool:
        self._progress("trees", (epoch + 1) / self._trees)
        return False
