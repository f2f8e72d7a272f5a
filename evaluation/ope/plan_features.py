"""ψ(x, a): a plan in its context, as the numbers that the reward model is linear in."""

from __future__ import annotations

import numpy as np

from orchestrator.bandit.arrays import FloatArray, IntArray


def plan_features(
    phi: FloatArray, actions: IntArray, shares: FloatArray, levels: int
) -> FloatArray:
    """Return Σ_k shares_k ψ(x, actions_k), [p]; the shares sum to 1, so ψ itself for one action.

    `phi` is the context, [G, d], with a first column of ones; `actions` are levels, [K, G]. The
    features are the context (its mean over generators), each generator's level, its context if
    it is called, and which pairs are called: what one finds, another need not find again.
    """
    generators = len(phi)
    called = (actions > 0).astype(np.float64)
    at_level = np.stack(
        [((actions == level) * shares[:, None]).sum(axis=0) for level in range(1, levels)]
    )
    pairs = called.T @ (shares[:, None] * called)
    above = np.triu_indices(generators, 1)
    calls = np.diag(pairs)
    return np.concatenate(
        [phi.mean(axis=0), at_level.T.ravel(), (calls[:, None] * phi[:, 1:]).ravel(), pairs[above]]
    )
