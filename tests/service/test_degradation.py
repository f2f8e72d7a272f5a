"""What a search still is when parts of the mesh are missing, slow or wrong."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from forage.errors import InternalError, InvalidArgumentError, UnavailableError
from forage.log import Stream
from forage.log.engines import open_log
from forage.testing.lists import ListGenerator
from forage.testing.serving import eventually
from forage.v1 import decision_pb2, plan_pb2, policy_service_pb2, ranker_service_pb2
from tests.service.orchestrator_mesh import (
    IDS,
    BrittleLog,
    Mesh,
    degraded,
    ids,
    meshed,
    on_log,
    projections,
    refusal,
    statuses,
)

ANSWERED = plan_pb2.OUTCOME_STATUS_ANSWERED
MASKED = plan_pb2.OUTCOME_STATUS_MASKED
TIMED_OUT = plan_pb2.OUTCOME_STATUS_TIMED_OUT
FAILED = plan_pb2.OUTCOME_STATUS_FAILED
BREAKER = {"failures": 2, "cool_down_ms": 800}
PATIENT = {name: {"timeout_ms": 2_000} for name in ("lexical", "semantic")}


async def test_a_killed_generator_fails_no_search_and_comes_back(tmp_path: Path) -> None:
    async with meshed(tmp_path, breaker=BREAKER) as mesh:
        await mesh.kill("semantic")
        during = [await mesh.search(f"during {n}") for n in range(4)]
        await mesh.start("semantic")

        async def recovered() -> bool:
            return statuses(await mesh.search("after"))["semantic"] == ANSWERED

        await eventually(recovered)

    assert all(r.results for r in during)
    assert [statuses(r)["semantic"] for r in during] == [FAILED, FAILED, MASKED, MASKED]
    assert [degraded(r)["semantic"] for r in during] == [
        "FAILED",
        "FAILED",
        "BREAKER_OPEN",
        "BREAKER_OPEN",
    ]
    assert statuses(during[0])["lexical"] == ANSWERED


async def test_a_slow_generator_is_left_behind_and_then_left_alone(tmp_path: Path) -> None:
    generators = [ListGenerator("lexical", IDS), ListGenerator("semantic", IDS, delay_s=5.0)]
    # The search has time enough to wait for it; the generator's own limit is what ends the call.
    changes = {"targets": {"semantic": {"timeout_ms": 40}}, "deadline_ms": 9_000}
    breaker = {**BREAKER, "cool_down_ms": 60_000}
    async with meshed(
        tmp_path, generators=generators, breaker=breaker, ranker=False, **changes
    ) as mesh:
        found = [await mesh.search(f"slow {n}") for n in range(3)]

    assert [statuses(r)["semantic"] for r in found] == [TIMED_OUT, TIMED_OUT, MASKED]
    assert [degraded(r)["semantic"] for r in found] == ["TIMED_OUT", "TIMED_OUT", "BREAKER_OPEN"]
    assert all(ids(r) for r in found)


async def test_a_failing_generator_is_reported_and_the_others_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generators = [
        ListGenerator("lexical", IDS),
        ListGenerator("graph", IDS, error=UnavailableError("the index is being rebuilt")),
        ListGenerator("memory", IDS, error=InternalError("a defect")),
    ]
    async with meshed(tmp_path, generators=generators) as mesh:
        response = await mesh.search("x")

    assert ids(response)
    assert statuses(response) == {"lexical": ANSWERED, "graph": FAILED, "memory": FAILED}
    assert degraded(response) == {"graph": "FAILED", "memory": "FAILED"}
    details = {d.component: d.detail for d in response.degraded}
    assert details["graph"] == "UNAVAILABLE: the index is being rebuilt"
    # What comes and goes is in the answer; a defect is in the log too.
    logged = [r.getMessage() for r in caplog.records if r.name == "orchestrator.fanout"]
    assert [message.split(":")[0] for message in logged] == ["generator memory"]


async def test_a_query_that_one_generator_cannot_read_does_not_open_its_breaker(
    tmp_path: Path,
) -> None:
    wrong = InvalidArgumentError("query.text", "it cannot be read", allowed="something else")
    generators = [ListGenerator("lexical", IDS, error=wrong), ListGenerator("semantic", IDS)]
    async with meshed(tmp_path, generators=generators, breaker=BREAKER) as mesh:
        during = [await mesh.search(f"x {n}") for n in range(5)]

    assert [statuses(r)["lexical"] for r in during] == [FAILED] * 5
    assert all(r.results for r in during)


async def test_if_all_that_the_plan_asked_are_dead_the_others_are_asked(tmp_path: Path) -> None:
    plan = {"static": {"lexical": 10}}
    async with meshed(tmp_path, plan=plan, breaker=BREAKER) as mesh:
        await mesh.kill("lexical")
        response = await mesh.search("rescue")
        decision = await mesh.recorded(response.request_id)

    assert ids(response)
    assert degraded(response) == {"lexical": "FAILED"}
    assert statuses(response) == {"lexical": FAILED, "semantic": ANSWERED, "exploration": ANSWERED}
    assert {c.generator: c.fan_out for c in decision.plan.calls if c.fan_out} == {"lexical": 10}
    assert {o.generator: o.fan_out for o in decision.outcomes} == {
        "lexical": 10,
        "semantic": 10,
        "exploration": 10,
    }


async def test_if_those_who_were_asked_find_nothing_the_others_are_asked(tmp_path: Path) -> None:
    generators = [ListGenerator("lexical", []), ListGenerator("semantic", IDS)]
    plan = {"static": {"lexical": 10}, "presets": [{"lexical": 10}]}
    async with meshed(tmp_path, generators=generators, plan=plan) as mesh:
        response = await mesh.search("nothing")

    assert ids(response)
    assert statuses(response) == {"lexical": ANSWERED, "semantic": ANSWERED}


async def test_if_everybody_is_dead_the_search_is_unavailable_and_says_why(tmp_path: Path) -> None:
    async with meshed(tmp_path) as mesh:
        for name in mesh.generators:
            await mesh.kill(name)
        found = await refusal(lambda: mesh.search("nobody"))

    assert (found.code, found.reason) == ("UNAVAILABLE", "UNAVAILABLE")
    assert all(name in found.message for name in mesh.generators)


async def test_a_dead_generator_teaches_the_bandit_nothing(tmp_path: Path) -> None:
    learner = {"delay_s": 0, "publish_every_s": 0.05}
    async with meshed(tmp_path, learner=learner) as mesh:
        await mesh.kill("semantic")
        for number in range(4):
            response = await mesh.search(f"learn {number}")
            await mesh.click(response, ids(response)[0], f"click-{number}")

        async def labels() -> dict[str, int]:
            await mesh.search("the time goes on")
            state = await mesh.policy.GetPolicy(policy_service_pb2.GetPolicyRequest())
            return {arm.generator: arm.labels for arm in state.arms}

        async def learned() -> bool:
            return (await labels())["lexical"] > 0

        await eventually(learned)
        found = await labels()

    assert found["lexical"] > 0
    assert found["semantic"] == 0


async def test_without_a_ranker_the_order_is_the_fused_one_and_says_so(tmp_path: Path) -> None:
    async with meshed(tmp_path, breaker=BREAKER) as mesh:
        ranked = await mesh.search("x", page_size=100)
        await mesh.kill("ranker")
        fused = [await mesh.search(f"x {n}", page_size=100) for n in range(3)]
        await mesh.start("ranker")

        async def recovered() -> bool:
            return bool((await mesh.search("after")).model_version)

        await eventually(recovered)

    assert ids(fused[0]) == list(reversed(ids(ranked)))
    assert [degraded(r) for r in fused] == [
        {"ranker": "FAILED"},
        {"ranker": "FAILED"},
        {"ranker": "BREAKER_OPEN"},
    ]
    assert [r.model_version for r in fused] == [0, 0, 0]
    scores = [r.score for r in fused[0].results]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("order", "scores"), [([1_000], [1.0]), ([0, 0], [2.0, 1.0]), ([0, 1], [1.0])]
)
async def test_a_ranker_that_returns_other_items_is_not_believed(
    tmp_path: Path, order: list[int], scores: list[float]
) -> None:
    async with meshed(tmp_path) as mesh:
        mesh.ranker.answer = ranker_service_pb2.RankResponse(order=order, scores=scores)
        response = await mesh.search("x", page_size=100)

    assert degraded(response) == {"ranker": "FAILED"}
    assert len(set(ids(response))) == response.total_candidates > 10


async def test_what_the_ranker_left_out_follows_what_it_ranked(tmp_path: Path) -> None:
    async with meshed(tmp_path, ranker=True) as mesh:
        mesh.ranker.answer = ranker_service_pb2.RankResponse(
            order=[5], scores=[-3.0], model_version=2
        )
        response = await mesh.search("x", page_size=100)
        (asked,) = mesh.ranker.requests

    assert ids(response)[0] == asked.item_ids[5]
    assert len(set(ids(response))) == response.total_candidates
    assert all(r.score < -3.0 for r in response.results[1:])
    assert not response.degraded


async def test_a_deadline_shorter_than_a_generator_gets_a_partial_answer_in_time(
    tmp_path: Path,
) -> None:
    generators = [ListGenerator("lexical", IDS), ListGenerator("semantic", IDS, delay_s=10.0)]
    async with meshed(tmp_path, generators=generators, targets=PATIENT, breaker=BREAKER) as mesh:
        answers: list[Any] = []

        async def four_in_time() -> bool:
            # A starved machine may be late with a search; the deadline itself is the client's.
            with suppress(grpc.aio.AioRpcError):
                answers.append(await mesh.search(f"hurry {len(answers)}", timeout_s=0.4))
            return len(answers) == 4

        await eventually(four_in_time)

    assert all(ids(answer) for answer in answers)
    assert [degraded(answer)["semantic"] for answer in answers] == ["TIMED_OUT"] * 4
    # Callers in a hurry do not prove a generator dead: the breaker never opens.
    expected = {"lexical": ANSWERED, "semantic": TIMED_OUT}
    assert [statuses(answer) for answer in answers] == [expected] * 4


async def test_a_generator_that_is_usually_too_slow_for_the_deadline_is_not_called(
    tmp_path: Path,
) -> None:
    generators = [ListGenerator("lexical", IDS), ListGenerator("semantic", IDS, delay_s=0.8)]
    async with meshed(tmp_path, generators=generators, targets=PATIENT) as mesh:
        await asyncio.gather(*(mesh.search(f"slow {n}") for n in range(24)))

        hurried: list[Any] = []

        async def masked() -> bool:
            hurried.append(await mesh.search("hurry", timeout_s=0.5))
            return degraded(hurried[-1]).get("semantic") == "NO_TIME"

        await eventually(masked)

    assert statuses(hurried[-1])["semantic"] == MASKED
    assert ids(hurried[-1])


async def test_a_deadline_that_nobody_could_keep_is_refused(tmp_path: Path) -> None:
    async with meshed(tmp_path) as mesh:
        found = await refusal(lambda: mesh.search("at once", timeout_s=0.02))

    assert found.code == "DEADLINE_EXCEEDED"


async def test_a_full_disk_is_flagged_and_what_was_decided_is_written_later(tmp_path: Path) -> None:
    log = BrittleLog()
    async with meshed(tmp_path, service=on_log(log)) as mesh:
        log.full = True
        first = await mesh.search("written later", request_id="later-1")

        async def flagged() -> bool:
            return degraded(await mesh.search("flagged")).get("decision") == "NOT_RECORDED"

        await eventually(flagged)
        click = await refusal(lambda: mesh.click(first, ids(first)[0], "too-early"))
        upsert = await refusal(lambda: mesh.delete("film:any"))
        repeated = await mesh.search("written later", request_id="later-1")
        second = await mesh.search("written later", page_token=first.next_page_token)
        attempts = log.appends
        for number in range(20):
            await mesh.search(f"busy {number}")
        retries = log.appends - attempts
        log.full = False

        async def recorded() -> bool:
            return not (await mesh.search("recovered")).degraded

        await eventually(recorded)
        late = await mesh.click(first, ids(first)[0], "late")

    assert first.results
    assert (click.code, click.reason) == ("UNAVAILABLE", "STORAGE")
    assert (upsert.code, upsert.reason) == ("UNAVAILABLE", "STORAGE")
    assert ids(repeated) == ids(first)
    assert second.results
    assert late.recorded == 1
    assert retries <= 5, "a failing disk is left alone between attempts"
    with_records = open_log("sqlite:log.db", tmp_path)
    record = with_records.get(Stream.DECISIONS, "later-1")
    with_records.close()
    assert record is not None
    assert len(decision_pb2.Decision.FromString(record.payload).displayed) == 10


async def test_what_was_decided_is_written_before_the_service_ends(tmp_path: Path) -> None:
    async with meshed(tmp_path) as mesh:
        await asyncio.gather(*(mesh.search(f"last {n}", request_id=f"last-{n}") for n in range(20)))
    log = open_log("sqlite:log.db", tmp_path)
    found = [log.get(Stream.DECISIONS, f"last-{n}") for n in range(20)]
    log.close()

    assert all(record is not None for record in found)


async def test_a_projection_that_was_deleted_is_rebuilt_with_the_same_answers(
    tmp_path: Path,
) -> None:
    learner = {"delay_s": 0, "publish_every_s": 0.05}
    async with meshed(tmp_path, learner=learner) as mesh:
        for number in range(5):
            response = await mesh.search("same", request_id=f"same-{number}", user={"user_id": "u"})
            await mesh.click(response, ids(response)[number], f"same-click-{number}")
        last = await mesh.search("marker", request_id="marker")
        await mesh.recorded(last.request_id)
        await settled(mesh)
        before = await features_of(mesh, "probe-1")
    shutil.rmtree(tmp_path / "orchestrator.history", ignore_errors=True)
    shutil.rmtree(tmp_path / "orchestrator.policy", ignore_errors=True)
    async with meshed(tmp_path, items=(), learner=learner) as mesh:
        await settled(mesh)
        after = await features_of(mesh, "probe-2")

    assert after[0] == before[0]
    assert set(before[1]) <= set(after[1])


async def settled(mesh: Mesh) -> None:
    """Wait until the orchestrator has followed the whole log."""

    async def reached() -> bool:
        names = ("orchestrator.catalog", "orchestrator.history", "orchestrator.policy")
        found = await projections(mesh, *names)
        return len(found) == 3 and all(p.applied_sequence == p.head_sequence for p in found)

    await eventually(reached)


async def features_of(mesh: Mesh, request_id: str) -> tuple[list[float], list[str]]:
    """Return what a search sees of the past: remembered engagements, and the user's items."""
    response = await mesh.search("same", request_id=request_id, user={"user_id": "u"}, explain=True)
    names = list(response.plan.feature_names)
    wanted = [names.index(n) for n in ("remembered", "history")]
    context = response.plan.calls[0].context
    return [context[i] for i in wanted], list(response.understood.user.recent_item_ids)
