"""What every policy owes, and what each is for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.bandit import (
    CallEverythingPolicy,
    Distribution,
    EpsilonGreedyPolicy,
    Learner,
    LearnerSettings,
    Levels,
    LinTSPolicy,
    PlanContext,
    Source,
    StaticPolicy,
    ThompsonPolicy,
    UniformPresetsPolicy,
    derive_rng,
    mixture_propensity,
)
from orchestrator.bandit.seeding import unit_interval
from orchestrator.bandit.summary import (
    arm_shares,
    effective_sample_size,
    mean_fan_out,
    posterior_width,
)

LEVELS = Levels((0, 10, 25, 50))
GENERATORS = ("lexical", "semantic", "graph")
FEATURES = ("bias", "words")
LEARNER = Learner(LearnerSettings(GENERATORS, FEATURES, "1", LEVELS))
PRESETS = (
    {"lexical": 50},
    {"lexical": 25, "semantic": 25},
    {"semantic": 50, "graph": 10},
    {"graph": 50},
)
UNIFORM = UniformPresetsPolicy(PRESETS)
POLICIES = [
    ThompsonPolicy(LEARNER.hazard.frozen(), price=0.001),
    LinTSPolicy(LEARNER.linear.frozen(), price=0.001),
    EpsilonGreedyPolicy(LEARNER.hazard.frozen(), UNIFORM, epsilon=0.3, price=0.001),
    StaticPolicy({"lexical": 50, "semantic": 25}),
    CallEverythingPolicy(),
    UNIFORM,
]
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.name)


def context(*, feasible=None, budget=150, phi=None, generators=GENERATORS):
    shape = (len(generators), LEVELS.count)
    return PlanContext(
        generators=generators,
        features=FEATURES,
        phi=np.ones((len(generators), 2)) if phi is None else phi,
        levels=LEVELS,
        feasible=np.ones(shape, bool) if feasible is None else feasible,
        cost=np.tile(np.array(LEVELS.fan_outs), (len(generators), 1)),
        budget=budget,
    )


@each_policy
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), budget=st.integers(0, 160))
def test_every_policy_respects_mask_and_budget(policy, seed, budget):
    rng = np.random.default_rng(seed)
    feasible = rng.random((3, LEVELS.count)) < 0.6
    feasible[:, 0] = True
    here = context(feasible=feasible, budget=budget)

    choice = policy.choose(here, rng)

    assert feasible[np.arange(3), list(choice.action)].all()
    assert choice.cost == sum(choice.fan_outs.values()) <= budget
    assert choice.p_hit.shape == choice.utilities.shape == (3, LEVELS.count)


@each_policy
@pytest.mark.parametrize("masked", [True, False])
def test_with_nothing_allowed_every_policy_calls_nobody(policy, masked):
    feasible = np.ones((3, LEVELS.count), bool)
    feasible[:, 1:] = not masked
    here = context(feasible=feasible, budget=100 if masked else 0)

    choice = policy.choose(here, np.random.default_rng(0))

    assert choice.action == (0, 0, 0)
    assert choice.cost == 0


@each_policy
def test_without_any_generator_the_plan_is_empty(policy):
    choice = policy.choose(context(generators=()), np.random.default_rng(0))

    assert choice.action == ()


@each_policy
def test_the_same_request_replays_to_the_same_plan(policy):
    here = context(budget=60)

    first = policy.choose(here, derive_rng(7, "request-1", "plan"))
    again = policy.choose(here, derive_rng(7, "request-1", "plan"))

    assert first.action == again.action
    assert first.source == again.source
    assert np.array_equal(first.utilities, again.utilities)


@each_policy
def test_the_distribution_agrees_with_how_often_actions_are_chosen(policy):
    here = context(budget=60)
    rng = np.random.default_rng(1)

    stated = policy.distribution(here, np.random.default_rng(2), 4_000)
    chosen = Distribution.from_draws(
        np.array([policy.choose(here, rng).action for _ in range(1_200)])
    )

    assert (stated.draws == 0) == policy.exact
    assert sum(stated.frequencies.values()) == pytest.approx(1)
    actions = stated.frequencies.keys() | chosen.frequencies.keys()
    distance = sum(
        abs(stated.frequencies.get(a, 0) - chosen.frequencies.get(a, 0)) for a in actions
    )
    assert distance / 2 < 0.08
    assert np.abs(stated.marginals(3, 4) - chosen.marginals(3, 4)).max() < 0.06


def test_a_generator_the_policy_never_heard_of_is_planned_from_its_prior():
    policy = ThompsonPolicy(LEARNER.hazard.frozen())
    here = context(generators=("lexical", "brand_new", "graph"), budget=50)

    stated = policy.distribution(here, np.random.default_rng(0), 500)

    assert stated.marginals(3, 4)[1, 0] < 0.95


def test_a_static_plan_is_lowered_to_what_is_allowed_and_says_so():
    feasible = np.ones((3, LEVELS.count), bool)
    feasible[0, 2:] = False
    policy = StaticPolicy({"lexical": 50, "semantic": 25}, name="forced", source=Source.OVERRIDE)

    cut = policy.choose(context(feasible=feasible), np.random.default_rng(0))
    whole = policy.choose(context(), np.random.default_rng(0))

    assert cut.fan_outs == {"lexical": 10, "semantic": 25, "graph": 0}
    assert (cut.feasible, whole.feasible) == (False, True)
    assert cut.source == Source.OVERRIDE


def test_a_plan_over_budget_steps_down_where_it_costs_most():
    policy = StaticPolicy({"lexical": 50, "semantic": 25, "graph": 25})

    assert policy.choose(context(budget=80), np.random.default_rng(0)).action == (2, 2, 2)
    assert policy.choose(context(budget=60), np.random.default_rng(0)).action == (2, 2, 1)


def test_full_pull_asks_everyone_for_everything():
    choice = CallEverythingPolicy().choose(context(), np.random.default_rng(0))

    assert set(choice.fan_outs.values()) == {50}


def test_presets_that_fit_to_the_same_plan_add_up():
    stated = UNIFORM.distribution(context(budget=0), np.random.default_rng(0), 0)

    assert stated.frequencies == {(0, 0, 0): 1.0}


def test_a_monte_carlo_propensity_is_never_zero_and_sums_with_its_complement_to_one():
    stated = Distribution.from_draws(np.array([[1, 0]] * 3 + [[0, 1]]))

    assert stated.probability((1, 0)) == pytest.approx(3.5 / 5)
    assert stated.probability((2, 2)) == pytest.approx(0.5 / 5)
    assert 1 - stated.probability((1, 0)) == pytest.approx(1.5 / 5)


def test_exact_mixture_propensities_sum_to_one_over_all_actions():
    here = context(budget=60)
    rng = np.random.default_rng(0)
    shares = [(0.1, UNIFORM), (0.2, CallEverythingPolicy()), (0.7, POLICIES[2])]
    parts = [(share, policy.distribution(here, rng, 0)) for share, policy in shares]
    actions = {action for _, part in parts for action in part.frequencies}

    total = sum(mixture_propensity(parts, action, LEVELS.count).value for action in actions)

    assert total == pytest.approx(1)


def test_a_mixture_matches_how_often_the_whole_traffic_takes_an_action():
    here = context(budget=60)
    parts = [
        (0.2, UNIFORM.distribution(here, np.random.default_rng(0), 0)),
        (0.8, POLICIES[0].distribution(here, np.random.default_rng(0), 4_000)),
    ]
    rng = np.random.default_rng(5)
    taken = [
        (UNIFORM if rng.random() < 0.2 else POLICIES[0]).choose(here, rng).action
        for _ in range(2_000)
    ]

    for action in ((3, 0, 1), (2, 2, 0), (1, 1, 1)):
        stated = mixture_propensity(parts, action, LEVELS.count)
        assert stated.value == pytest.approx(taken.count(action) / 2_000, abs=0.04)
        assert stated.marginals.sum(axis=1) == pytest.approx(1)
        assert stated.draws == 4_000


def test_shares_that_do_not_sum_to_one_are_refused():
    with pytest.raises(ValueError, match="sum to 1"):
        mixture_propensity([(0.5, Distribution.exact([((0,), 1.0)]))], (0,), 2)


def test_requests_and_purposes_have_streams_of_their_own():
    streams = {
        tuple(derive_rng(seed, request, purpose).integers(0, 2**32, 4))
        for seed in (1, 2)
        for request in ("a", "ab", "")
        for purpose in ("plan", "propensity", "bplan")
    }

    assert len(streams) == 18
    assert 0 <= unit_interval(1, "a", "traffic") < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": -1}, "negative"),
        ({"phi": np.zeros((3, 2))}, "bias"),
        ({"phi": np.array([[1.0, np.nan]] * 3)}, "finite"),
        ({"phi": np.ones((2, 2))}, "phi"),
        ({"feasible": np.zeros((3, 4), bool)}, "level 0"),
        ({"feasible": np.ones((3, 3), bool)}, "mask"),
        ({"generators": ("lexical", "lexical", "graph")}, "twice"),
    ],
)
def test_a_context_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        context(**change)


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_a_price_must_be_a_plain_number(price):
    with pytest.raises(ValueError, match="price"):
        ThompsonPolicy(LEARNER.hazard, price=price)


def test_policy_parameters_out_of_range_are_refused():
    with pytest.raises(ValueError, match="epsilon"):
        EpsilonGreedyPolicy(LEARNER.hazard, UNIFORM, epsilon=1.5)
    with pytest.raises(ValueError, match="scale"):
        LinTSPolicy(LEARNER.linear, scale=0)
    with pytest.raises(ValueError, match="exploration"):
        ThompsonPolicy(LEARNER.hazard, exploration=-1)
    with pytest.raises(ValueError, match="preset"):
        UniformPresetsPolicy([])


def test_arm_shares_count_plans_that_leave_a_generator_out():
    plans = [{"lexical": 10}, {"lexical": 10, "graph": 50}, {"lexical": 0}, {"lexical": 50}]

    assert arm_shares(plans)["lexical"] == {0: 0.25, 10: 0.5, 50: 0.25}
    assert arm_shares(plans)["graph"] == {0: 0.75, 50: 0.25}
    assert mean_fan_out(plans) == {"lexical": 17.5, "graph": 12.5}


def test_the_width_of_an_untouched_posterior_is_its_prior_width():
    widths = posterior_width(LEARNER.hazard)

    assert widths == pytest.approx(dict.fromkeys(GENERATORS, 1.0))


def test_equal_propensities_keep_the_whole_sample_effective():
    assert effective_sample_size([0.2] * 5) == pytest.approx(5)
    assert effective_sample_size([1, 1, 0.001]) < 1.1
    assert effective_sample_size([]) == 0
    with pytest.raises(ValueError, match="propensities"):
        effective_sample_size([0.0])
