"""The breaker: it opens after failures in a row, and lets one call at a time see if all is well."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.breaker import Breaker
from orchestrator.settings import BreakerSettings

SETTINGS = BreakerSettings(failures=3, cool_down_ms=1_000)


def opened(at: float) -> Breaker:
    breaker = Breaker(SETTINGS)
    for _ in range(3):
        breaker.started(at)
        breaker.failed(at)
    return breaker


def test_it_opens_with_the_last_of_enough_failures_in_a_row():
    breaker = Breaker(SETTINGS)

    allowed = []
    for _ in range(3):
        allowed.append(breaker.allows(10.0))
        breaker.started(10.0)
        breaker.failed(10.0)

    assert allowed == [True, True, True]
    assert breaker.is_open(10.0)
    assert breaker.is_open(10.999)


def test_its_state_is_closed_then_open_then_half_open_until_a_call_probes():
    closed, breaker = Breaker(SETTINGS), opened(10.0)

    before = breaker.state(10.999)
    due = breaker.state(11.0)
    breaker.started(11.0)
    probing = breaker.state(11.0)
    breaker.succeeded()

    assert closed.state(10.0) == 0
    assert (before, due, probing) == (2, 1, 2)
    assert breaker.state(11.0) == 0


def test_a_success_forgives_the_failures_before_it():
    breaker = Breaker(SETTINGS)
    for _ in range(2):
        breaker.failed(1.0)
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(2.0)

    assert breaker.allows(2.0)


def test_after_the_cool_down_one_call_may_try_and_the_others_wait():
    breaker = opened(10.0)

    assert breaker.allows(11.0)
    breaker.started(11.0)
    assert breaker.is_open(11.0)
    assert breaker.is_open(11.9)


def test_a_probe_that_succeeds_closes_it():
    breaker = opened(10.0)
    breaker.started(11.0)
    breaker.succeeded()

    assert breaker.allows(11.1)
    breaker.failed(11.1)
    assert breaker.allows(11.1)


def test_a_probe_that_fails_opens_it_again_at_once():
    breaker = opened(10.0)
    breaker.started(11.0)
    breaker.failed(11.2)

    assert breaker.is_open(12.1)
    assert breaker.allows(12.2)


def test_a_probe_that_is_never_answered_does_not_keep_it_shut():
    breaker = opened(10.0)
    breaker.started(11.0)

    assert breaker.allows(12.0)


@given(st.lists(st.sampled_from(["failed", "succeeded", "wait"]), max_size=40))
def test_it_is_never_open_without_enough_failures_in_a_row(history):
    breaker, now, row = Breaker(SETTINGS), 0.0, 0
    for what in history:
        now += 2.0 if what == "wait" else 0.01
        if what == "failed":
            breaker.failed(now)
            row += 1
        elif what == "succeeded":
            breaker.succeeded()
            row = 0
        if row < SETTINGS.failures:
            assert breaker.allows(now)
        elif what == "failed":
            assert breaker.is_open(now)
