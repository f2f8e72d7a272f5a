"""Which policy serves a request: a fixed, replayable split of the traffic."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.bandit.seeding import unit_interval

UNIFORM = "uniform"
"""The slice served by `UniformPresetsPolicy`."""
FULL = "full"
"""The slice served by `CallEverythingPolicy`."""
MAX_SLICE = 0.5


@dataclass(frozen=True, slots=True)
class Traffic:
    """Shares of the traffic: two exploration slices, and the policies by weight for the rest.

    Raises `ValueError` for a share outside [0, 0.5], no positive weight, or a weight for a slice.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"thompson": 1.0})
    """Relative weight of each policy in what the slices leave."""
    uniform: float = 0.015
    """Share of requests that try a random preset, which keeps every preset supported."""
    full: float = 0.01
    """Share of requests that call everything, which shows what plans leave out."""

    def __post_init__(self) -> None:
        for name, share in ((UNIFORM, self.uniform), (FULL, self.full)):
            if not 0 <= share <= MAX_SLICE:
                raise ValueError(f"the {name} share is in [0, {MAX_SLICE}], got {share}")
        if {UNIFORM, FULL} & self.weights.keys():
            raise ValueError(f"{UNIFORM!r} and {FULL!r} are slices, not weighted policies")
        valid = all(0 <= weight < float("inf") for weight in self.weights.values())
        if not valid or not sum(self.weights.values()) > 0:
            raise ValueError(f"weights must be at least 0 and one above, got {dict(self.weights)}")

    def shares(self) -> dict[str, float]:
        """Return the share of every slice and policy that has any; they sum to 1."""
        rest = 1 - self.uniform - self.full
        total = sum(self.weights.values())
        shares = {UNIFORM: self.uniform, FULL: self.full}
        for name in sorted(self.weights):
            shares[name] = rest * self.weights[name] / total
        return {name: share for name, share in shares.items() if share > 0}

    def assign(self, key: str, *, seed: int) -> str:
        """Return the slice or policy of a request; `key` is its request id or its user id."""
        position = unit_interval(seed, key, "traffic")
        shares = self.shares()
        for name, share in shares.items():
            position -= share
            if position < 0:
                return name
        return next(reversed(shares))

    def with_fallback(self, learned: Collection[str], *, to: str, probe_share: float) -> Traffic:
        """Move the weight of the learned policies to policy `to`, all but `probe_share` of it.

        The probes let a safeguard see when the learned policies have recovered.
        """
        if not 0 <= probe_share <= 1:
            raise ValueError(f"the probe share is in [0, 1], got {probe_share}")
        weights = dict(self.weights)
        for name in sorted(set(learned) & weights.keys() - {to}):
            weights[to] = weights.get(to, 0.0) + weights[name] * (1 - probe_share)
            weights[name] *= probe_share
        return replace(self, weights=weights)
