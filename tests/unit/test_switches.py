"""Switches and the mask: who may not be called, why, and that all orchestrators agree."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest

from forage.errors import NotFoundError
from forage.registry import DirectoryRegistry
from forage.retrieval import Deadline, Query, QueryClass
from orchestrator.breaker import Breaker
from orchestrator.context import GeneratorHistory
from orchestrator.settings import BreakerSettings, OrchestratorSettings
from orchestrator.switches import Mask, Switches
from tests.unit.orchestrator_decisions import NAMES, configured


@pytest.fixture
def registry(tmp_path: Path) -> DirectoryRegistry:
    return DirectoryRegistry(tmp_path)


def without(name: str) -> OrchestratorSettings:
    targets = {n: {"target": "127.0.0.1:1", "enabled": n != name} for n in NAMES}
    return configured(generators=targets)


class Latencies:
    """A history of latencies only."""

    def __init__(self, **latencies: float) -> None:
        self._latencies = latencies

    def engagements(self, normalized_query: str) -> float:
        return 0.0

    def generator(
        self, name: str, query_class: QueryClass, normalized_query: str
    ) -> GeneratorHistory:
        return GeneratorHistory(0.3, 0.3, 0.5, self._latencies.get(name, 0.01))


def masked(switches, breakers=None, *, seconds=1.0, **latencies) -> dict[str, str]:
    given = {n: Breaker(BreakerSettings()) for n in NAMES} | (breakers or {})
    mask = Mask(configured(), switches, given)
    return mask.masked(Latencies(**latencies), Query(), Deadline.after(seconds))


def test_a_switch_is_seen_by_everybody_and_by_those_who_come_later(registry):
    mine, yours = Switches(configured(), registry), Switches(configured(), registry)

    mine.switch("semantic", enabled=False)
    yours.refresh()
    later = Switches(configured(), registry)
    later.refresh()

    assert mine.disabled == yours.disabled == later.disabled == {"semantic"}


def test_switching_twice_and_back_is_harmless(registry):
    switches = Switches(configured(), registry)

    for enabled in (False, False, True, True):
        switches.switch("lexical", enabled=enabled)

    assert switches.disabled == frozenset()


def test_switches_of_others_are_kept(registry):
    mine, yours = Switches(configured(), registry), Switches(configured(), registry)

    mine.switch("semantic", enabled=False)
    yours.switch("lexical", enabled=False)
    mine.refresh()

    assert mine.disabled == {"lexical", "semantic"}


def test_switching_from_many_threads_loses_none(registry):
    switches = [Switches(configured(), registry) for _ in NAMES]
    threads = [
        threading.Thread(target=s.switch, args=(name,), kwargs={"enabled": False})
        for s, name in zip(switches, NAMES, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    switches[0].refresh()

    assert switches[0].disabled == set(NAMES)


def test_what_the_configuration_disables_no_switch_enables(registry):
    switches = Switches(without("memory"), registry)

    switches.switch("memory", enabled=True)

    assert switches.disabled == {"memory"}


def test_an_unknown_generator_is_not_found(registry):
    with pytest.raises(NotFoundError, match="configured: lexical, memory, semantic") as refused:
        Switches(configured(), registry).switch("graph", enabled=False)

    assert refused.value.metadata == {"field": "generator"}
    assert registry.current("switches") is None


def test_a_generator_that_is_gone_from_the_configuration_may_stay_switched_off(registry):
    Switches(configured(), registry).switch("memory", enabled=False)
    fewer = configured(
        generators={"lexical": {"target": "127.0.0.1:1"}},
        plan={"static": {"lexical": 10}, "presets": [{"lexical": 10}]},
    )
    switches = Switches(fewer, registry)
    switches.refresh()

    switches.switch("lexical", enabled=False)

    assert switches.disabled == {"lexical", "memory"}


def test_each_reason_is_given_and_the_switch_first(registry):
    switches = Switches(configured(), registry)
    switches.switch("lexical", enabled=False)
    broken = Breaker(BreakerSettings(failures=1, cool_down_ms=60_000))
    broken.failed(math.inf)

    found = masked(switches, {"semantic": broken, "lexical": broken}, seconds=0.5, memory=0.7)

    assert found == {"lexical": "DISABLED", "semantic": "BREAKER_OPEN", "memory": "NO_TIME"}


def test_with_time_enough_and_all_well_nobody_is_masked(registry):
    assert masked(Switches(configured(), registry), memory=0.7, seconds=2.0) == {}
