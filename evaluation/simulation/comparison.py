"""All contenders on the same requests: the product's policies, the baselines and the peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

import numpy as np

from evaluation.bootstrap import Interval
from evaluation.simulation import traffic
from evaluation.simulation.contenders import (
    MixtureContender,
    PlannerContender,
    StaticContender,
    best_mixture,
    candidate_plans,
    cost_of,
    everything,
    measured,
)
from evaluation.simulation.oracle import ContextualOracle, OracleContender
from evaluation.simulation.pages import Pages
from evaluation.simulation.replay import (
    Change,
    Contender,
    FanOuts,
    Replay,
    Trace,
    Users,
)
from evaluation.simulation.traffic import Stream
from evaluation.simulation.warm_up import DAY, NOW, Scene, WarmUp
from orchestrator.bandit import Snapshot
from orchestrator.settings import OrchestratorSettings

LEARNED = "thompson"
ORACLE = "class oracle"
"""The product's model, taught by full pulls of other traffic of the same needs."""
CONTEXTUAL = "contextual oracle"
"""The best plan of every need; see `oracle`."""
BEST_PLAN = "best plan"
BEST_MIX = "best mix"
EVERYTHING = "call everything"
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class ComparisonSettings:
    """What is compared, and for how long."""

    requests: int = 8_000
    seeds: tuple[int, ...] = (1, 2, 3)
    users: Users = field(default_factory=Users)
    budget_share: float = 0.4
    """Mean cost a static mixture may have, as a share of calling everything."""
    arms: int = 24
    """Static plans that the peers choose among."""
    hindsight_plans: int = 24
    """Static plans that are ranked to find the best in hindsight."""
    hindsight_requests: int = 600
    """Requests of the same traffic that they are ranked on."""
    oracle_pages: int = 100
    """Plans that the contextual oracle ranks per need, at most."""


@dataclass(frozen=True, slots=True)
class Hindsight:
    """The best that a configuration could have been, chosen on the traffic itself."""

    plans: Sequence[FanOuts]
    costs: Sequence[float]
    ndcg: Sequence[float]
    net: Sequence[float]
    best_plan: FanOuts
    mix: Sequence[FanOuts]
    chances: Sequence[float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Traces by contender, one per seed, over streams that all contenders share."""

    settings: ComparisonSettings
    generators: Sequence[str]
    price: float
    full_cost: float
    traces: Mapping[str, Sequence[Trace]]
    held_out: Sequence[np.ndarray]
    """Per seed, which requests ask a need that nothing was trained on."""
    hindsight: Hindsight
    exact: float
    """Share of the needs whose best plan is proven to be the contextual oracle's."""


class Comparer:
    """Runs contenders over one scene."""

    def __init__(
        self,
        scene: Scene,
        settings: OrchestratorSettings,
        warm_up: WarmUp,
        options: ComparisonSettings,
        progress: Progress = lambda stage, share: None,
    ) -> None:
        self.scene = scene
        self.settings = settings
        self.pages: Pages = scene.pages(settings)
        self.options = options
        self._warm_up = warm_up
        self._progress = progress
        topics = scene.topics()
        self.weights = traffic.popularity(topics, warm_up.mix, warm_up.seed)
        self.plans = candidate_plans(
            settings, scene.questions, self.weights, keep=options.hindsight_plans
        )

    def stream(self, seed: int, requests: int = 0) -> Stream:
        """Return the traffic after the cut: all needs, later than everything trained on."""
        return traffic.stream(
            self.scene.topics(),
            np.ones(len(self.scene.questions), bool),
            requests or self.options.requests,
            start=NOW + (self._warm_up.days + 1) * DAY,
            mix=self._warm_up.mix,
            seed=1_000 + seed,
            order_seed=self._warm_up.seed,
        )

    def replay(self, seed: int) -> Replay:
        """Return the replay of a seed: the same users for every contender."""
        return Replay(self.pages, self.settings, self.options.users, seed=seed)

    def hindsight(self) -> Hindsight:
        """Rank the candidate plans on a sample of the traffic and pick the best."""
        asked = self.stream(0, self.options.hindsight_requests).questions
        weights = np.bincount(asked, minlength=len(self.scene.questions)).astype(float)
        rewards, ndcg = measured(
            self.replay(0), self.pages, self.plans, self.scene.questions, weights
        )
        costs = np.array([cost_of(self.settings, plan) for plan in self.plans], float)
        net = rewards - self.settings.plan.price * costs
        affordable = np.where(costs <= self.settings.plan.budget, net, -np.inf)
        full = cost_of(self.settings, everything(self.settings))
        places, chances = best_mixture(costs, ndcg, self.options.budget_share * full)
        return Hindsight(
            plans=self.plans,
            costs=costs.tolist(),
            ndcg=ndcg.tolist(),
            net=net.tolist(),
            best_plan=self.plans[int(np.argmax(affordable))],
            mix=[self.plans[i] for i in places],
            chances=chances,
        )

    def oracle(self, changes: Sequence[Change], *, seed: int, passes: int = 2) -> Snapshot:
        """Return what the product's model believes after seeing everything of the traffic.

        It is taught by full pulls of `passes` times another stream of the same traffic, and so
        knows what contexts and model class allow before the first request.
        """
        teacher = PlannerContender(self.settings, name="teacher", override="full")
        for number in range(passes):
            stream = self.stream(seed)
            later = stream.times + number * (stream.times[-1] - stream.times[0] + 1)
            self.replay(seed).run(teacher, Stream(stream.questions, later), changes)
        return teacher.snapshot()

    def greedy(self, snapshot: Snapshot) -> PlannerContender:
        """Return the contender that plans for what a snapshot expects, and never explores."""
        plan = self.settings.plan.model_copy(
            update={"exploration": 0.0, "uniform_share": 0.0, "full_share": 0.0}
        )
        settings = self.settings.model_copy(update={"plan": plan})
        params = {**snapshot.params, "exploration": 0.0}
        return PlannerContender(settings, name=ORACLE, frozen=replace(snapshot, params=params))

    def policy(self, name: str) -> PlannerContender:
        """Return a learned policy of the product with the shipped exploration slices."""
        plan = self.settings.plan.model_copy(update={"traffic": {name: 1.0}})
        settings = self.settings.model_copy(update={"plan": plan})
        return PlannerContender(settings, name=name)

    def contenders(self, hindsight: Hindsight, *, seed: int) -> Iterator[Contender]:
        """Yield everyone but the oracle."""
        settings = self.settings
        yield from (self.policy(name) for name in (LEARNED, "epsilon_greedy", "lints"))
        yield from self.peers(seed)
        presets = [
            tuple(preset.get(name, 0) for name in settings.generators)
            for preset in settings.plan.presets
        ]
        uniform = [1 / len(presets)] * len(presets)
        yield MixtureContender(settings, presets, uniform, name="uniform", seed=seed)
        static = tuple(settings.plan.static.get(name, 0) for name in settings.generators)
        yield StaticContender(settings, static, name="static")
        yield StaticContender(settings, hindsight.best_plan, name=BEST_PLAN)
        yield MixtureContender(settings, hindsight.mix, hindsight.chances, name=BEST_MIX, seed=seed)
        yield StaticContender(settings, everything(settings), name=EVERYTHING)

    def peers(self, seed: int) -> Iterator[Contender]:
        """Yield the other libraries that are installed, choosing among plans of all costs."""
        affordable = [
            p for p in self.plans if cost_of(self.settings, p) <= self.settings.plan.budget
        ]
        spread = np.linspace(0, len(affordable) - 1, min(self.options.arms, len(affordable)))
        arms = [affordable[i] for i in np.unique(spread.round().astype(int)).tolist()]
        if find_spec("vowpalwabbit"):
            from evaluation.peers.vowpal import VowpalContender

            for option, name in (("--squarecb", "vw squarecb"), ("--epsilon 0.05", "vw epsilon")):
                yield VowpalContender(self.settings, arms, exploration=option, name=name, seed=seed)
        if find_spec("mabwiser"):
            from evaluation.peers.mabwiser import MabwiserContender

            for policy, alpha in (("LinUCB", 0.5), ("LinTS", 0.3)):
                name = f"mabwiser {policy.lower()}"
                yield MabwiserContender(
                    self.settings, arms, policy=policy, alpha=alpha, name=name, seed=seed
                )

    def compare(self) -> Comparison:
        """Run everyone on every seed."""
        hindsight = self.hindsight()
        world = [Change(0, self.scene.questions)]
        traces: dict[str, list[Trace]] = {}
        held_out = []
        out = np.array([q.held_out for q in self.scene.questions])
        taught = self.oracle(world, seed=0)
        best = ContextualOracle(
            self.pages, self.settings, self.replay(0), most_pages=self.options.oracle_pages
        )
        for number, seed in enumerate(self.options.seeds):
            stream = self.stream(seed)
            held_out.append(out[stream.questions])
            rivals = [*self.contenders(hindsight, seed=seed), self.greedy(taught)]
            for place, rival in enumerate(rivals, 1):
                trace = self.replay(seed).run(rival, stream, world)
                traces.setdefault(rival.name, []).append(trace)
                done = (number + place / len(rivals)) / len(self.options.seeds)
                self._progress("contenders", done)
        self._progress("contextual oracle", 0.0)
        ideal = OracleContender(best, self.settings, traces, self.scene.questions, name=CONTEXTUAL)
        traces[CONTEXTUAL] = [
            self.replay(seed).run(ideal, self.stream(seed), world) for seed in self.options.seeds
        ]
        return Comparison(
            settings=self.options,
            generators=tuple(self.settings.generators),
            price=self.settings.plan.price,
            full_cost=cost_of(self.settings, everything(self.settings)),
            traces=traces,
            held_out=held_out,
            hindsight=hindsight,
            exact=best.exact,
        )


def clustered(
    values: Sequence[np.ndarray], questions: Sequence[np.ndarray], rng: np.random.Generator
) -> Interval:
    """Return the mean over requests, with an interval from resampling needs, not requests.

    Requests of one need depend on each other, however often it is asked; seeds share needs.
    """
    joined, needs = np.concatenate(values), np.concatenate(questions)
    ids, inverse = np.unique(needs, return_inverse=True)
    sums = np.bincount(inverse, joined)
    counts = np.bincount(inverse).astype(float)
    draws = rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=2_000)
    means = (draws @ sums) / (draws @ counts)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(joined.mean()), float(low), float(high), len(ids))
