"""The pseudo-inverse weights of a plan, which is a slate: one level for each generator.

If the reward is a sum of what each generator's level adds, a plan need not have been logged as a
whole: it is enough that each of its levels has been (Swaminathan et al., 2017).
"""

from __future__ import annotations

import numpy as np

from orchestrator.bandit.arrays import FloatArray
from orchestrator.bandit.propensity import Action, Distribution

_TOLERANCE = 1e-9


def pseudo_inverse_weight(
    logged: Distribution, target: Distribution, action: Action, levels: int
) -> float:
    """Return E_π[1_a]ᵀ Γ† 1_action, Γ = E_μ[1_a 1_aᵀ], from whole distributions over plans.

    1_a marks the (generator, level) pairs of a plan. With one generator this is the importance
    weight π/μ, and with independent generators Σ_g π_g/μ_g - G + 1.
    """
    actions = list(logged.frequencies)
    shares = np.array([logged.frequencies[a] for a in actions])
    marks = _marks(actions, levels)
    gram = marks.T @ (shares[:, None] * marks)
    wanted = target.marginals(len(action), levels).ravel()
    weight: float = (
        wanted
        @ np.linalg.pinv(gram, rcond=_TOLERANCE, hermitian=True)
        @ _marks([action], levels)[0]
    )
    return float(weight)


def marginal_weight(
    logged: FloatArray,
    target: FloatArray,
    action: Action,
    *,
    draws: int = 0,
    own_share: float = 0.0,
) -> float:
    """Return Σ_g π_g/μ_g - G + 1 from the marginals [G, L] alone: right if μ is a product.

    If the logged action was sampled, by a policy with `own_share` of the traffic whose marginals
    are frequencies of `draws` draws, it counts as one draw more: weights are then unbiased and
    finite. Otherwise marginals of what was logged are above 0.
    """
    rows, chosen = np.arange(len(action)), np.array(action)
    taken = logged[rows, chosen]
    if own_share:
        taken = (taken * draws + own_share) / (draws + 1)
    return float((target[rows, chosen] / taken).sum() - len(action) + 1)


def _marks(actions: list[Action], levels: int) -> FloatArray:
    marks = np.zeros((len(actions), len(actions[0]), levels))
    plans = np.array(actions, dtype=np.int64)
    marks[np.arange(len(actions))[:, None], np.arange(plans.shape[1]), plans] = 1.0
    result: FloatArray = marks.reshape(len(actions), -1)
    return result
