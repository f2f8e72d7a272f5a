"""The policy service: what was decided, that it would be decided again, and the switches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from forage.registry import DirectoryRegistry
from forage.testing.serving import eventually
from forage.v1 import plan_pb2
from forage.v1 import policy_service_pb2 as pb
from orchestrator.learning import POLICY
from orchestrator.settings import POLICIES
from tests.service.orchestrator_mesh import (
    Mesh,
    degraded,
    ids,
    lists,
    meshed,
    orchestrating,
    refusal,
    statuses,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
LEARNING = {
    "plan": {"traffic": {"thompson": 1.0}},
    "learner": {"delay_s": 0, "publish_every_s": 0.05},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with meshed(tmp_path_factory.mktemp("policy"), **LEARNING) as found:
        yield found


async def replay(mesh: Mesh, request_id: str) -> Any:
    return await mesh.policy.ReplayDecision(pb.ReplayDecisionRequest(request_id=request_id))


async def get_policy(mesh: Mesh) -> Any:
    return await mesh.policy.GetPolicy(pb.GetPolicyRequest())


async def switch(mesh: Mesh, generator: str, *, enabled: bool) -> list[str]:
    request = pb.SetGeneratorEnabledRequest(generator=generator, enabled=enabled)
    return list((await mesh.policy.SetGeneratorEnabled(request)).disabled)


@pytest.mark.parametrize("policy", POLICIES)
async def test_every_policy_can_be_asked_for_and_replays_exactly(mesh: Mesh, policy: str) -> None:
    response = await mesh.search("by name", policy=policy)
    replayed = await replay(mesh, response.request_id)

    assert replayed.recorded.policy == policy
    assert replayed.recorded.source == plan_pb2.PLAN_SOURCE_OVERRIDE
    assert replayed.identical
    assert replayed.replayed == replayed.recorded


async def test_a_decision_holds_what_was_shown_found_and_planned(mesh: Mesh) -> None:
    response = await mesh.search("record", page_size=4)
    decision = await mesh.recorded(response.request_id)

    assert [d.item_id for d in decision.displayed] == ids(response)
    assert len(decision.displayed) + len(decision.later) == response.total_candidates
    assert 0 < decision.propensity <= 1
    assert decision.propensity_draws == 16
    assert [m.generator for m in decision.marginals] == list(mesh.generators)
    for marginal in decision.marginals:
        assert sum(marginal.probabilities) == pytest.approx(1)
    assert decision.outcomes == response.outcomes
    assert decision.query == response.understood
    assert decision.model_version == 7
    assert list(decision.feature_names) == ["fused_score"]
    assert all(len(d.features) == 1 for d in decision.displayed)
    assert not any(d.features for d in decision.later)
    found = {i: p for i, p in zip(ids(response), response.results, strict=True)}
    for shown in decision.displayed:
        assert list(shown.provenance) == list(found[shown.item_id].provenance)


async def test_a_later_page_is_replayed_by_the_search_that_decided_it(mesh: Mesh) -> None:
    first = await mesh.search("pages", page_size=3)
    second = await mesh.search("pages", page_size=3, page_token=first.next_page_token)

    assert (await replay(mesh, second.request_id)).identical


@pytest.mark.parametrize("request_id", ["", "nobody", "x" * 100_000, "a\0b", "§"])
async def test_an_unknown_search_is_not_found(mesh: Mesh, request_id: str) -> None:
    shown = await refusal(lambda: mesh.decision(request_id))
    replayed = await refusal(lambda: replay(mesh, request_id))

    for found in (shown, replayed):
        assert (found.code, found.reason) == ("NOT_FOUND", "NOT_FOUND")
        assert found.metadata["field"] == "request_id"


async def test_an_unknown_generator_cannot_be_switched(mesh: Mesh) -> None:
    for name in ("", "lexica", "x" * 100_000):
        found = await refusal(lambda n=name: switch(mesh, n, enabled=False))
        assert (found.code, found.metadata["field"]) == ("NOT_FOUND", "generator")


async def test_the_policy_tells_what_was_chosen_and_learned(tmp_path: Path) -> None:
    async with meshed(tmp_path, **LEARNING) as mesh:
        before = await get_policy(mesh)
        for number in range(5):
            response = await mesh.search(f"learn {number}", policy="static")
            await mesh.click(response, ids(response)[0], f"learn-{number}")

        async def learned() -> bool:
            await mesh.search("the time goes on", policy="static")
            state = await get_policy(mesh)
            return bool(state.observations > 0 and state.recent_searches >= 5)

        await eventually(learned)
        after = await get_policy(mesh)

    assert dict(before.traffic) == {"thompson": 1.0}
    assert after.snapshot_version > before.snapshot_version
    by_name = {arm.generator: arm for arm in after.arms}
    assert list(by_name) == ["lexical", "semantic", "exploration"]
    assert all(arm.enabled and arm.labels > 0 and arm.mean_fan_out == 10 for arm in after.arms)
    assert sum(arm.hit_share for arm in after.arms) >= 1
    assert not after.fallback_reason


async def test_a_switched_off_generator_is_not_called_and_stays_off_after_a_restart(
    tmp_path: Path,
) -> None:
    async with meshed(tmp_path) as mesh:
        disabled = await switch(mesh, "semantic", enabled=False)
        response = await mesh.search("off")
    calls = len(mesh.generators["semantic"].requests)
    async with meshed(tmp_path, items=()) as mesh:
        again = await mesh.search("still off")
        both = await switch(mesh, "lexical", enabled=False)
        on = await switch(mesh, "semantic", enabled=True)
        last = await mesh.search("on again")

    assert disabled == ["semantic"]
    assert calls == 0
    for found in (response, again):
        assert statuses(found)["semantic"] == plan_pb2.OUTCOME_STATUS_MASKED
        assert degraded(found)["semantic"] == "DISABLED"
    assert both == ["lexical", "semantic"]
    assert on == ["lexical"]
    assert statuses(last)["semantic"] == plan_pb2.OUTCOME_STATUS_ANSWERED


async def test_everything_switched_off_is_unavailable(tmp_path: Path) -> None:
    async with meshed(tmp_path, ranker=False) as mesh:
        for name in mesh.generators:
            await switch(mesh, name, enabled=False)

        found = await refusal(lambda: mesh.search("nobody"))

    assert (found.code, found.reason) == ("UNAVAILABLE", "UNAVAILABLE")
    assert "DISABLED" in found.message


async def test_a_changed_configuration_does_not_change_what_was_decided(tmp_path: Path) -> None:
    async with meshed(tmp_path, **LEARNING) as mesh:
        decided = [
            (await mesh.search(f"q{n}", policy=p)).request_id
            for n, p in enumerate(("thompson", "static", "uniform", "epsilon_greedy", "lints"))
        ]
    plan = {
        "static": {"lexical": 50},
        "presets": [{"lexical": 25}, {"semantic": 25}],
        "price": 0.5,
        "exploration": 3.0,
        "epsilon": 1.0,
        "budget": 5,
        "seed": 1,
        "traffic": {"lints": 1.0},
    }
    async with meshed(tmp_path, items=(), plan=plan) as mesh:
        replayed = [await replay(mesh, request_id) for request_id in decided]

        async def replanned() -> bool:
            response = await mesh.search("with the new plan", policy="static")
            return [o.fan_out for o in response.outcomes] == [50, 0, 0]

        await eventually(replanned)

    assert all(r.identical for r in replayed)


async def test_a_pruned_snapshot_cannot_be_replayed(tmp_path: Path) -> None:
    async with meshed(tmp_path, **LEARNING) as mesh:
        response = await mesh.search("soon pruned")
        used = (await mesh.recorded(response.request_id)).plan.snapshot_version
        registry = DirectoryRegistry(tmp_path / "registry")

        async def superseded() -> bool:
            await mesh.search("more")
            current = registry.current(POLICY)
            return current is not None and current.version > used

        await eventually(superseded)
        registry.prune(POLICY, keep=1)
        async with orchestrating(mesh, **LEARNING):
            found = await refusal(lambda: replay(mesh, response.request_id))

    assert (found.code, found.reason) == ("FAILED_PRECONDITION", "FAILED_PRECONDITION")


async def test_other_fan_outs_start_from_the_prior_and_do_not_stop_the_service(
    tmp_path: Path,
) -> None:
    async with meshed(tmp_path, **LEARNING) as mesh:
        response = await mesh.search("old levels", policy="static")
        await mesh.click(response, ids(response)[0], "old-levels")
    plan = {"fan_outs": [0, 5, 20], "static": {"lexical": 5}, "presets": [{"lexical": 5}]}
    changed = {**LEARNING, "plan": {**plan, "traffic": {"thompson": 1.0}}}
    async with meshed(tmp_path, items=(), **changed) as mesh:
        new = await mesh.search("new levels", policy="full")
        await mesh.click(new, ids(new)[0], "new-levels")

        async def learned() -> bool:
            await mesh.search("the time goes on")
            return bool((await get_policy(mesh)).observations)

        await eventually(learned)
        state = await replay(mesh, new.request_id)

    assert state.identical
    assert {o.fan_out for o in new.outcomes} == {20}


async def test_a_generator_that_is_new_starts_at_its_prior(tmp_path: Path) -> None:
    async with meshed(tmp_path, generators=lists()[:2], **LEARNING) as mesh:
        await mesh.search("two")
    async with meshed(tmp_path, items=(), learner={"enabled": False}) as mesh:
        state = await get_policy(mesh)
        response = await mesh.search("three", policy="full")

    assert [arm.generator for arm in state.arms] == ["lexical", "semantic", "exploration"]
    assert len(statuses(response)) == 3
