"""Hedged calls, with calls that take as long as the test says."""

import asyncio

import pytest

from forage.channel import replicated, target
from forage.errors import InvalidArgumentError
from orchestrator.hedging import Hedge
from orchestrator.settings import GeneratorTarget, HedgeSettings

EAGER = HedgeSettings(most_share=1.0, least_ms=5, most_ms=20)


class Service:
    """Answers its n-th call with n, after the n-th delay; None is an error."""

    def __init__(self, *delays_s):
        self._delays_s = iter(delays_s)
        self.timeouts = []
        self.cancelled = 0

    def __call__(self, timeout_s):
        self.timeouts.append(timeout_s)
        return self._answer(len(self.timeouts), next(self._delays_s))

    async def _answer(self, number, delay_s):
        if delay_s is None:
            raise ConnectionError(f"call {number}")
        try:
            await asyncio.sleep(delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return number


def hedge_of(settings=EAGER):
    outcomes = []
    return Hedge(settings, outcomes.append), outcomes


async def test_a_quick_call_is_made_once():
    hedge, outcomes = hedge_of()
    service = Service(0)

    assert await hedge.call(service, 1.0) == 1
    assert (len(service.timeouts), outcomes) == (1, [])


async def test_a_slow_call_loses_to_its_repetition_and_is_cancelled():
    hedge, outcomes = hedge_of()
    service = Service(5.0, 0)

    assert await hedge.call(service, 10.0) == 2
    await asyncio.sleep(0)
    assert (service.cancelled, outcomes) == (1, ["won"])


async def test_a_repetition_that_is_slower_is_cancelled():
    hedge, outcomes = hedge_of()
    service = Service(0.06, 5.0)

    assert await hedge.call(service, 10.0) == 1
    await asyncio.sleep(0)
    assert (service.cancelled, outcomes) == (1, ["lost"])


async def test_the_repetition_has_only_the_time_that_is_left():
    hedge, _ = hedge_of()
    service = Service(5.0, 0)

    await hedge.call(service, 1.0)

    assert service.timeouts[0] == 1.0
    assert service.timeouts[1] <= 0.98


async def test_a_failure_waits_for_the_other_answer():
    hedge, outcomes = hedge_of()

    assert await hedge.call(Service(0.06, None), 1.0) == 1
    assert outcomes == ["lost"]


async def test_a_call_that_fails_at_once_is_not_repeated():
    hedge, outcomes = hedge_of()
    service = Service(None, 0)

    with pytest.raises(ConnectionError, match="call 1"):
        await hedge.call(service, 1.0)

    assert (len(service.timeouts), outcomes) == (1, [])


async def test_who_gives_up_waiting_cancels_both():
    hedge, outcomes = hedge_of()
    service = Service(5.0, 5.0)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await hedge.call(service, 10.0)
    await asyncio.sleep(0)

    assert (service.cancelled, outcomes) == (2, [])


async def test_no_more_than_the_configured_share_of_calls_is_repeated():
    hedge, outcomes = hedge_of(HedgeSettings(most_share=0.25, least_ms=1, most_ms=1))

    for _ in range(40):
        await hedge.call(Service(0.01, 0), 1.0)

    assert len(outcomes) == 10


async def test_a_share_of_none_repeats_nothing():
    hedge, outcomes = hedge_of(HedgeSettings(most_share=0, least_ms=1, most_ms=1))

    for _ in range(20):
        await hedge.call(Service(0.005), 1.0)

    assert outcomes == []


async def test_the_delay_is_the_quantile_of_recent_latencies_within_its_bounds():
    hedge, _ = hedge_of(HedgeSettings(most_share=0, least_ms=1, most_ms=50))
    assert hedge.delay_s == 0.05, "while nothing is known"

    for index in range(40):
        await hedge.call(Service(0.02 if index % 10 == 0 else 0), 1.0)

    assert 0.02 <= hedge.delay_s <= 0.05


def test_bounds_that_cross_are_refused():
    with pytest.raises(ValueError, match="least_ms must not be above most_ms"):
        HedgeSettings(least_ms=50, most_ms=20)


@pytest.mark.parametrize(
    ("address", "expected", "many"),
    [
        ("localhost:7101", "localhost:7101", False),
        ("[::1]:7101", "[::1]:7101", False),
        ("10.0.0.1:1,10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2", True),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2", True),
        ("dns:///lexical.search.svc:7101", "dns:///lexical.search.svc:7101", True),
    ],
)
def test_an_address_names_one_server_or_its_replicas(address, expected, many):
    assert target(address) == expected
    assert replicated(address) is many


@pytest.mark.parametrize(
    "address",
    [
        "",
        "lexical",
        "lexical:port",
        "lexical:0",
        "lexical:70000",
        ":7101",
        "10.0.0.1:1,",
        "10.0.0.1:1,lexical:2",
        "10.0.0.1:1,[::1]:2",
        "dns:///",
        "dns:lexical:7101",
        "dns:///a:1,b:1",
        "http://lexical:7101",
    ],
)
def test_a_bad_address_is_refused_with_what_is_allowed(address):
    with pytest.raises(InvalidArgumentError, match="allowed: HOST:PORT"):
        target(address)
    with pytest.raises(ValueError, match="cannot be connected to"):
        GeneratorTarget(target=address)
