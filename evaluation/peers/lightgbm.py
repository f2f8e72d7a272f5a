"""LightGBM's LambdaMART on the same ranking data, with the settings of its own example."""

from __future__ import annotations

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ranker.boosting import Preferences

_PARAMETERS: dict[str, object] = {
    "objective": "lambdarank",
    "learning_rate": 0.1,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "min_sum_hessian_in_leaf": 5.0,
    "bagging_freq": 1,
    "bagging_fraction": 0.9,
    "num_threads": 1,
    "deterministic": True,
    "verbosity": -1,
}
_TREES = 100


class LightGbmRanker:
    """A trained model; labels are whole numbers from 0 to 30."""

    def __init__(self, groups: Preferences, *, seed: int) -> None:
        """Train on graded groups, whose labels are gained as 2^label - 1."""
        data = lightgbm.Dataset(groups.rows, groups.labels, group=groups.sizes)
        self._booster = lightgbm.train({**_PARAMETERS, "seed": seed}, data, _TREES)

    def scores(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return one score per row."""
        return np.asarray(self._booster.predict(matrix), float)
