"""Simulated users on fixed seeds: the bandit learns what to ask, and learns it again."""

from dataclasses import dataclass

import numpy as np
import pytest

from orchestrator.bandit import (
    LEARNED,
    CallEverythingPolicy,
    Engagement,
    EpsilonGreedyPolicy,
    Learner,
    LearnerSettings,
    Levels,
    LinTSPolicy,
    PlanContext,
    Safeguard,
    SafeguardSettings,
    StaticPolicy,
    ThompsonPolicy,
    UniformPresetsPolicy,
    observe,
)
from orchestrator.bandit.knapsack import solve

LEVELS = Levels((0, 10, 25, 50, 100))
GENERATORS = ("lexical", "semantic", "graph", "memory")
CLASSES = ("title", "theme", "person", "repeat")
FEATURES = ("bias", *CLASSES, "noise_1", "noise_2", "noise_3")
PRICE = 0.002
BUDGET = 150
COST = np.tile(np.array(LEVELS.fan_outs), (4, 1))
# Rows are query classes, columns generators: where items are found, with which hazard per bucket.
STRONG, MEDIUM = (0.8, 0.3, 0.1, 0.1), (0.4, 0.3, 0.2, 0.1)
DEEP, WEAK = (0.1, 0.2, 0.5, 0.4), (0.02, 0.02, 0.02, 0.02)
HAZARDS = np.array(
    [
        [STRONG, WEAK, WEAK, MEDIUM],
        [WEAK, DEEP, MEDIUM, WEAK],
        [MEDIUM, WEAK, STRONG, WEAK],
        [WEAK, WEAK, WEAK, STRONG],
    ]
)
PRESETS = [
    *({name: 50} for name in GENERATORS),
    dict.fromkeys(GENERATORS, 25),
    {"lexical": 50, "graph": 50, "memory": 25},
    {"lexical": 50, "semantic": 50, "memory": 25},
]


@dataclass
class World:
    """Users whose wanted item is where the hazards say, independently per generator."""

    rng: np.random.Generator
    hazards: np.ndarray

    def arrive(self, *, feasible=None):
        kind = int(self.rng.integers(len(CLASSES)))
        phi = np.zeros((4, len(FEATURES)))
        phi[:, 0] = phi[:, 1 + kind] = 1
        phi[:, 5:] = self.rng.normal(size=(4, 3)) * 0.5
        mask = np.ones(COST.shape, bool) if feasible is None else feasible
        return kind, PlanContext(GENERATORS, FEATURES, phi, LEVELS, mask, COST, BUDGET)

    def ranks(self, kind):
        found = self.rng.random((4, 4)) < self.hazards[kind]
        return {
            name: LEVELS.fan_outs[int(np.argmax(row))] + 1
            for name, row in zip(GENERATORS, found, strict=True)
            if row.any()
        }

    def best_value(self, kind, context):
        u = np.zeros((1, 4, 5))
        u[0, :, 1:] = np.cumsum(-np.log1p(-self.hazards[kind]), axis=1)
        action = solve(u, COST, context.feasible, BUDGET, price=PRICE)[0]
        return self.value(kind, tuple(action))

    def value(self, kind, action):
        missed = np.prod(
            [np.prod(1 - self.hazards[kind][g, :level]) for g, level in enumerate(action)]
        )
        return float(1 - missed) - PRICE * float(COST[np.arange(4), list(action)].sum())


def learner(**change):
    given = {"weight_precision": 1.0, "default_hit_rate": 0.4, "half_life_s": float("inf")}
    return Learner(LearnerSettings(GENERATORS, FEATURES, "1", LEVELS, **(given | change)))


def run(world, policy_of, *, rounds, learned=None, seed=1, start=0, **arrival):
    """Serve `rounds` users; return the expected net value of each plan and of the best plan."""
    learned = learned or learner()
    rng = np.random.default_rng(seed)
    values, best = np.empty(rounds), np.empty(rounds)
    for i in range(rounds):
        kind, context = world.arrive(**arrival)
        choice = policy_of(learned).choose(context, rng)
        values[i] = world.value(kind, choice.action)
        best[i] = world.best_value(kind, context)
        ranks = world.ranks(kind)
        observation = observe(
            LEVELS,
            GENERATORS,
            context.phi,
            executed=choice.fan_outs,
            engagements=[Engagement(1.0, ranks)] if ranks else [],
        )
        learned.observe(observation, time=start + i * 60.0 + 1, sequence=i + 1)
    return values, best


def thompson(learned):
    return ThompsonPolicy(learned.hazard, price=PRICE)


def world(seed=0, hazards=HAZARDS):
    return World(np.random.default_rng(seed), hazards)


def mean_value(policy, rounds=500):
    """Return the mean expected net value of a policy that does not learn."""
    users, rng = world(), np.random.default_rng(1)
    served = [users.arrive() for _ in range(rounds)]
    return np.mean([users.value(kind, policy.choose(here, rng).action) for kind, here in served])


@pytest.fixture(scope="module")
def thompson_run():
    return run(world(), thompson, rounds=2_000)


def test_thompson_nears_the_oracle(thompson_run):
    values, best = thompson_run

    assert values[-500:].mean() >= 0.97 * best[-500:].mean()


def test_thompson_regret_shrinks(thompson_run):
    values, best = thompson_run
    regret = best - values

    assert regret[-500:].mean() < 0.25 * regret[:250].mean()


def test_thompson_beats_uniform_static_and_calling_everything(thompson_run):
    learned = thompson_run[0][-500:].mean()

    assert learned > mean_value(UniformPresetsPolicy(PRESETS)) + 0.15
    assert learned > mean_value(CallEverythingPolicy()) + 0.15
    assert learned > mean_value(StaticPolicy({"semantic": 100})) + 0.15
    assert learned > max(mean_value(StaticPolicy(preset)) for preset in PRESETS) + 0.05


@pytest.mark.parametrize(
    ("policy_of", "share"),
    [
        (lambda x: LinTSPolicy(x.linear, price=PRICE, scale=0.3), 0.93),
        (
            lambda x: EpsilonGreedyPolicy(
                x.hazard, UniformPresetsPolicy(PRESETS), epsilon=0.05, price=PRICE
            ),
            0.90,
        ),
    ],
    ids=["lints", "epsilon_greedy"],
)
def test_the_other_learned_policies_come_near_too(policy_of, share):
    values, best = run(world(), policy_of, rounds=1_200)

    assert values[-500:].mean() >= share * best[-500:].mean()


def test_a_world_that_changed_abruptly_is_learned_again():
    learned = learner(half_life_s=600 * 60.0)
    run(world(), thompson, rounds=1_000, learned=learned)
    # The generators swap their strengths: what was right for every class is now wrong.
    changed = world(seed=5, hazards=HAZARDS[:, [2, 3, 0, 1]])

    values, best = run(changed, thompson, rounds=1_600, learned=learned, start=1_000 * 60)

    assert values[:100].mean() < 0.75 * best[:100].mean()
    assert values[-500:].mean() >= 0.90 * best[-500:].mean()


def test_an_arm_that_could_not_be_called_is_not_learned_as_bad():
    learned = learner()
    down = np.ones(COST.shape, bool)
    down[0, 1:] = False
    run(world(), thompson, rounds=600, learned=learned, feasible=down)
    untouched = learner()

    assert np.array_equal(learned.hazard.mean[0], untouched.hazard.mean[0])
    values, best = run(world(seed=3), thompson, rounds=800, learned=learned)
    assert values[-300:].mean() >= 0.95 * best[-300:].mean()


def test_an_arm_that_always_times_out_keeps_its_prior():
    learned, users, rng = learner(), world(), np.random.default_rng(0)
    for i in range(200):
        kind, context = users.arrive()
        choice = CallEverythingPolicy().choose(context, rng)
        executed = {**choice.fan_outs, "graph": None}
        ranks = {name: rank for name, rank in users.ranks(kind).items() if name != "graph"}
        seen = observe(
            LEVELS,
            GENERATORS,
            context.phi,
            executed=executed,
            engagements=[Engagement(1.0, ranks)] if ranks else [],
        )
        learned.observe(seen, time=float(i + 1), sequence=i + 1)

    assert np.array_equal(learned.hazard.mean[2], learner().hazard.mean[2])
    assert learned.hazard.labels[2].sum() == 0


def test_the_learned_hit_rates_match_the_world():
    learned = learner()
    users, everything = world(), StaticPolicy(dict.fromkeys(GENERATORS, 100))
    rng = np.random.default_rng(0)
    wide = np.zeros((4, 5), dtype=np.int64)
    for i in range(1_000):
        kind, context = users.arrive()
        free = PlanContext(
            GENERATORS, FEATURES, context.phi, LEVELS, context.feasible, wide, BUDGET
        )
        choice = everything.choose(free, rng)
        engaged = [Engagement(1.0, users.ranks(kind))]
        seen = observe(
            LEVELS, GENERATORS, context.phi, executed=choice.fan_outs, engagements=engaged
        )
        learned.observe(seen, time=float(i + 1), sequence=i + 1)

    phi = np.zeros((4, len(FEATURES)))
    phi[:, 0] = phi[:, 1] = 1
    mean, _ = learned.hazard.moments(GENERATORS, phi)
    assert 1 / (1 + np.exp(-mean[:, 0])) == pytest.approx(HAZARDS[0][:, 0], abs=0.1)


def test_a_policy_with_a_stubborn_wrong_belief_is_replaced_by_the_best_preset():
    wrong = {"lexical": 0.01, "semantic": 0.9, "graph": 0.01, "memory": 0.01}
    stubborn = learner(hit_rates=wrong, bias_precision=1e6, weight_precision=1e6)
    policy = thompson(stubborn)
    presets = [StaticPolicy(preset, name=str(i)) for i, preset in enumerate(PRESETS)]
    guard = Safeguard(SafeguardSettings(half_life_s=1e6, min_evidence=60))
    users, rng = world(), np.random.default_rng(2)

    for i in range(1_500):
        kind, context = users.arrive()
        served, arm = (policy, LEARNED)
        if i % 2:
            served = presets[i // 2 % len(presets)]
            arm = served.name
        choice = served.choose(context, rng)
        hit = any(rank <= choice.fan_outs[name] for name, rank in users.ranks(kind).items())
        guard.observe(arm, float(hit) - PRICE * choice.cost, time=float(i))

    fallback = presets[int(guard.verdict().best_preset)]
    assert guard.verdict().fallen_back
    assert mean_value(fallback) >= max(mean_value(preset) for preset in presets) - 0.05
    assert mean_value(fallback) > mean_value(policy)
