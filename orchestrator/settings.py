"""What the orchestrator can be told."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator

from forage import channel
from forage.errors import InvalidArgumentError
from forage.settings import ServerSettings, ServiceSettings, Settings
from orchestrator.bandit import Levels, Traffic
from orchestrator.understanding import UnderstandingSettings

POLICIES = ("thompson", "epsilon_greedy", "lints", "static", "full", "uniform")


def _reachable(address: str) -> str:
    try:
        channel.target(address)
    except InvalidArgumentError as error:
        raise ValueError(error.message) from None
    return address


Address = Annotated[str, AfterValidator(_reachable)]
"""Where a service is: `host:port`, `IP:port,IP:port` for replicas, or `dns:///name:port`."""


class GeneratorTarget(Settings):
    """One candidate generator, as the orchestrator sees it."""

    target: Address
    """`host:port` of its server, `IP:port,IP:port` of replicas, or `dns:///name:port`."""
    enabled: bool = True
    """Whether it may be called at all."""
    timeout_ms: int = Field(default=250, ge=1, le=60_000)
    """The most that one call may take; less when the search has less time left."""
    call_cost: float = Field(default=2.0, ge=0, le=1_000)
    """Cost units of calling it at all; a unit is about half a millisecond of one core."""
    candidate_cost: float = Field(default=0.02, ge=0, le=100)
    """Cost units of each candidate asked for, its ranking included."""
    hit_rate: float = Field(default=0.3, gt=0, lt=1)
    """Prior probability that its longest list holds the wanted item."""


class RankerTarget(Settings):
    """The ranker, as the orchestrator sees it."""

    target: Address = "127.0.0.1:7105"
    """As a generator's."""
    timeout_ms: int = Field(default=250, ge=1, le=60_000)
    max_candidates: int = Field(default=300, ge=1, le=2_000)
    """Candidates sent to the ranker; the best by fused score. The rest follow in fused order."""
    feature_rows: int = Field(default=10, ge=0, le=200)
    """For how many of the best items feature values are logged; at least for the first page."""


class BreakerSettings(Settings):
    """When a failing service is left alone."""

    failures: int = Field(default=5, ge=1, le=1_000)
    """Consecutive failures that open the breaker."""
    cool_down_ms: int = Field(default=1_000, ge=1, le=600_000)
    """How long it stays open before one call tries again."""


class HedgeSettings(Settings):
    """When a slow call is made again, to another replica; only if the target has several."""

    most_share: float = Field(default=0.1, ge=0, le=1)
    """Share of a service's calls that may be; 0: none."""
    after_quantile: float = Field(default=0.95, ge=0.5, lt=1)
    """How long a call has before it is: this quantile of the recent latencies,"""
    least_ms: int = Field(default=2, ge=1, le=60_000)
    """but at least this"""
    most_ms: int = Field(default=100, ge=1, le=60_000)
    """and at most this, which is also what holds while few latencies are known."""

    @model_validator(mode="after")
    def _ordered(self) -> HedgeSettings:
        if self.least_ms > self.most_ms:
            raise ValueError("least_ms must not be above most_ms")
        return self


class PlanSettings(Settings):
    """How plans are chosen."""

    fan_outs: tuple[int, ...] = (0, 10, 25, 50, 100)
    """The fan-outs to choose from; the first is 0."""
    budget: int = Field(default=26, ge=1, le=10_000)
    """The most a plan may cost, in cost units."""
    price: float = Field(default=0.001, ge=0, le=1)
    """What a cost unit must bring in coverage; higher calls less."""
    redundancy: float = Field(default=3.0, ge=1, le=50)
    """How much generators find the same items; 1 if each finds by itself, more calls fewer."""
    exploration: float = Field(default=0.3, ge=0, le=10)
    """Scale of the posterior's spread in Thompson draws; 1 is Thompson sampling."""
    epsilon: float = Field(default=0.05, ge=0, le=1)
    """Share of random presets in the ε-greedy policy."""
    lints_scale: float = Field(default=0.5, gt=0, le=10)
    """Noise scale of the LinTS policy."""
    traffic: dict[str, float] = Field(default_factory=lambda: {"thompson": 1.0})
    """Weight of each policy in the traffic that the slices leave."""
    uniform_share: float = Field(default=0.015, ge=0, le=0.5)
    """Share of traffic that draws uniformly from the presets."""
    full_share: float = Field(default=0.01, ge=0, le=0.5)
    """Share of traffic that calls everything."""
    static: dict[str, int] = Field(
        default_factory=lambda: {"lexical": 50, "semantic": 25, "graph": 25, "memory": 10}
    )
    """Fan-outs of the static policy."""
    presets: tuple[dict[str, int], ...] = (
        {"lexical": 50, "memory": 10},
        {"lexical": 50, "semantic": 25, "graph": 25, "memory": 10},
        {"semantic": 100, "memory": 10, "exploration": 10},
        {"lexical": 25, "graph": 50, "memory": 25, "exploration": 10},
    )
    """Plans that the uniform slice draws from, and that the learned policy is compared with."""
    propensity_draws: int = Field(default=128, ge=0, le=10_000)
    """Monte-Carlo draws behind each logged propensity; 0 logs none."""
    seed: int = Field(default=20261122, ge=0, lt=2**63)
    """Seed from which every request's randomness is derived."""

    @field_validator("traffic")
    @classmethod
    def _known(cls, traffic: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(traffic) - {"thompson", "epsilon_greedy", "lints", "static"})
        if unknown:
            raise ValueError(
                f"unknown policies {unknown}; allowed: thompson, epsilon_greedy, lints, static"
            )
        return traffic

    @model_validator(mode="after")
    def _consistent(self) -> PlanSettings:
        Levels(self.fan_outs)
        self.split()
        for plan in (self.static, *self.presets):
            wrong = sorted(set(plan.values()) - set(self.fan_outs))
            if wrong:
                raise ValueError(f"fan-outs {wrong} are not among {self.fan_outs}")
        return self

    def split(self) -> Traffic:
        """Return the traffic split."""
        return Traffic(self.traffic, uniform=self.uniform_share, full=self.full_share)


class LearnerSettings(Settings):
    """How the bandit learns."""

    enabled: bool = True
    """Whether this orchestrator may become the learner (one at a time is, by lease)."""
    delay_s: float = Field(default=10.0, ge=0, le=3_600)
    """How long a search waits for feedback before it is learned from; later feedback corrects."""
    unengaged_ratio: float = Field(default=2.0, ge=0, le=1_000)
    """How many searches without feedback are learned from per search with feedback, at most."""
    publish_every_s: float = Field(default=2.0, ge=0.05, le=3_600)
    """At most one snapshot in this time."""
    keep_snapshots: int = Field(default=200, ge=2, le=100_000)
    """Snapshots kept for replay."""
    half_life_days: float = Field(default=30.0, gt=0, le=3_650)
    """Wall-clock half-life of what was learned."""
    keep_of_changed: float = Field(default=0.25, ge=0, le=1)
    """Share of what was learned about a generator that still holds when it says that it has another
    version: another engine, model, schema or setting. 1 keeps everything."""
    bias_precision: float = Field(default=1.0, gt=0, le=1e6)
    """Certainty of the prior hit rates."""
    weight_precision: float = Field(default=4.0, gt=0, le=1e6)
    """Certainty that other features do not matter; larger shrinks towards a static plan."""


class ExplorationSlots(Settings):
    """Places on the first page kept for items that the ranker would not show yet."""

    positions: tuple[int, ...] = (5, 9)
    """Which positions (from 1) may be given away."""
    probability: float = Field(default=0.2, ge=0, le=1)
    """Chance, per search and position, that it is."""
    pool: int = Field(default=5, ge=1, le=100)
    """How many of the exploration generator's candidates are drawn from, by their scores."""
    user_budget_per_day: int = Field(default=20, ge=0, le=1_000)
    """At most so many per user and day; anonymous users share none."""

    @field_validator("positions")
    @classmethod
    def _from_one(cls, positions: tuple[int, ...]) -> tuple[int, ...]:
        if any(p < 1 for p in positions) or len(set(positions)) != len(positions):
            raise ValueError("positions start at 1 and do not repeat")
        return tuple(sorted(positions))


class LoadSettings(Settings):
    """What happens when more searches arrive than can be served well."""

    soft_limit: int = Field(default=12, ge=1, le=100_000)
    """Searches in progress beyond which the plan's budget shrinks."""
    hard_limit: int = Field(default=96, ge=1, le=100_000)
    """Searches in progress beyond which new ones fail with RESOURCE_EXHAUSTED."""
    least_budget_share: float = Field(default=0.4, gt=0, le=1)
    """The budget never shrinks below this share."""

    @model_validator(mode="after")
    def _ordered(self) -> LoadSettings:
        if self.soft_limit >= self.hard_limit:
            raise ValueError("soft_limit must be below hard_limit")
        return self


class OrchestratorSettings(ServiceSettings):
    """Everything the orchestrator can be told."""

    server: ServerSettings = ServerSettings(port=7100)
    generators: dict[str, GeneratorTarget] = Field(
        default_factory=lambda: {
            "lexical": GeneratorTarget(target="127.0.0.1:7101", hit_rate=0.6),
            "semantic": GeneratorTarget(
                target="127.0.0.1:7102", call_cost=12, candidate_cost=0.03, hit_rate=0.4
            ),
            "graph": GeneratorTarget(
                target="127.0.0.1:7103", call_cost=4, candidate_cost=0.03, hit_rate=0.4
            ),
            "memory": GeneratorTarget(target="127.0.0.1:7104", hit_rate=0.5),
            "exploration": GeneratorTarget(target="127.0.0.1:7106", hit_rate=0.1),
        },
        min_length=1,
    )
    """The mesh, by generator name, in the order that contexts and plans use."""
    ranker: RankerTarget = RankerTarget()
    deadline_ms: int = Field(default=1_000, ge=50, le=60_000)
    """Time for a search whose caller sets no deadline."""
    page_size: int = Field(default=10, ge=1, le=100)
    """Results per page unless the request says otherwise."""
    max_page_size: int = Field(default=100, ge=1, le=1_000)
    fusion_k: int = Field(default=20, ge=1, le=1_000)
    """k of reciprocal rank fusion (Cormack, Clarke & Büttcher, 2009)."""
    understanding: UnderstandingSettings = UnderstandingSettings()
    plan: PlanSettings = PlanSettings()
    learner: LearnerSettings = LearnerSettings()
    slots: ExplorationSlots = ExplorationSlots()
    breaker: BreakerSettings = BreakerSettings()
    hedge: HedgeSettings = HedgeSettings()
    load: LoadSettings = LoadSettings()

    @model_validator(mode="after")
    def _generators_known(self) -> OrchestratorSettings:
        for plan in (self.plan.static, *self.plan.presets):
            unknown = sorted(set(plan) - set(self.generators))
            if unknown:
                raise ValueError(f"plan: generators {unknown} are not configured")
        return self

    def cost(self, generator: str, fan_out: int) -> int:
        """Return what asking a generator for `fan_out` candidates costs, in whole cost units."""
        if fan_out == 0:
            return 0
        target = self.generators[generator]
        return math.ceil(target.call_cost + target.candidate_cost * fan_out)
