"""A trained ranking model, ready to score."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from forage.errors import FailedPreconditionError
from forage.registry import ArtifactInfo
from ranker.lean_xgboost import xgboost

KIND = "ranker"
"""The registry's kind of artifact."""
FEATURE_VERSION = "feature_version"
_NAMES = "feature_names"
_FORMAT = "ubj"

Scores = NDArray[np.float64]


class RankingModel:
    """An XGBoost ensemble that knows which features it wants. Immutable and thread-safe."""

    def __init__(self, booster: xgboost.Booster) -> None:
        """Take over a booster made by `fit` or `load`."""
        self._booster = booster
        self._booster.set_param({"nthread": 1})
        self.feature_names: tuple[str, ...] = tuple(json.loads(booster.attr(_NAMES) or "[]"))
        self.feature_version: str = booster.attr(FEATURE_VERSION) or ""

    @classmethod
    def label(
        cls, booster: xgboost.Booster, names: Sequence[str], feature_version: str
    ) -> RankingModel:
        """Write into a freshly trained booster which features it was trained on."""
        booster.set_attr(**{_NAMES: json.dumps(list(names)), FEATURE_VERSION: feature_version})
        return cls(booster)

    @classmethod
    def load(cls, payload: bytes) -> RankingModel:
        """Read what `save` wrote; raises `FailedPreconditionError` if it is not a model."""
        booster = xgboost.Booster()
        try:
            booster.load_model(bytearray(payload))
        except xgboost.core.XGBoostError as error:
            first = str(error).strip().splitlines()[0]
            raise FailedPreconditionError(f"the ranker model cannot be read: {first}") from error
        return cls(booster)

    def save(self) -> bytes:
        """Return the model as bytes; equal models give equal bytes."""
        return bytes(self._booster.save_raw(_FORMAT))

    @property
    def trees(self) -> int:
        """How many trees are summed."""
        return int(self._booster.num_boosted_rounds())

    def check(self, names: Sequence[str], feature_version: str) -> None:
        """Raise `FailedPreconditionError` unless it was trained on exactly these features."""
        if self.feature_version == feature_version and self.feature_names == tuple(names):
            return
        lost = sorted(set(self.feature_names) - set(names))
        added = sorted(set(names) - set(self.feature_names))
        raise FailedPreconditionError(
            f"the ranker model was trained on feature version '{self.feature_version}', this"
            f" ranker computes '{feature_version}' (model only: {', '.join(lost) or 'none'};"
            f" ranker only: {', '.join(added) or 'none'}): train again"
        )

    def scores(self, matrix: NDArray[np.float32]) -> Scores:
        """Return one score per row of a feature matrix; NaN is a missing value."""
        if not len(matrix):
            return np.zeros(0)
        raw = self._booster.inplace_predict(
            matrix, predict_type="margin", missing=np.nan, validate_features=False
        )
        return np.asarray(raw, float)

    def contributions(self, matrix: NDArray[np.float32]) -> Scores:
        """Return what each feature adds to each score (TreeSHAP), and the bias last.

        Shape (rows, features + 1); rows sum to the scores (Lundberg, Erion & Lee, 2018).
        """
        rows = xgboost.DMatrix(matrix, missing=np.nan, nthread=1)
        found = self._booster.predict(rows, pred_contribs=True, validate_features=False)
        return np.asarray(found, float)

    def warm_up(self) -> None:
        """Score once, so that the first request does not pay for lazy initialisation."""
        rows = np.full((2, len(self.feature_names)), np.nan, np.float32)
        self.scores(rows)
        self.contributions(rows)


class PublishedModel:
    """A model together with what the registry knows of it."""

    __slots__ = ("info", "model")

    def __init__(self, info: ArtifactInfo, model: RankingModel) -> None:
        self.info = info
        self.model = model
