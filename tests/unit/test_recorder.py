"""The recorder: nothing decided is lost while there is room, and no search waits for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from forage.errors import StorageError
from forage.log import Stream, Topic
from forage.log.sqlite import SqliteEventLog
from forage.registry import DirectoryRegistry
from forage.services import Runtime
from forage.telemetry import Telemetry
from forage.testing import catalog
from forage.testing.serving import eventually
from forage.v1 import decision_pb2
from orchestrator.bandit import Propensity
from orchestrator.planner import Planned, Planner
from orchestrator.recorder import Recorder
from tests.service.orchestrator_mesh import BrittleLog
from tests.unit.orchestrator_decisions import NAMES, configured, decided, phi, prior

SETTINGS = configured()
PLANNER = Planner(SETTINGS)


class Recording:
    """A recorder on a real log that can fail."""

    def __init__(self, folder: Path, planner: Planner = PLANNER, *, draws: int = 16) -> None:
        self.real = SqliteEventLog.open(folder / "log.db")
        self.log = BrittleLog().around(self.real)
        self.executor = ThreadPoolExecutor(2)
        self.runtime = Runtime(
            self.log,  # type: ignore[arg-type]
            DirectoryRegistry(folder / "registry"),
            catalog.SCHEMA,
            Telemetry.disabled(),
            self.executor,
        )
        self.recorder = Recorder(self.runtime, planner, draws=draws)

    def submit(self, request_id: str, *, policy: str = "thompson") -> decision_pb2.Decision:
        planned = PLANNER.plan(phi(), {}, prior(SETTINGS), request_id=request_id, override=policy)
        decision = decided(SETTINGS, request_id, at=0, policy=policy)
        self.recorder.submit(decision, planned)
        return decision

    def stored(self, request_id: str) -> decision_pb2.Decision | None:
        record = self.real.get(Stream.DECISIONS, request_id)
        return None if record is None else decision_pb2.Decision.FromString(record.payload)

    async def close(self) -> None:
        await self.recorder.stop()
        self.executor.shutdown()
        self.real.close()


@pytest.fixture
async def recording(tmp_path: Path) -> AsyncIterator[Recording]:
    found = Recording(tmp_path)
    await found.recorder.start()
    yield found
    await found.close()


async def test_a_decision_is_found_before_and_after_it_is_durable(recording):
    decision = recording.submit("a")
    at_once = await recording.recorder.find("a")
    await recording.recorder.durable(["a"])
    later = await recording.recorder.find("a")

    assert at_once is decision
    assert later is not None
    assert later.request_id == "a"
    assert await recording.recorder.find("nobody") is None


async def test_a_durable_decision_has_its_propensity_and_marginals(recording):
    recording.submit("a")
    recording.submit("b", policy="static")
    await recording.recorder.durable(["a", "b"])

    learned, fixed = recording.stored("a"), recording.stored("b")
    assert learned is not None
    assert fixed is not None
    assert 0 < learned.propensity < 1
    assert learned.propensity_draws == 16
    assert fixed.propensity == 1
    assert fixed.propensity_draws == 0
    assert [m.generator for m in learned.marginals] == list(NAMES)
    assert all(sum(m.probabilities) == pytest.approx(1) for m in learned.marginals)


async def test_a_later_page_has_no_propensity(recording):
    page = decided(SETTINGS, "a~10~10", at=0)
    recording.recorder.submit(page, None)
    await recording.recorder.durable(["a~10~10"])

    stored = recording.stored("a~10~10")
    assert stored is not None
    assert stored.propensity == 0


async def test_without_draws_no_propensity_is_computed(tmp_path):
    recording = Recording(tmp_path, draws=0)
    await recording.recorder.start()
    recording.submit("a")
    await recording.recorder.durable(["a"])

    assert recording.stored("a").propensity == 0
    await recording.close()


async def test_many_decisions_share_few_commits_and_keep_their_order(recording):
    names = [f"r{n:03}" for n in range(300)]
    for name in names:
        recording.submit(name, policy="static")
    await recording.recorder.durable(names)

    records = recording.real.read(Topic.INTERACTIONS, 0, 1_000)
    assert [r.key for r in records] == names
    assert recording.log.appends <= 4


async def test_the_first_decision_of_an_id_is_the_one_that_stays(recording):
    recording.submit("a", policy="static")
    await recording.recorder.durable(["a"])
    recording.submit("a", policy="full")
    await recording.recorder.durable(["a"])

    assert recording.stored("a").plan.policy == "static"


async def test_while_the_log_fails_it_says_so_and_keeps_what_it_was_given(recording):
    recording.log.full = True
    recording.submit("a")
    await eventually(lambda: recording.recorder.failing)

    with pytest.raises(StorageError):
        await recording.recorder.durable(["a"])
    assert await recording.recorder.find("a") is not None

    recording.log.full = False
    await eventually(lambda: recording.stored("a") is not None)
    await recording.recorder.durable(["a"])
    assert not recording.recorder.failing
    # Tried more than once, but completed once.
    assert [m.generator for m in recording.stored("a").marginals] == list(NAMES)


async def test_a_failing_log_is_tried_now_and_then_not_all_the_time(recording):
    recording.log.full = True
    recording.submit("a")
    await eventually(lambda: recording.recorder.failing)
    before = recording.log.appends

    async with asyncio.timeout(5):
        for n in range(50):
            recording.submit(f"more-{n}", policy="static")
            await asyncio.sleep(0.002)

    assert recording.log.appends - before <= 2


async def test_a_waiter_is_told_when_the_log_begins_to_fail(recording):
    recording.log.full = True
    recording.submit("a")

    with pytest.raises(StorageError):
        async with asyncio.timeout(5):
            await recording.recorder.durable(["a"])


async def test_what_is_not_waiting_is_durable_at_once(recording):
    recording.log.full = True

    recording.submit("waiting")

    async with asyncio.timeout(5):
        await recording.recorder.durable(["never-heard-of"])
        with pytest.raises(StorageError):
            await recording.recorder.durable(["never-heard-of", "waiting"])

    assert recording.stored("never-heard-of") is None
    assert recording.stored("waiting") is None


async def test_stopping_writes_what_waits(tmp_path):
    recording = Recording(tmp_path)
    await recording.recorder.start()
    for n in range(20):
        recording.submit(f"r{n}")

    await recording.recorder.stop()

    assert all(recording.stored(f"r{n}") is not None for n in range(20))
    await recording.close()


async def test_stopping_tries_a_failing_log_once_more_and_ends(tmp_path, caplog):
    recording = Recording(tmp_path)
    await recording.recorder.start()
    recording.log.full = True
    recording.submit("a")
    await eventually(lambda: recording.recorder.failing)

    async with asyncio.timeout(5):
        await recording.recorder.stop()

    assert "1 decisions could not be recorded" in caplog.messages
    recording.log.full = False
    await recording.close()


async def test_those_given_up_and_those_that_wait_are_lost_if_the_log_fails_to_the_end(
    tmp_path, caplog
):
    recording = Recording(tmp_path)
    await recording.recorder.start()
    recording.log.full = True
    first = recording.submit("first", policy="static")
    for n in range(5_002):
        again = decision_pb2.Decision(request_id=f"r{n}", time=first.time)
        recording.recorder.submit(again, None)

    await recording.recorder.stop()

    assert "5003 decisions could not be recorded" in caplog.messages
    await recording.close()


async def test_when_too_many_wait_the_oldest_are_given_up_and_it_is_said(recording, caplog):
    recording.log.full = True
    first = recording.submit("first", policy="static")
    for n in range(5_000):
        again = decision_pb2.Decision(request_id=f"r{n}", time=first.time)
        recording.recorder.submit(again, None)

    assert await recording.recorder.find("first") is None
    assert await recording.recorder.find("r0") is not None
    recording.log.full = False
    await recording.recorder.stop()
    assert "1 decisions" in caplog.text


class Broken(Planner):
    """A planner with a defect in one place."""

    def propensity(self, planned: Planned, request_id: str, draws: int) -> Propensity:
        if request_id == "bad":
            raise ZeroDivisionError("a defect")
        return super().propensity(planned, request_id, draws)


async def test_a_decision_whose_propensity_fails_is_recorded_without(tmp_path, caplog):
    recording = Recording(tmp_path, Broken(SETTINGS))
    await recording.recorder.start()
    recording.submit("bad")
    recording.submit("good")
    await recording.recorder.durable(["bad", "good"])

    assert recording.stored("bad").propensity == 0
    assert recording.stored("good").propensity > 0
    assert "a defect" in caplog.text
    await recording.close()


async def test_a_replaced_decision_is_not_taken_for_the_one_being_written(recording):
    one = decided(SETTINGS, "a", at=0)
    other = decision_pb2.Decision()
    other.CopyFrom(one)
    planned = PLANNER.plan(phi(), {}, prior(SETTINGS), request_id="a")
    recording.recorder.submit(one, planned)
    recording.recorder.submit(other, replace(planned))
    await recording.recorder.durable(["a"])

    assert recording.stored("a") is not None
    assert len(recording.real.read(Topic.INTERACTIONS, 0, 10)) == 1
