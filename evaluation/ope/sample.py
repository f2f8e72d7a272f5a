"""What every estimator reads: a log seen through the eyes of one target policy, as arrays.

Two policies meet in each row: the one that logged it, with the probability μ(a|x) it gave to the
action it took, and the target, with its own π(a|x). Where the log came from no longer matters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from forage.errors import InvalidArgumentError
from orchestrator.bandit.arrays import BoolArray, FloatArray

_SLACK = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """n logged decisions in the order they were made; the order matters under adaptive logging.

    Raises `InvalidArgumentError` for no rows, lengths that disagree, numbers that are not finite,
    rewards or target probabilities outside [0, 1], and propensities outside (0, 1].
    """

    reward: FloatArray
    """[n], in [0, 1]."""
    logged: FloatArray
    """μ(a|x) of the action taken, [n], in (0, 1]."""
    target: FloatArray
    """π(a|x) of the action taken, [n], in [0, 1]."""
    features: FloatArray
    """ψ(x, a) of the action taken, for the reward model, [n, p]; column 0 is 1."""
    expected_features: FloatArray
    """Σ_a π(a|x) ψ(x, a), [n, p]: what a linear model needs to value the target."""
    unsupported: FloatArray = field(default_factory=lambda: np.zeros(0))
    """Share of the target's choices in x that the logger could not make, [n]; empty: unknown."""
    additive_weight: FloatArray = field(default_factory=lambda: np.zeros(0))
    """Pseudo-inverse weight of each row, [n], of any sign; empty if there are no slots."""
    covered: FloatArray = field(default_factory=lambda: np.zeros(0))
    """Per full pull, the reward that the target would have covered, in [0, 1]; any number."""
    target_cost: FloatArray = field(default_factory=lambda: np.zeros(0))
    """Σ_a π(a|x) cost(a), [n], cost units; empty if actions cost nothing."""
    logged_cost: FloatArray = field(default_factory=lambda: np.zeros(0))
    """What the action taken cost, [n]; empty likewise."""

    def __post_init__(self) -> None:
        count = len(self.reward)
        if not count:
            raise InvalidArgumentError("log", "it has no usable row", allowed="at least one")
        for name in ("logged", "target", "features", "expected_features"):
            _same_length(name, getattr(self, name), count)
        for name in ("unsupported", "additive_weight", "target_cost", "logged_cost"):
            if len(getattr(self, name)):
                _same_length(name, getattr(self, name), count)
        for name in self.__dataclass_fields__:
            if not np.isfinite(getattr(self, name)).all():
                raise InvalidArgumentError(name, "not a finite number", allowed="finite numbers")
        _within("reward", self.reward, (self.reward >= 0) & (self.reward <= 1), "[0, 1]")
        _within("propensity", self.logged, (self.logged > 0) & (self.logged <= 1), "(0, 1]")
        inside = (self.target >= 0) & (self.target <= 1 + _SLACK)
        _within("target probability", self.target, inside, "[0, 1]")

    @property
    def weight(self) -> FloatArray:
        """The importance weights π(a|x) / μ(a|x), [n]."""
        return self.target / self.logged


def _same_length(name: str, values: FloatArray, count: int) -> None:
    if len(values) != count:
        raise InvalidArgumentError(
            name, f"{len(values)} rows beside {count} rewards", allowed=f"{count} rows"
        )


def _within(name: str, values: FloatArray, inside: BoolArray, allowed: str) -> None:
    if not inside.all():
        row = int(np.flatnonzero(~inside)[0])
        raise InvalidArgumentError(name, f"row {row} has {values[row]}", allowed=allowed)
