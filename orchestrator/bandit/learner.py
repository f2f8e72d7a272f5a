"""The learner: observations in, snapshots out. One per mesh; it owns the only mutable posteriors.

Deterministic: its state depends on the observations, their times and their order alone, never on
the wall clock or on when snapshots are taken. Replaying the log gives the same beliefs, bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.bandit import hazard, linear
from orchestrator.bandit.levels import Levels
from orchestrator.bandit.observation import Observation
from orchestrator.bandit.posterior import GaussianPosterior
from orchestrator.bandit.safeguard import Safeguard, SafeguardSettings
from orchestrator.bandit.snapshot import Snapshot, SnapshotMismatchError


@dataclass(frozen=True, slots=True)
class LearnerSettings:
    """What is learned about and from which prior; `ValueError` for values out of range."""

    generators: tuple[str, ...]
    features: tuple[str, ...]
    feature_version: str
    levels: Levels = field(default_factory=Levels)
    hit_rates: Mapping[str, float] = field(default_factory=dict)
    """Prior probability that a generator's longest list holds the wanted item, in (0, 1)."""
    default_hit_rate: float = 0.3
    """The same for generators not stated."""
    bias_precision: float = 1.0
    """Certainty of the stated hit rates: 1 / variance of the bias weight of each hazard."""
    weight_precision: float = 4.0
    """1 / variance of all other weights; larger shrinks the plan towards a static one."""
    ridge: float = 1.0
    """λ of the linear model."""
    half_life_s: float = 30 * 86_400.0
    """Wall-clock half-life of what was learned, seconds; infinite never forgets."""
    discount_step_s: float = 3_600.0
    """Forgetting happens when event time crosses a multiple of this, seconds."""
    safeguard: SafeguardSettings = field(default_factory=SafeguardSettings)
    params: Mapping[str, float] = field(default_factory=dict)
    """Policy parameters to publish with every snapshot."""

    def __post_init__(self) -> None:
        if not (self.half_life_s > 0 and 0 < self.discount_step_s < math.inf):
            raise ValueError("half_life_s and discount_step_s must be above 0")

    def hazard_posterior(self) -> GaussianPosterior:
        """Return the hazard model at its prior."""
        prior = hazard.hazard_prior(
            hit_rates=self.hit_rates,
            default_hit_rate=self.default_hit_rate,
            buckets=self.levels.buckets,
            features=len(self.features),
            bias_precision=self.bias_precision,
            weight_precision=self.weight_precision,
        )
        return GaussianPosterior(self.generators, prior)

    def linear_posterior(self) -> GaussianPosterior:
        """Return the linear model at its prior."""
        prior = linear.linear_prior(
            hit_rates=self.hit_rates,
            default_hit_rate=self.default_hit_rate,
            buckets=self.levels.buckets,
            features=len(self.features),
            ridge=self.ridge,
        )
        return GaussianPosterior(self.generators, prior)


class Learner:
    """Learns both models and keeps the safeguard."""

    def __init__(self, settings: LearnerSettings) -> None:
        """Start from the prior."""
        self._settings = settings
        self.hazard = settings.hazard_posterior()
        self.linear = settings.linear_posterior()
        self.safeguard = Safeguard(settings.safeguard)
        self._time = 0.0
        self._sequence = 0
        self._version = 0

    @classmethod
    def restore(
        cls, settings: LearnerSettings, snapshot: Snapshot | None
    ) -> tuple[Learner, list[str]]:
        """Continue from a snapshot; return the learner and what a person should know of it.

        A snapshot of other features or levels cannot be continued: the learner is then at its
        prior, keeps counting versions, and its `sequence` is 0, so that the log is replayed.
        Generators the snapshot does not know start at their prior.
        """
        learner = cls(settings)
        if snapshot is None:
            return learner, ["no snapshot: starting from the prior"]
        learner._version = snapshot.version
        try:
            snapshot.require(
                features=settings.features,
                feature_version=settings.feature_version,
                levels=settings.levels,
            )
        except SnapshotMismatchError as error:
            return learner, [f"{error.message}: starting from the prior"]
        learner.hazard, learner.linear = snapshot.hazard.thawed(), snapshot.linear.thawed()
        learner.safeguard = Safeguard.from_state(snapshot.safeguard, settings.safeguard)
        learner._time, learner._sequence = snapshot.created, snapshot.sequence
        new = [name for name in settings.generators if name not in snapshot.generators]
        for name in new:
            learner.hazard.register(name)
            learner.linear.register(name)
        return learner, [f"generator {name} is new: starting from its prior" for name in new]

    @property
    def sequence(self) -> int:
        """The last sequence of the log that was learned from; 0 if none."""
        return self._sequence

    def observe(
        self,
        observation: Observation,
        *,
        time: float,
        sequence: int,
        added: Observation | None = None,
    ) -> None:
        """Learn from one decision whose feedback is complete.

        `time` is when the record was appended, in log order; going backwards forgets nothing.
        `added` is the same decision with each find credited once: the hazards, which plans add
        up, learn from it, so that what two generators find is not counted twice.
        """
        self.advance(time=time, sequence=sequence)
        hazard.learn(self.hazard, added or observation)
        linear.learn(self.linear, observation)

    def advance(self, *, time: float, sequence: int) -> None:
        """Let time pass: forget in whole steps, so that batch boundaries do not matter."""
        if not math.isfinite(time):
            raise ValueError(f"a time must be finite, got {time}")
        step = self._settings.discount_step_s
        steps = math.floor(time / step) - math.floor(self._time / step)
        if steps > 0 and self._time > 0:
            keep = 0.5 ** (steps * step / self._settings.half_life_s)
            self.hazard.pull_to_prior(keep)
            self.linear.pull_to_prior(keep)
        self._time = max(self._time, time)
        self._sequence = max(self._sequence, sequence)

    def generator_changed(self, generator: str, *, keep: float) -> None:
        """Widen the beliefs about a generator whose model or index changed.

        `keep` in [0, 1] is the share of what was learned that still holds; 0 forgets it all.
        """
        self.hazard.pull_to_prior(keep, generator)
        self.linear.pull_to_prior(keep, generator)

    def snapshot(self) -> Snapshot:
        """Publish: return an immutable copy with the next version."""
        self._version += 1
        return Snapshot(
            version=self._version,
            created=self._time,
            sequence=self._sequence,
            feature_version=self._settings.feature_version,
            features=self._settings.features,
            levels=self._settings.levels,
            hazard=self.hazard.frozen(),
            linear=self.linear.frozen(),
            safeguard=self.safeguard.to_state(),
            params=dict(self._settings.params),
        )
