"""What is read from the event log, and what is said of a log that cannot be used."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as quick
from hypothesis import strategies as st
from scipy.stats import binom

from evaluation.ope.decisions import (
    BAD_FEEDBACK,
    BAD_PROPENSITY,
    DAMAGED,
    NO_PROPENSITY,
    OTHER_ACTIONS,
    OTHER_FEATURES,
    OVERRIDE,
    TOO_FRESH,
    UNKNOWN_FEEDBACK,
    inclusive_propensity,
    open_decisions,
    read_decisions,
)
from forage.errors import FailedPreconditionError, InvalidArgumentError, StartupError
from forage.log import Event, Stream
from forage.log.sqlite import SqliteEventLog
from forage.registry import DirectoryRegistry
from forage.v1 import decision_pb2, plan_pb2
from orchestrator.learning import PolicyProjection
from tests.unit.orchestrator_decisions import START, configured, decided, feedback, page, search

LATE = 1_000.0


@pytest.fixture
def log(tmp_path):
    with_log = SqliteEventLog.open(tmp_path / "log.db")
    yield with_log
    with_log.close()


def logged(settings, request_id: str, at: float, **changes) -> decision_pb2.Decision:
    """Return a search as traffic brings it, with propensity."""
    decision = decided(settings, request_id, at=at, **changes)
    decision.plan.source = plan_pb2.PLAN_SOURCE_POLICY
    decision.propensity = 0.25
    decision.propensity_draws = 128
    for call in decision.plan.calls:
        levels = [1.0 if f == call.fan_out else 0.0 for f in call.fan_out_levels]
        decision.marginals.add(generator=call.generator, probabilities=levels)
    return decision


def close(settings) -> decision_pb2.Decision:
    """Return a search that lets enough time pass for those before it to be complete."""
    return logged(settings, "last", LATE)


def test_rewards_are_those_that_the_learner_learns_from(tmp_path, log):
    settings = configured(data_dir=str(tmp_path))
    searches = [logged(settings, f"r{n}", float(n)) for n in range(3)]
    second = page(searches[2], at=2.5, item_id="item:11")
    log.append([search(d) for d in (*searches, second)])
    log.append(
        [
            feedback("e1", "r0", "item:1", at=3.0, kind=1),
            feedback("e2", "r0", "item:1", at=3.1, kind=2, amount=0.7),
            feedback("e3", "r0", "item:3", at=3.2, kind=4),
            feedback("e4", "r2", "item:2", at=3.3),
            feedback("e5", "r2~10~10", "item:11", at=3.4),
        ]
    )
    log.append([search(close(settings))])
    heard: list[float] = []
    learner = PolicyProjection(
        settings,
        log,
        DirectoryRegistry(tmp_path / "registry"),
        None,
        on_reward=lambda policy, reward: heard.append(reward),
    )

    found = read_decisions(log, settings)
    learner.apply(log.read("interactions", 0, 100))

    rewards = {d.request_id: d.reward for d in found.decisions}
    assert list(rewards.values()) == pytest.approx(heard)
    assert rewards["r0"] == pytest.approx(0.7)
    assert rewards["r1"] == 0.0
    assert rewards["r2"] == pytest.approx(1 / math.log2(3) + 1 / math.log2(12))
    assert found.skipped == {TOO_FRESH: 1}


def test_an_action_is_the_planned_levels(tmp_path, log):
    settings = configured(data_dir=str(tmp_path))
    log.append([search(logged(settings, "r1", 0.0)), search(close(settings))])

    (decision,) = read_decisions(log, settings).decisions

    assert decision.action == (1, 1, 1)
    assert decision.marginals[:, 1].tolist() == [1.0, 1.0, 1.0]
    assert not decision.full_pull


def test_propensities_lose_their_halves_and_count_what_was_sampled(tmp_path, log):
    settings = configured(data_dir=str(tmp_path), plan={"uniform_share": 0.2, "full_share": 0.1})
    by_preset, by_thompson = (logged(settings, name, 0.0) for name in ("r1", "r2"))
    by_preset.plan.source = plan_pb2.PLAN_SOURCE_UNIFORM
    by_thompson.plan.policy = "thompson"
    log.append([search(d) for d in (by_preset, by_thompson, close(settings))])

    found = [d.propensity for d in read_decisions(log, settings).decisions]

    assert found == pytest.approx([0.25 - 0.35 / 129, 0.25 + 0.35 / 129])


@quick(max_examples=40)
@given(st.floats(0.001, 0.999), st.floats(0.05, 0.5), st.floats(0.25, 1), st.integers(50, 200))
def test_weights_by_drawn_propensities_average_one(thompson, exact_share, exact, draws):
    # One action: an exact policy takes it with chance `exact`, a sampled one with `thompson`.
    share, certain = 1 - exact_share, exact_share * exact

    mean = certain * mean_inverse(thompson, draws, share, certain, own=0.0)
    mean += share * thompson * mean_inverse(thompson, draws, share, certain, own=share)

    assert mean == pytest.approx(1.0, abs=0.2 / (draws * certain))


@quick(max_examples=40)
@given(st.floats(0.01, 0.999), st.integers(1, 50))
def test_what_only_sampling_takes_weighs_one_but_for_what_no_draw_found(thompson, draws):
    mean = thompson * mean_inverse(thompson, draws, 1.0, 0.0, own=1.0)

    assert mean == pytest.approx(1 - (1 - thompson) ** (draws + 1))


def mean_inverse(thompson, draws, share, certain, *, own) -> float:
    """Return the mean of 1 / propensity over what the draws behind it may find."""
    counts = np.arange(draws + 1)
    logged = certain + share * (counts + 0.5) / (draws + 1)
    used = [inclusive_propensity(float(p), draws, sampled=share, own=own) for p in logged]
    return float(binom(draws, thompson).pmf(counts) @ (1 / np.array(used)))


def test_exact_propensities_are_taken_as_they_are():
    assert inclusive_propensity(0.3, 0, sampled=1.0, own=1.0) == 0.3
    assert inclusive_propensity(0.001, 10, sampled=1.0, own=0.0) == 0.001


def test_a_full_pull_is_one_that_was_answered_in_full(tmp_path, log):
    settings = configured(data_dir=str(tmp_path), plan={"budget": 1_000})
    answered = logged(settings, "r1", 0.0, policy="full")
    timed_out = logged(
        settings,
        "r2",
        1.0,
        policy="full",
        statuses={"semantic": plan_pb2.OUTCOME_STATUS_TIMED_OUT},
    )
    for decision in (answered, timed_out):
        decision.plan.source = plan_pb2.PLAN_SOURCE_FULL
    log.append([search(d) for d in (answered, timed_out, close(settings))])

    decisions = read_decisions(log, settings).decisions

    assert [d.full_pull for d in decisions] == [True, False]


def spoiled(settings, how: str) -> decision_pb2.Decision:
    decision = logged(settings, "bad", 1.0)
    if how == NO_PROPENSITY:
        decision.propensity = 0.0
    elif how == BAD_PROPENSITY:
        decision.propensity = math.nan
    elif how == OTHER_FEATURES:
        decision.plan.feature_version = "old"
    elif how == OTHER_ACTIONS:
        decision.plan.calls[0].generator = "renamed"
    elif how == OVERRIDE:
        decision.plan.source = plan_pb2.PLAN_SOURCE_OVERRIDE
    elif how == DAMAGED:
        decision.plan.calls[0].fan_out = 7
    return decision


FIELDS = {
    NO_PROPENSITY: "propensity: none of 1 .* plan.propensity_draws",
    BAD_PROPENSITY: "propensity: none of 1",
    OTHER_FEATURES: "plan.feature_version: none of 1",
    OTHER_ACTIONS: "plan.calls: none of 1",
    OVERRIDE: "plan.source: none of 1",
    DAMAGED: "plan.calls: none of 1",
}


@pytest.mark.parametrize("how", list(FIELDS))
def test_what_cannot_be_used_is_counted_and_alone_is_an_error(tmp_path, log, how):
    settings = configured(data_dir=str(tmp_path), learner={"delay_s": 0})
    log.append([search(spoiled(settings, how))])
    with pytest.raises(InvalidArgumentError, match=FIELDS[how]):
        read_decisions(log, settings)

    log.append([search(logged(settings, "good", 2.0))])
    found = read_decisions(log, settings)

    assert [d.request_id for d in found.decisions] == ["good"]
    assert found.skipped == {how: 1}


def test_feedback_that_is_not_a_number_spoils_its_search_alone(tmp_path, log):
    settings = configured(data_dir=str(tmp_path))
    log.append([search(logged(settings, name, 0.0)) for name in ("r1", "r2")])
    log.append(
        [
            feedback("e1", "r1", "item:1", at=1.0, amount=math.nan),
            feedback("e2", "r2", "item:1", at=1.0),
            feedback("e3", "r2", "never shown", at=1.0),
            feedback("e4", "no such search", "item:1", at=1.0),
            feedback("e5", "r2", "item:1", at=1.0, kind=0),
            Event(Stream.FEEDBACK, "e6", b"\xff\xff\xff", START),
            Event(Stream.DECISIONS, "r3", b"\xff\xff\xff", START),
        ]
    )
    log.append([search(close(settings))])

    found = read_decisions(log, settings)

    assert [(d.request_id, d.reward) for d in found.decisions] == [("r2", 1.0)]
    assert found.skipped == {BAD_FEEDBACK: 1, UNKNOWN_FEEDBACK: 2, DAMAGED: 3, TOO_FRESH: 1}


def test_a_missing_log_is_a_start_up_error_and_is_not_created(tmp_path):
    with pytest.raises(StartupError, match=r"log\.db: there is no such file"):
        open_decisions(configured(data_dir=str(tmp_path)))

    assert not list(tmp_path.iterdir())


def test_an_empty_log_has_no_searches(tmp_path, log):
    settings = configured(data_dir=str(tmp_path))
    storage = open_decisions(settings)

    with pytest.raises(FailedPreconditionError, match="has no searches"):
        read_decisions(storage.log, settings)
    storage.close()


def test_a_log_by_an_unknown_engine_is_refused():
    with pytest.raises(StartupError, match="log_url: 'kafka://somewhere' is not supported"):
        open_decisions(configured(log_url="kafka://somewhere"))
