"""The learned plan on one collection: the real learner taught by judgments, and its rivals.

Full information: every training topic tells for every list where its relevant items are. The
learner of the orchestrator learns that, its Thompson policy plans without exploring, and the
price of a cost unit is set on training topics so that plans cost a given share of calling
everything, on average. The rival is the best *mixture* of two static plans of that mean cost,
also chosen on training topics: one static plan often cannot spend a budget exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from evaluation.evaluate.fusing import TOP, Fusion
from evaluation.evaluate.recording import EVERYTHING, Found, Plan
from evaluation.mesh import GENERATORS, Mesh
from evaluation.metrics import measure_lists
from forage.retrieval import QueryClass
from orchestrator import context
from orchestrator.bandit import Learner, Levels, PlanContext, ThompsonPolicy
from orchestrator.bandit.observation import Engagement, observe
from orchestrator.context import FEATURES, GeneratorHistory
from orchestrator.learning import bandit_settings

Floats = NDArray[np.float64]
Judgments = Mapping[str, Mapping[str, int]]
SHARE = 0.4
"""What plans may cost, as a share of calling everything."""
_LEVELS = (0, 25, 100)
_PRICES = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 60)])
_INNER_FOLDS = 3


@dataclass(frozen=True, slots=True)
class StaticMix:
    """Two static plans, the second with some probability."""

    plans: tuple[Plan, Plan]
    share: float
    """How often the second is used, in [0, 1]."""

    def __str__(self) -> str:
        first, second = (", ".join(f"{g} {f}" for g, f in p.items() if f) for p in self.plans)
        if self.share in (0.0, 1.0):
            return second if self.share else first
        return f"{1 - self.share:.0%} of ({first}), {self.share:.0%} of ({second})"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen on training topics."""

    mix: StaticMix
    plans: Mapping[str, Plan]
    """The learned plan of every test topic; empty if the static mix stands in."""
    fell_back: bool
    """Whether the learned plans were worse than the mix on held-out training topics."""


class Planning:
    """Costs, features and values of plans over what was recorded of one collection."""

    def __init__(self, mesh: Mesh, found: Mapping[str, Found], judgments: Judgments) -> None:
        """Use the mesh's understanding, costs and learner settings."""
        self._mesh = mesh
        self._found = found
        self._judgments = judgments
        self._settings = mesh.settings.orchestrator
        self._levels = Levels(self._settings.plan.fan_outs)
        self._cost = np.array(
            [[self._settings.cost(g, f) for f in self._levels.fan_outs] for g in GENERATORS]
        )
        self.everything = self.cost(EVERYTHING)
        self._statics = [
            dict(zip(GENERATORS, fan_outs, strict=True))
            for fan_outs in product(_LEVELS, repeat=len(GENERATORS))
            if any(fan_outs)
        ]

    def cost(self, plan: Plan) -> int:
        """Return what a plan costs, in the orchestrator's cost units."""
        return sum(self._settings.cost(g, f) for g, f in plan.items())

    def choose(
        self, trained: Sequence[str], tested: Sequence[str], fusion: Fusion, *, seed: int
    ) -> Chosen:
        """Choose the static mix and the learned plans of test topics, on training topics alone.

        The learned plans are used if, cross-validated within the training topics, they are not
        worse than the mix; `fusion` orders what plans find, for that comparison.
        """
        order = np.random.default_rng(seed).permutation(sorted(trained))
        learned: list[float] = []
        static: list[float] = []
        for fold in range(_INNER_FOLDS):
            inner = order[fold::_INNER_FOLDS].tolist()
            rest = [q for q in trained if q not in set(inner)]
            mix = self._best_mix(rest, fusion)
            plans = self._learned(rest, inner)
            learned += self._values(plans, fusion).tolist()
            static += self._mixed(mix, inner, fusion).tolist()
        fell_back = float(np.mean(learned)) < float(np.mean(static))
        plans = {} if fell_back else self._learned(trained, tested)
        return Chosen(self._best_mix(trained, fusion), plans, fell_back)

    def _mixed(self, mix: StaticMix, tested: Sequence[str], fusion: Fusion) -> Floats:
        first, second = (self._values(dict.fromkeys(tested, p), fusion) for p in mix.plans)
        mixed: Floats = (1 - mix.share) * first + mix.share * second
        return mixed

    def _values(self, plans: Mapping[str, Plan], fusion: Fusion) -> Floats:
        """Return nDCG@10 of what each topic's plan finds, in the fusion's order."""
        lists = {q: fusion.order(_cut(self._found[q], plan)) for q, plan in plans.items()}
        return measure_lists(self._judgments, lists).values["ndcg@10"]

    def _best_mix(self, trained: Sequence[str], fusion: Fusion) -> StaticMix:
        """Return the mixture of two plans with the largest mean value at the mean cost allowed.

        Plans that a cheaper one beats in coverage are not measured further.
        """
        budget = SHARE * self.everything
        covered = np.array([self._coverage(p, trained) for p in self._statics])
        costs = np.array([self.cost(p) for p in self._statics], float)
        kept = _front(costs, covered)
        values = np.array(
            [self._values(dict.fromkeys(trained, self._statics[i]), fusion).mean() for i in kept]
        )
        costs = costs[kept]
        best = (-1.0, 0, 0, 0.0)
        for a in range(len(kept)):
            for b in range(len(kept)):
                if costs[a] > budget or (costs[b] <= budget and a != b):
                    continue
                share = 0.0 if a == b else float((budget - costs[a]) / (costs[b] - costs[a]))
                value = float((1 - share) * values[a] + share * values[b])
                best = max(best, (value, a, b, share))
        _, a, b, share = best
        return StaticMix((self._statics[kept[a]], self._statics[kept[b]]), share)

    def _coverage(self, plan: Plan, trained: Sequence[str]) -> float:
        """Return the mean share of the gains, of the best ten, that a plan's lists hold."""
        shares = []
        for query_id in trained:
            ranks, gains = self._ranks(query_id)
            depths = np.array([plan[g] for g in GENERATORS])
            shares.append(float(gains[(ranks <= depths).any(axis=1)].sum()))
        return float(np.mean(shares))

    def _ranks(self, query_id: str) -> tuple[Floats, Floats]:
        """Return the ranks of a topic's best ten items by generator, and their shares of gain."""
        judged = self._judgments[query_id]
        best = sorted((i for i, g in judged.items() if g > 0), key=lambda i: (-judged[i], i))[:TOP]
        found = self._found[query_id]
        places = [{h.item_id: r for r, h in enumerate(found.hits[g], 1)} for g in GENERATORS]
        ranks = np.array([[p.get(i, np.inf) for p in places] for i in best])
        gains = np.array([float(judged[i]) for i in best])
        return ranks, gains / gains.sum()

    def _learned(self, trained: Sequence[str], tested: Sequence[str]) -> dict[str, Plan]:
        """Teach the learner training topics, price its plans on them, and plan test topics."""
        history = _TrainingHistory()
        for query_id in trained:
            ranks, gains = self._ranks(query_id)
            query_class = self._found[query_id].query.query_class
            history.add(query_class, (gains[:, None] * np.isfinite(ranks)).sum(axis=0))
        settings = replace(
            bandit_settings(self._settings), generators=GENERATORS, half_life_s=float("inf")
        )
        learner = Learner(settings)
        for sequence, query_id in enumerate(trained, 1):
            ranks, gains = self._ranks(query_id)
            engagements = [
                Engagement(
                    float(gain),
                    {g: int(r) for g, r in zip(GENERATORS, row, strict=True) if np.isfinite(r)},
                )
                for row, gain in zip(ranks, gains, strict=True)
            ]
            observation = observe(
                self._levels,
                GENERATORS,
                self._features(query_id, history),
                executed=EVERYTHING,
                engagements=engagements,
            )
            learner.observe(observation, time=float(sequence), sequence=sequence)
        posterior = learner.hazard.frozen()

        def plan(query_id: str, price: float) -> Plan:
            policy = ThompsonPolicy(posterior, price=price, exploration=0.0)
            chosen = policy.choose(self._context(query_id, history), np.random.default_rng(0))
            return chosen.fan_outs

        price = self._price(trained, plan)
        return {query_id: plan(query_id, price) for query_id in tested}

    def _price(self, trained: Sequence[str], plan: Callable[[str, float], Plan]) -> float:
        """Return the least price at which plans keep to the budget on average, by bisection."""
        low, high = 0, len(_PRICES) - 1
        while low < high:
            middle = (low + high) // 2
            price = float(_PRICES[middle])
            spent = float(np.mean([self.cost(plan(q, price)) for q in trained]))
            low, high = (low, middle) if spent <= SHARE * self.everything else (middle + 1, high)
        return float(_PRICES[low])

    def _features(self, query_id: str, history: _TrainingHistory) -> Floats:
        query = self._found[query_id].query
        title = self._mesh.schema.title
        return context.features(query, GENERATORS, history, title=title)

    def _context(self, query_id: str, history: _TrainingHistory) -> PlanContext:
        return PlanContext(
            generators=GENERATORS,
            features=FEATURES,
            phi=self._features(query_id, history),
            levels=self._levels,
            feasible=np.ones(self._cost.shape, np.bool_),
            cost=self._cost,
            budget=int(self.everything),
        )


class _TrainingHistory:
    """What training topics say of generators, as the orchestrator's history would."""

    def __init__(self) -> None:
        self._topics: dict[QueryClass, int] = defaultdict(int)
        self._hits: dict[QueryClass, Floats] = defaultdict(lambda: np.zeros(len(GENERATORS)))

    def add(self, query_class: QueryClass, covered: Floats) -> None:
        """Count one topic; `covered` is the share of its gains in each generator's list."""
        self._topics[query_class] += 1
        self._hits[query_class] = self._hits[query_class] + covered

    def engagements(self, normalized_query: str) -> float:
        """Return 0: no topic is a repeat of another."""
        return 0.0

    def generator(
        self, name: str, query_class: QueryClass, normalized_query: str
    ) -> GeneratorHistory:
        """Return a generator's record for a class, with the mild prior of the orchestrator."""
        hits = float(self._hits[query_class][GENERATORS.index(name)])
        topics = self._topics[query_class]
        rate = (hits + 1.5) / (topics + 5.0)
        return GeneratorHistory(rate, query_hit_rate=rate, returned_share=0.5, latency_s=0.01)


def _cut(found: Found, plan: Plan) -> Found:
    hits = {name: found.hits[name][: plan.get(name, 0)] for name in GENERATORS}
    return replace(found, hits=hits)


def _front(costs: Floats, covered: Floats) -> list[int]:
    """Return the plans that no cheaper plan covers as much as, cheapest first."""
    kept: list[int] = []
    for place in np.lexsort((-covered, costs)).tolist():
        if not kept or covered[place] > covered[kept[-1]] + 1e-12:
            kept.append(place)
    return kept
