"""What a search still is when too many ask: plans narrow, and only then is it refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from forage.testing.lists import ListGenerator
from forage.testing.serving import eventually
from tests.service.orchestrator_mesh import (
    IDS,
    BrittleLog,
    degraded,
    ids,
    meshed,
    on_log,
    refusal,
)

PATIENT = {name: {"timeout_ms": 2_000} for name in ("lexical", "semantic")}


async def test_plans_narrow_before_searches_are_refused(tmp_path: Path) -> None:
    generators = [
        ListGenerator("lexical", IDS, delay_s=0.5),
        ListGenerator("semantic", IDS, delay_s=0.5),
    ]
    load = {"soft_limit": 2, "hard_limit": 8, "least_budget_share": 0.2}
    plan = {"static": {"lexical": 25, "semantic": 25}, "presets": [{"lexical": 10}], "budget": 6}
    async with meshed(
        tmp_path, generators=generators, targets=PATIENT, load=load, plan=plan
    ) as mesh:
        calm = await mesh.search("calm")
        answers: list[Any] = await asyncio.gather(
            *(mesh.search(f"crowd {n}") for n in range(12)), return_exceptions=True
        )
        refused = [a for a in answers if isinstance(a, Exception)]
        answered = [a for a in answers if not isinstance(a, Exception)]
        again = await mesh.search("calm again")

    assert not calm.degraded
    assert not again.degraded
    assert len(answered) == 8
    assert {error.code().name for error in refused} == {"RESOURCE_EXHAUSTED"}  # type: ignore[attr-defined]
    narrowed = [a for a in answered if degraded(a).get("plan") == "BUDGET_NARROWED"]
    assert 0 < len(narrowed) < len(answered)
    full = sum(o.fan_out for o in calm.outcomes)
    assert all(sum(o.fan_out for o in a.outcomes) < full for a in narrowed)
    assert all(a.results for a in answered)


async def test_a_refusal_for_overload_names_the_limit(tmp_path: Path) -> None:
    generators = [ListGenerator("lexical", IDS, delay_s=0.5)]
    load = {"soft_limit": 1, "hard_limit": 2}
    async with meshed(tmp_path, generators=generators, targets=PATIENT, load=load) as mesh:
        running = [asyncio.create_task(mesh.search(f"x {n}")) for n in range(2)]
        await eventually(lambda: len(mesh.generators["lexical"].requests) == 2)
        found = await refusal(lambda: mesh.search("one too many"))
        await asyncio.gather(*running)

    assert (found.code, found.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert found.metadata == {"limit": "2"}


async def test_searches_that_wait_for_a_write_hold_up_no_others(tmp_path: Path) -> None:
    log = BrittleLog()
    server = {"port": 0, "grace_ms": 0, "workers": 1}
    async with meshed(tmp_path, service=on_log(log), deadline_ms=5_000, server=server) as mesh:
        log.readable.clear()
        written = await mesh.delete("film:none")
        waiting = [
            asyncio.create_task(mesh.search("waits", min_catalog_sequence=written))
            for _ in range(6)
        ]
        response = await mesh.search("does not wait", request_id="does-not-wait")
        too_long = await refusal(
            lambda: mesh.search("waits in vain", min_catalog_sequence=written, timeout_s=0.3)
        )
        still_waiting = not any(task.done() for task in waiting)
        log.readable.set()
        answers = await asyncio.gather(*waiting)

    assert response.results
    assert still_waiting
    assert too_long.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert all(ids(answer) for answer in answers)
