"""The planner: which policy plans, within which limits, and that a plan can be decided again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.errors import InvalidArgumentError
from forage.v1 import plan_pb2
from orchestrator import planner
from orchestrator.bandit import Learner, Safeguard, Snapshot
from orchestrator.context import FEATURES
from orchestrator.learning import bandit_settings
from orchestrator.planner import Planner, Versioned, replay, to_message
from orchestrator.settings import POLICIES, OrchestratorSettings
from orchestrator.slots import given_away
from tests.unit.orchestrator_decisions import NAMES, configured, phi, prior

SETTINGS = configured(plan={"uniform_share": 0.1, "full_share": 0.05, "propensity_draws": 64})
PRIOR = prior(SETTINGS)
PLANNER = Planner(SETTINGS)


def fallen_back(settings: OrchestratorSettings) -> Versioned:
    """Return a snapshot whose safeguard has set the learned policies aside for preset 1."""
    learner = Learner(bandit_settings(settings))
    for step in range(2_000):
        time = 1.0 + step
        learner.safeguard.observe("learned", 0.0 + 0.01 * (step % 2), time=time)
        learner.safeguard.observe("preset0", 0.2 + 0.01 * (step % 2), time=time)
        learner.safeguard.observe("preset1", 0.6 + 0.01 * (step % 2), time=time)
    return Versioned.of(3, learner.snapshot())


def test_the_same_request_is_planned_the_same_and_others_differ():
    one = PLANNER.plan(phi(), {}, PRIOR, request_id="a")
    again = PLANNER.plan(phi(), {}, PRIOR, request_id="a")
    dear = prior(configured(plan={"price": 0.02, "exploration": 1.0}))
    plans = {
        PLANNER.plan(phi(), {}, dear, request_id=str(n), override="thompson").choice.action
        for n in range(50)
    }

    assert to_message(one, 1) == to_message(again, 1)
    assert len(plans) > 1


@pytest.mark.parametrize("policy", POLICIES)
def test_a_named_policy_is_an_override_with_its_own_propensity(policy):
    planned = PLANNER.plan(phi(), {}, PRIOR, request_id="a", override=policy)
    propensity = PLANNER.propensity(planned, "a", 32)

    assert planned.policy == policy
    assert planned.source == plan_pb2.PLAN_SOURCE_OVERRIDE
    assert planned.traffic is None
    assert 0 < propensity.value <= 1
    if policy in ("static", "full"):
        assert propensity.value == 1


@pytest.mark.parametrize("name", ["best", "preset0", "Thompson", " "])
def test_an_unknown_policy_is_refused_with_those_there_are(name):
    with pytest.raises(InvalidArgumentError) as refused:
        PLANNER.plan(phi(), {}, PRIOR, request_id="a", override=name)

    assert refused.value.field == "policy"
    assert refused.value.allowed == ", ".join(POLICIES)


def test_the_traffic_is_split_as_configured():
    sources = Counter(
        PLANNER.plan(phi(), {}, PRIOR, request_id=str(n)).source for n in range(2_000)
    )

    assert sources[plan_pb2.PLAN_SOURCE_UNIFORM] / 2_000 == pytest.approx(0.1, abs=0.03)
    assert sources[plan_pb2.PLAN_SOURCE_FULL] / 2_000 == pytest.approx(0.05, abs=0.02)
    assert sources[plan_pb2.PLAN_SOURCE_POLICY] / 2_000 == pytest.approx(0.85, abs=0.03)


def test_the_uniform_slice_draws_every_preset():
    plans = Counter(
        tuple(PLANNER.plan(phi(), {}, PRIOR, request_id=str(n), override="uniform").choice.action)
        for n in range(400)
    )

    presets = [tuple(SETTINGS.plan.fan_outs.index(p.get(n, 0)) for n in NAMES)
               for p in SETTINGS.plan.presets]  # fmt: skip
    assert set(plans) == set(presets)
    assert min(plans.values()) > 140


def test_the_full_pull_has_a_budget_of_its_own():
    tight = configured(plan={"budget": 3})
    found = Planner(tight).plan(phi(), {}, prior(tight), request_id="a", override="full")
    learned = Planner(tight).plan(phi(), {}, prior(tight), request_id="a", override="thompson")

    assert set(found.choice.fan_outs.values()) == {100}
    assert found.context.budget == found.choice.cost > 3
    assert learned.choice.cost <= learned.context.budget == 3


def test_load_narrows_the_budget_of_the_learned_plan_only():
    half = {"budget_share": 0.5}
    learned = PLANNER.plan(phi(), {}, PRIOR, request_id="a", override="thompson", **half)
    full = PLANNER.plan(phi(), {}, PRIOR, request_id="a", override="full", **half)

    assert learned.context.budget == SETTINGS.plan.budget // 2
    assert learned.choice.cost <= learned.context.budget
    assert set(full.choice.fan_outs.values()) == {100}
    assert learned.budget_share == 0.5


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", NAMES)
def test_a_masked_generator_is_not_called_and_the_reason_is_logged(policy, name):
    masked = {name: "BREAKER_OPEN"}
    planned = PLANNER.plan(phi(), masked, PRIOR, request_id="a", override=policy)
    message = to_message(planned, 1)

    (call,) = [c for c in message.calls if c.generator == name]
    assert (call.fan_out, call.infeasible_reason) == (0, "BREAKER_OPEN")
    assert list(call.feasible) == [True, False, False, False, False]
    assert not any(c.infeasible_reason for c in message.calls if c.generator != name)
    assert any(c.fan_out for c in message.calls)


def test_if_everybody_is_masked_nobody_is_called():
    masked = dict.fromkeys(NAMES, "DISABLED")
    for policy in POLICIES:
        planned = PLANNER.plan(phi(), masked, PRIOR, request_id="a", override=policy)
        assert not any(planned.choice.fan_outs.values())
        assert PLANNER.propensity(planned, "a", 16).value > 0


def test_a_policy_that_falls_behind_is_replaced_by_the_best_preset_but_for_probes():
    versioned = fallen_back(SETTINGS)
    planned = [PLANNER.plan(phi(), {}, versioned, request_id=str(n)) for n in range(1_500)]
    sources = Counter(p.source for p in planned)

    assert versioned.fallback == "preset1"
    assert sources[plan_pb2.PLAN_SOURCE_FALLBACK] > 1_000
    assert sources[plan_pb2.PLAN_SOURCE_POLICY] > 0
    replaced = next(p for p in planned if p.source == plan_pb2.PLAN_SOURCE_FALLBACK)
    assert replaced.policy == "preset1"
    assert replaced.choice.fan_outs == {"lexical": 50, "semantic": 0, "memory": 0}
    assert PLANNER.propensity(replaced, "1", 32).value > 0.7


@given(
    st.integers(0, 1_000),
    st.sampled_from(["thompson", "epsilon_greedy", "lints", "static"]),
    st.sets(st.sampled_from(NAMES), max_size=2),
    st.sampled_from([1.0, 0.7, 0.4]),
    st.booleans(),
)
@settings(max_examples=60)
def test_propensities_are_probabilities(seed, policy, masked, share, back):
    config = configured(plan={"traffic": {policy: 1.0}, "uniform_share": 0.1, "full_share": 0.1})
    versioned = FALLEN if back else prior(config)
    planned = Planner(config).plan(
        phi(seed),
        dict.fromkeys(masked, "DISABLED"),
        versioned,
        request_id=str(seed),
        budget_share=share,
    )
    found = Planner(config).propensity(planned, str(seed), 32)

    assert 0 < found.value <= 1
    assert found.marginals.shape == (len(NAMES), 5)
    assert found.marginals.sum(axis=1) == pytest.approx(np.ones(3))
    for g, name in enumerate(NAMES):
        if name in masked:
            assert found.marginals[g, 0] == pytest.approx(1)


FALLEN = fallen_back(SETTINGS)
CERTAIN = prior(configured(plan={"exploration": 0.0}))


def test_a_propensity_is_how_often_the_plan_is_chosen():
    planned = PLANNER.plan(phi(), {}, PRIOR, request_id="a", override="")
    estimated = PLANNER.propensity(planned, "a", 2_000).value
    rounds = 2_000
    same = sum(
        PLANNER.plan(phi(), {}, PRIOR, request_id=str(n)).choice.action == planned.choice.action
        for n in range(rounds)
    )

    assert estimated == pytest.approx(same / rounds, abs=0.04)


@given(
    st.integers(0, 1_000),
    st.sampled_from(POLICIES),
    st.sets(st.sampled_from(NAMES), max_size=3),
    st.sampled_from([1.0, 0.4]),
)
@settings(max_examples=80)
def test_a_plan_is_decided_again_from_its_record_and_its_snapshot_alone(
    seed, policy, masked, share
):
    planned = PLANNER.plan(
        phi(seed),
        dict.fromkeys(masked, "NO_TIME"),
        PRIOR,
        request_id=str(seed),
        budget_share=share,
        override=policy,
    )
    stored = to_message(planned, SETTINGS.plan.seed).SerializeToString()
    snapshot = Snapshot.from_bytes(PRIOR.snapshot.to_bytes())

    recorded = plan_pb2.Plan.FromString(stored)
    again = replay(recorded, str(seed), Versioned.of(1, snapshot))

    assert again == recorded


def test_a_fallback_is_decided_again_too():
    for n in range(30):
        planned = PLANNER.plan(phi(), {}, FALLEN, request_id=str(n))
        recorded = to_message(planned, SETTINGS.plan.seed)
        snapshot = Snapshot.from_bytes(FALLEN.snapshot.to_bytes())
        assert replay(recorded, str(n), Versioned.of(3, snapshot)) == recorded


def test_another_seed_request_or_snapshot_decides_otherwise():
    recorded = to_message(
        PLANNER.plan(phi(), {}, PRIOR, request_id="a", override="thompson"), SETTINGS.plan.seed
    )
    reseeded = plan_pb2.Plan()
    reseeded.CopyFrom(recorded)
    reseeded.seed += 1
    learner = Learner(replace(bandit_settings(SETTINGS), hit_rates=dict.fromkeys(NAMES, 0.9)))

    assert replay(recorded, "b", PRIOR) != recorded
    assert replay(reseeded, "a", PRIOR) != reseeded
    assert replay(recorded, "a", Versioned.of(1, learner.snapshot())) != recorded


def test_the_parameters_of_a_snapshot_are_those_it_was_learned_with():
    changed = configured(plan={"price": 0.5, "exploration": 0.0, "static": {"lexical": 100}})
    recorded = {
        p: to_message(
            PLANNER.plan(phi(), {}, PRIOR, request_id="a", override=p), SETTINGS.plan.seed
        )
        for p in POLICIES
    }

    assert planner.parameters(changed.plan) != PRIOR.snapshot.params
    for policy, plan in recorded.items():
        assert replay(plan, "a", PRIOR) == plan, policy
        later = Planner(changed).plan(phi(), {}, PRIOR, request_id="a", override=policy)
        assert later.choice.action == tuple(
            SETTINGS.plan.fan_outs.index(c.fan_out) for c in plan.calls
        )


WITH_SLOTS = OrchestratorSettings.model_validate(
    {
        "plan": {"uniform_share": 0.1, "full_share": 0.05, "budget": 60},
        "slots": {"probability": 0.4},
    }
)
SLOTTED = Versioned.of(1, Learner(bandit_settings(WITH_SLOTS)).snapshot())


def wide(seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random((len(WITH_SLOTS.generators), len(FEATURES)))
    values[:, 0] = 1.0
    return values


@given(
    st.integers(0, 1_000),
    st.sampled_from([1.0, 0.4]),
    st.sampled_from([{}, {"exploration": "BREAKER_OPEN"}]),
)
@settings(max_examples=80)
def test_a_search_with_a_slot_asks_exploration_and_is_decided_again(seed, share, masked):
    planner_, name = Planner(WITH_SLOTS), str(seed)
    planned = planner_.plan(wide(), masked, SLOTTED, request_id=name, budget_share=share)
    slot = given_away(WITH_SLOTS.slots, name, WITH_SLOTS.plan.seed)
    asked = planned.choice.fan_outs["exploration"]
    recorded = to_message(planned, WITH_SLOTS.plan.seed)

    assert planned.context.reserved == ({"exploration"} if slot else set())
    assert planned.choice.cost <= planned.context.budget
    least = planned.context.cost[4, 1]
    if masked:
        assert asked == 0
    elif slot and planned.choice.cost + least <= planned.context.budget:
        assert asked > 0
    assert replay(recorded, name, SLOTTED) == recorded


def test_the_propensity_of_a_plan_with_a_slot_is_how_often_it_is_chosen_given_the_slot():
    planner_ = Planner(WITH_SLOTS)
    names = [
        str(n) for n in range(4_000) if given_away(WITH_SLOTS.slots, str(n), WITH_SLOTS.plan.seed)
    ]
    plans = [planner_.plan(wide(), {}, SLOTTED, request_id=n) for n in names]
    counts = Counter(p.choice.action for p in plans)
    common, times = counts.most_common(1)[0]
    planned = next(p for p in plans if p.choice.action == common)

    found = planner_.propensity(planned, "a", 1_000)

    assert all(action[4] for action in counts)
    assert found.marginals[4, 0] == 0
    assert found.value == pytest.approx(times / len(names), abs=0.05)


def test_a_named_policy_gives_no_slot_a_call_of_its_own():
    for n in range(40):
        planned = Planner(WITH_SLOTS).plan(
            wide(), {}, SLOTTED, request_id=str(n), override="static"
        )
        assert planned.choice.fan_outs["exploration"] == 0
        assert not planned.context.reserved


@given(st.integers(0, 1_000), st.sampled_from(POLICIES))
@settings(max_examples=60)
def test_no_plan_is_regretted_less_than_the_best_by_the_mean(seed, policy):
    best = PLANNER.plan(phi(seed), {}, CERTAIN, request_id=str(seed), override="thompson")
    other = PLANNER.plan(phi(seed), {}, CERTAIN, request_id=str(seed), override=policy)

    assert PLANNER.regret(best) == pytest.approx(0, abs=1e-9)
    assert PLANNER.regret(other) >= 0


def test_the_regret_of_asking_the_one_that_finds_little_is_what_the_best_would_add():
    found = {"lexical": 0.9, "semantic": 0.01, "memory": 0.01}
    config = configured(plan={"static": {"memory": 10}, "price": 0.0, "exploration": 0.0})
    learner = Learner(replace(bandit_settings(config), hit_rates=found))
    sure = Versioned.of(1, learner.snapshot())
    planned = Planner(config).plan(phi(), {}, sure, request_id="a", override="static")
    everything = Planner(config).plan(phi(), {}, sure, request_id="a", override="full")

    assert planned.choice.fan_outs == {"lexical": 0, "semantic": 0, "memory": 10}
    assert Planner(config).regret(planned) > 0.5
    assert Planner(config).regret(everything) == pytest.approx(0, abs=1e-9)


def test_calling_everybody_is_regretted_for_its_price():
    config = configured(plan={"static": {"lexical": 10}, "price": 0.5, "exploration": 0.0})
    planner_, sure = Planner(config), prior(config)
    cheap = planner_.plan(phi(), {}, sure, request_id="a", override="static")
    everything = planner_.plan(phi(), {}, sure, request_id="a", override="full")
    dearer = everything.choice.cost - cheap.choice.cost

    assert planner_.regret(everything) >= planner_.regret(cheap) + 0.5 * dearer - 1


def test_a_verdict_travels_in_the_snapshot():
    state = Safeguard.from_state(FALLEN.snapshot.safeguard)

    assert state.verdict().fallen_back
    assert state.verdict().best_preset == "preset1"
