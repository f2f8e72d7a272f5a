"""What each generator's order is worth in fusion: what it finds alone, whatever the plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.bandit import Engagement, Learner, observe
from orchestrator.learning import bandit_settings
from orchestrator.planner import Planner, Versioned
from orchestrator.settings import POLICIES
from tests.unit.orchestrator_decisions import NAMES, configured, phi, prior

SETTINGS = configured()
PRIOR = prior(SETTINGS)
PLANNER = Planner(SETTINGS)


def test_fusion_trusts_what_a_generator_finds_even_if_it_adds_nothing():
    learner = Learner(bandit_settings(SETTINGS))
    levels = learner.snapshot().levels
    found = [Engagement(1.0, {"lexical": 1, "memory": 1})]
    executed = {"lexical": 10, "memory": 10, "semantic": 10}
    for step in range(200):
        alone, added = (
            observe(
                levels, NAMES, phi(), executed=executed, engagements=found, precedence=precedence
            )
            for precedence in ((), ("memory", "lexical", "semantic"))
        )
        learner.observe(alone, time=1.0 + step, sequence=step + 1, added=added)
    taught = Versioned.of(1, learner.snapshot())
    planned = PLANNER.plan(phi(), {}, taught, request_id="a", override="thompson")

    weights = PLANNER.weights(planned)

    adds = dict(zip(planned.context.generators, planned.choice.p_hit[:, 1], strict=True))
    assert adds["lexical"] < 0.1 < 0.9 < adds["memory"]
    assert weights["lexical"] == pytest.approx(weights["memory"], abs=0.02)
    assert weights["memory"] > 0.9
    assert 0 < weights["semantic"] < 0.1


@settings(max_examples=20)
@given(seed=st.integers(0, 1_000), policy=st.sampled_from(POLICIES))
def test_weights_in_fusion_do_not_depend_on_the_plan(seed, policy):
    context = 3 * np.random.default_rng(seed).normal(size=phi().shape)
    context[:, 0] = 1.0
    plans = [
        PLANNER.plan(context, {}, PRIOR, request_id=request_id, override=policy)
        for request_id in ("a", "b")
    ]

    weights = [PLANNER.weights(planned) for planned in plans]

    assert weights[0] == weights[1]
    assert set(weights[0]) == set(NAMES)
    assert all(0 < weight <= 1 for weight in weights[0].values())
