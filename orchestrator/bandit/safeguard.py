"""The safeguard: the learned plan never does worse than the best static plan for long.

It compares the discounted mean value of requests served by the learned policy with that of every
static preset, all randomly assigned, so the comparison is unbiased. `value` is the reward net of
price × cost: then no *mixture* of static plans can beat the best single one, and one preset is
all there is to fall back to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

LEARNED = "learned"
"""The arm that stands for the learned policy; no preset may have this name."""


@dataclass(frozen=True, slots=True)
class SafeguardSettings:
    """When to fall back and when to return; `ValueError` for values out of range."""

    half_life_s: float = 3 * 86_400.0
    """Wall-clock half-life of the evidence, seconds, above 0."""
    min_evidence: float = 200.0
    """Effective sample size both sides need before anything is concluded, at least 2."""
    enter_z: float = 3.0
    """Fall back when learned is this many standard errors below the best preset."""
    leave_z: float = 1.0
    """Return when it is less than this many below; smaller than `enter_z` (hysteresis)."""
    probe_share: float = 0.1
    """Share of its traffic the learned policy keeps while fallen back, in (0, 1]."""

    def __post_init__(self) -> None:
        if not (self.half_life_s > 0 and self.min_evidence >= 2 and 0 < self.probe_share <= 1):
            raise ValueError(f"safeguard settings are out of range: {self}")
        if not self.leave_z < self.enter_z:
            raise ValueError("leave_z must be smaller than enter_z")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A discounted mean value with its standard error and effective sample size."""

    mean: float
    standard_error: float
    evidence: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the safeguard currently says."""

    fallen_back: bool
    best_preset: str
    """The preset to fall back to; empty while none has enough evidence."""
    z: float
    """(learned - best preset) / standard error; 0 while evidence is missing."""


@dataclass(slots=True)
class _Arm:
    """Exponentially discounted sums of one arm, as of `time`."""

    time: float = 0.0
    weight: float = 0.0
    weight_squared: float = 0.0
    total: float = 0.0
    total_squared: float = 0.0

    def add(self, value: float, time: float, weight: float, half_life_s: float) -> None:
        if time >= self.time:
            self._decay(0.5 ** ((time - self.time) / half_life_s) if self.weight else 1.0)
            self.time = time
        else:
            weight *= 0.5 ** ((self.time - time) / half_life_s)
        self.weight += weight
        self.weight_squared += weight * weight
        self.total += weight * value
        self.total_squared += weight * value * value

    def estimate(self) -> Estimate:
        if self.weight <= 0 or self.weight_squared <= 0:
            return Estimate(0.0, math.inf, 0.0)
        evidence = self.weight * self.weight / self.weight_squared
        mean = self.total / self.weight
        spread = max(self.total_squared / self.weight - mean * mean, 0.0)
        # Values that never varied yet are not certain: add the variance one other value would.
        spread += 0.25 / (evidence + 1)
        return Estimate(mean, math.sqrt(spread / evidence), evidence)

    def _decay(self, keep: float) -> None:
        self.weight *= keep
        self.weight_squared *= keep * keep
        self.total *= keep
        self.total_squared *= keep


class Safeguard:
    """Watches the learned policy against the static presets, with hysteresis.

    Deterministic: its state is a function of the observations, in order, and of nothing else.
    """

    def __init__(self, settings: SafeguardSettings | None = None) -> None:
        self.settings = settings or SafeguardSettings()
        self._arms: dict[str, _Arm] = {}
        self._fallen_back = False

    def observe(self, arm: str, value: float, *, time: float, weight: float = 1.0) -> None:
        """Take in the value of one request served by `arm` at `time`; late ones count less.

        `weight` may be an importance weight. Raises `ValueError` unless all are finite and
        `weight` is not negative.
        """
        if not (math.isfinite(value) and math.isfinite(time) and math.isfinite(weight)):
            raise ValueError(f"value, time and weight must be finite, got {value, time, weight}")
        if weight < 0:
            raise ValueError(f"a weight is at least 0, got {weight}")
        self._arms.setdefault(arm, _Arm()).add(value, time, weight, self.settings.half_life_s)
        best, z = self._compare()
        if best:
            bound = self.settings.leave_z if self._fallen_back else self.settings.enter_z
            self._fallen_back = z < -bound

    def estimate(self, arm: str) -> Estimate:
        """Return what is known of an arm; no evidence and an infinite error if nothing is."""
        return self._arms[arm].estimate() if arm in self._arms else _Arm().estimate()

    def verdict(self) -> Verdict:
        """Return whether to fall back, and to what."""
        best, z = self._compare()
        return Verdict(self._fallen_back and bool(best), best, z)

    def to_state(self) -> dict[str, object]:
        """Return the state as JSON-compatible values."""
        arms = {name: asdict(arm) for name, arm in sorted(self._arms.items())}
        return {"fallen_back": self._fallen_back, "arms": arms}

    @classmethod
    def from_state(
        cls, state: Mapping[str, object], settings: SafeguardSettings | None = None
    ) -> Safeguard:
        """Rebuild from `to_state`; raises `ValueError` if the state is not one."""
        safeguard = cls(settings)
        arms, fallen_back = state.get("arms"), state.get("fallen_back")
        if not isinstance(arms, dict) or not isinstance(fallen_back, bool):
            raise ValueError("not a safeguard state")
        try:
            safeguard._arms = {
                str(name): _Arm(**{key: float(number) for key, number in sums.items()})
                for name, sums in arms.items()
            }
        except (AttributeError, TypeError) as error:
            raise ValueError(f"not a safeguard state: {error}") from error
        safeguard._fallen_back = fallen_back
        return safeguard

    def _compare(self) -> tuple[str, float]:
        """Return the best preset by lower confidence bound, and how learned compares with it."""
        minimum = self.settings.min_evidence
        presets = {
            name: estimate
            for name, arm in self._arms.items()
            if name != LEARNED and (estimate := arm.estimate()).evidence >= minimum
        }
        if not presets:
            return "", 0.0
        # The lower bound, not the mean: the largest of several noisy means is too large.
        best = max(sorted(presets), key=lambda n: presets[n].mean - presets[n].standard_error)
        learned = self.estimate(LEARNED)
        if learned.evidence < minimum:
            return best, 0.0
        error = math.hypot(learned.standard_error, presets[best].standard_error)
        return best, (learned.mean - presets[best].mean) / error
