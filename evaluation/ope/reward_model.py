"""The reward model behind the direct method and the doubly robust estimator: ridge regression.

A linear model of ψ(x, a) values a whole policy at once, Σ_a π(a|x) θᵀψ(x, a) = θᵀ E_π[ψ], so no
action need be enumerated again for each fold; and what it predicts need not be right for doubly
robust estimates to be.
"""

from __future__ import annotations

import numpy as np

from orchestrator.bandit.arrays import FloatArray

RIDGE = 3.0
"""Rows that a prior of "no influence" counts for, per feature."""
_FOLD_ENDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Where folds end, as shares of the log; the early ones are small, so that little is unmodelled."""


def fit(features: FloatArray, reward: FloatArray, *, ridge: float = RIDGE) -> FloatArray:
    """Return θ, [p], of the ridge regression of rewards on features; column 0 is not shrunk."""
    return _solve(features.T @ features, features.T @ reward, ridge)


def forward_folds(
    features: FloatArray,
    reward: FloatArray,
    expected_features: FloatArray,
    *,
    ridge: float = RIDGE,
) -> tuple[FloatArray, FloatArray]:
    """Return predictions q̂(x, a) of the rows, and v̂(x) of the target: [n] each, cross-fitted.

    Each fold is predicted by a model of the folds before it. So no row predicts itself, and
    under adaptive logging the doubly robust terms remain a martingale, which folds that look
    ahead would break. The first fold is predicted as 0.
    """
    count, width = features.shape
    gram: FloatArray = np.zeros((width, width))
    moment: FloatArray = np.zeros(width)
    taken, valued = np.zeros(count), np.zeros(count)
    start = 0
    for share in _FOLD_ENDS:
        fold = slice(start, max(start, round(share * count)))
        if start:
            theta = _solve(gram, moment, ridge)
            taken[fold], valued[fold] = features[fold] @ theta, expected_features[fold] @ theta
        gram += features[fold].T @ features[fold]
        moment += features[fold].T @ reward[fold]
        start = fold.stop
    return taken, valued


def _solve(gram: FloatArray, moment: FloatArray, ridge: float) -> FloatArray:
    penalty = np.full(len(moment), ridge)
    # The first feature is the constant: shrinking it would pull all predictions towards 0.
    penalty[0] = 1e-6
    theta: FloatArray = np.asarray(
        np.linalg.solve(gram + np.diag(penalty), moment), dtype=np.float64
    )
    return theta
