"""The target's probabilities are those of the policies that serve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.ope import assess
from evaluation.ope.decisions import LoggedDecision, inclusive_propensity, sampled_shares
from evaluation.ope.plan_features import plan_features
from evaluation.ope.target import TargetPolicy, make_sample, snapshot_of
from forage.errors import FailedPreconditionError, InvalidArgumentError
from forage.registry import DirectoryRegistry
from orchestrator.bandit import Engagement
from orchestrator.planner import Planner
from tests.unit.orchestrator_decisions import configured, phi, prior

RANKS = {"lexical": 30, "semantic": 5}


def logged(settings, number: int, policy: str = "", **changes) -> LoggedDecision:
    """Return a search as traffic makes it, with the propensity that would be read."""
    planner, request_id = Planner(settings), f"r{number}"
    planned = planner.plan(
        phi(number),
        changes.pop("masked", {}),
        prior(settings),
        request_id=request_id,
        override=policy,
    )
    found = planner.propensity(planned, request_id, 128)
    shares = {policy: 1.0} if policy else sampled_shares(settings)
    own = shares.get(planned.policy, 0.0) if found.draws else 0.0
    values = {
        "request_id": request_id,
        "context": planned.context,
        "action": planned.choice.action,
        "propensity": inclusive_propensity(
            found.value, found.draws, sampled=sum(shares.values()), own=own
        ),
        "draws": found.draws,
        "own_share": own,
        "marginals": found.marginals,
        "reward": 0.0,
        "engagements": (),
        "full_pull": policy == "full",
        **changes,
    }
    return LoggedDecision(**values)


def test_a_policy_that_is_its_own_target_has_weights_of_one():
    settings = configured()
    decisions = [logged(settings, n, "static") for n in range(20)]

    sample = make_sample(decisions, TargetPolicy("static", settings, prior(settings)))

    assert sample.weight == pytest.approx(1.0)
    assert sample.features == pytest.approx(sample.expected_features)
    assert sample.additive_weight == pytest.approx(1.0)
    assert sample.unsupported == pytest.approx(0.0)
    assert sample.target_cost == pytest.approx(sample.logged_cost)


def test_traffic_as_its_own_target_weighs_one_on_average():
    settings = configured(plan={"uniform_share": 0.3, "full_share": 0.1})
    decisions = [logged(settings, n) for n in range(250)]

    sample = make_sample(decisions, TargetPolicy("traffic", settings, prior(settings), draws=300))

    assert sample.weight.mean() == pytest.approx(1.0, abs=0.15)
    assert sample.additive_weight.mean() == pytest.approx(1.0, abs=0.15)


def test_a_target_never_calls_what_was_masked_or_beyond_its_budget():
    settings = configured(plan={"budget": 12})
    decision = logged(settings, 1, "full", masked={"lexical": "DISABLED"})

    for name in ("thompson", "static", "uniform"):
        target = TargetPolicy(name, settings, prior(settings)).distribution(decision)
        for action in target.frequencies:
            assert action[0] == 0
            assert decision.context.total_cost(action) <= 12


def test_replay_counts_what_the_target_would_have_held():
    settings = configured(plan={"static": {"lexical": 25}, "budget": 100})
    engaged = (Engagement(0.6, RANKS),)
    decision = logged(settings, 1, "full", engagements=engaged, reward=0.6)

    def covered(policy: str) -> float:
        return make_sample(
            [decision], TargetPolicy(policy, settings, prior(settings))
        ).covered.item()

    assert covered("full") == pytest.approx(0.6)
    assert covered("static") == 0.0
    assert covered("uniform") == pytest.approx(0.6)


def test_a_level_that_the_logger_never_took_is_a_support_violation():
    settings = configured(plan={"static": {"lexical": 25}})
    marginals = np.zeros((3, 5))
    marginals[:, 0] = 1.0
    decision = logged(settings, 1, "uniform", marginals=marginals, own_share=1.0)

    sample = make_sample([decision], TargetPolicy("static", settings, prior(settings)))

    assert sample.unsupported.tolist() == [1.0]


def test_without_marginals_there_is_no_pseudo_inverse_and_support_is_unknown():
    settings = configured()
    decisions = [logged(settings, n, "static", marginals=None) for n in range(5)]

    sample = make_sample(decisions, TargetPolicy("static", settings, prior(settings)))

    assert not len(sample.additive_weight)
    assert assess(sample, target="static").diagnostics.unsupported is None


def test_the_same_seed_gives_the_same_sample():
    settings = configured()
    decisions = [logged(settings, n) for n in range(5)]

    first, again, other = (
        make_sample(decisions, TargetPolicy("thompson", settings, prior(settings), seed=seed))
        for seed in (1, 1, 2)
    )

    assert first.target.tolist() == again.target.tolist()
    assert first.expected_features.tolist() != other.expected_features.tolist()


def test_progress_ends_at_one():
    settings, heard = configured(), []
    decisions = [logged(settings, n, "static") for n in range(45)]

    make_sample(decisions, TargetPolicy("static", settings, prior(settings)), progress=heard.append)

    assert heard == sorted(heard)
    assert heard[-1] == 1.0


def test_an_unknown_policy_is_refused_with_those_there_are():
    settings = configured()
    with pytest.raises(InvalidArgumentError, match=r"policy: there is no policy 'best'.*thompson"):
        TargetPolicy("best", settings, prior(settings))
    with pytest.raises(InvalidArgumentError, match="draws"):
        TargetPolicy("static", settings, prior(settings), draws=0)


def test_a_target_with_other_generators_or_fan_outs_is_refused():
    decision = logged(configured(), 1, "static")
    other = configured(plan={"fan_outs": [0, 10, 50]})

    with pytest.raises(InvalidArgumentError, match=r"plan\.fan_outs: .*0, 10, 25, 50, 100"):
        make_sample([decision], TargetPolicy("static", other, prior(other)))


def test_snapshots_are_the_prior_the_current_one_or_refused(tmp_path):
    settings, registry = configured(), DirectoryRegistry(tmp_path)

    assert snapshot_of(settings, registry, None).version == 0
    assert snapshot_of(settings, registry, 0).version == 0
    with pytest.raises(FailedPreconditionError, match="snapshot 3 has been pruned"):
        snapshot_of(settings, registry, 3)


@settings(max_examples=30)
@given(st.lists(st.floats(0.1, 1), min_size=4, max_size=4), st.integers(0, 2**31))
def test_features_of_a_policy_are_the_mean_of_those_of_its_plans(shares, seed):
    rng = np.random.default_rng(seed)
    weights = np.array(shares) / sum(shares)
    context = rng.random((3, 5))
    actions = rng.integers(0, 4, (4, 3))

    together = plan_features(context, actions, weights, 4)
    single = [plan_features(context, actions[k : k + 1], np.ones(1), 4) for k in range(4)]

    assert together == pytest.approx(weights @ np.array(single))
