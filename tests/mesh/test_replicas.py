"""Several orchestrators and several replicas of every other service, all real processes."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forage.client import Client
from forage.errors import ForageError
from forage.importer import wait_applied
from forage.log import Topic
from forage.testing.catalog import items
from orchestrator.bandit import Snapshot
from orchestrator.learning import LEASE, POLICY, PolicyProjection
from tests.mesh.replicas import Fleet
from tests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]

LEARNING = {"learner.delay_s": 0.2, "learner.publish_every_s": 0.2}
SEEDED = {
    "plan.static": {"lexical": 50},
    "plan.presets": [{"lexical": 50}],
}
GENERATORS = ("lexical", "semantic", "graph", "memory", "exploration")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Fleet]:
    """Two orchestrators with one generator."""
    flags = {"orchestrator": {**LEARNING, **SEEDED}}
    with Fleet(tmp_path, {"lexical": 1, "orchestrator": 2}, flags) as fleet:
        fleet.wait_serving()
        with fleet.client(0, retry_s=30.0) as client:
            eventually(lambda: client.ingest_status().services)
            client.upsert(items())
        for index in (0, 1):
            with fleet.client(index) as client:
                eventually(lambda client=client: client.search("lantern").results)
        yield fleet


def leads(fleet: Fleet, index: int) -> bool:
    """Return whether an orchestrator holds the lease."""
    holder = json.loads((fleet.data / "leases" / f"{LEASE}.lease").read_bytes())["holder"]
    return int(holder.split(":")[-2]) == fleet.children["orchestrator", index].pid


def engage(client: Client, number: int) -> None:
    """Search, and click on what was found first."""
    page = client.search("lantern", request_id=f"search-{number}-{time.time_ns()}")
    client.record_feedback(page.request_id, page.results[0].item.item_id, "click")


def published(fleet: Fleet) -> int:
    """Return how far the learner of the current snapshot had read."""
    current = fleet.registry.current(POLICY)
    return int(current.metadata["applied"]) if current else 0


def replayed(fleet: Fleet, sequence: int) -> Snapshot:
    """Learn the log anew up to a sequence."""
    log = fleet.log()
    try:
        projection = PolicyProjection(fleet.settings(), log, fleet.registry, None)
        after = 0
        while records := log.read(Topic.INTERACTIONS, after, 1_000):
            projection.apply([r for r in records if r.sequence <= sequence])
            after = records[-1].sequence
        return projection._learner.snapshot()
    finally:
        log.close()


def test_a_second_learner_takes_over_within_ten_seconds_and_no_event_is_lost(pair: Fleet):
    with pair.client(0) as client:
        eventually(lambda: engage(client, 0) or published(pair))
    killed = 0 if leads(pair, 0) else 1
    survivor = 1 - killed
    with pair.client(killed) as client:
        for number in range(5):
            engage(client, number)
    pair.children["orchestrator", killed].signal(signal.SIGKILL)
    since = time.monotonic()
    before = published(pair)
    with pair.client(survivor) as client:

        def published_more() -> bool:
            engage(client, 100)
            return leads(pair, survivor) and published(pair) > before

        eventually(published_more, timeout_s=20.0)
        took_over = time.monotonic() - since
        eventually(lambda: engage(client, 200) or caught_up(pair))

    _, payload = pair.registry.load(POLICY)
    snapshot = Snapshot.from_bytes(payload)
    again = replayed(pair, published(pair))
    history = sorted(pair.registry.history(POLICY), key=lambda info: info.version)
    print(f"taken over after {took_over:.1f} s; {len(history)} snapshots")
    assert took_over < 10
    assert snapshot.hazard.mean.tobytes() == again.hazard.mean.tobytes()
    assert snapshot.sequence == again.sequence
    assert [h.parent for h in history] == [None, *(h.version for h in history[:-1])]
    applied = [h.metadata["applied"] for h in history]
    assert applied == sorted(applied)


def caught_up(fleet: Fleet) -> bool:
    log = fleet.log()
    try:
        return published(fleet) >= log.head(Topic.INTERACTIONS) - 2
    finally:
        log.close()


def test_every_orchestrator_uses_what_the_learner_publishes(pair: Fleet):
    waits = []
    with pair.client(0) as first, pair.client(1) as second:
        for number in range(12):
            engage(first, number)
            version = max(c.policy().snapshot_version for c in (first, second))
            eventually(
                lambda v=version: (
                    engage(first, 0)
                    or max(c.policy().snapshot_version for c in (first, second)) > v
                )
            )
            found = time.monotonic()
            newest = max(c.policy().snapshot_version for c in (first, second))
            eventually(
                lambda v=newest: min(c.policy().snapshot_version for c in (first, second)) >= v
            )
            waits.append(time.monotonic() - found)

    print(f"the other had the snapshot after {max(waits):.2f} s at most")
    assert max(waits) < 2.0


def test_pages_feedback_and_decisions_of_one_orchestrator_are_known_to_the_other(pair: Fleet):
    with pair.client(0) as first, pair.client(1) as second:
        for _ in range(20):
            page = first.search("lantern mara", page_size=2)
            options: dict[str, Any] = {"page_size": 2, "page_token": page.next_page_token}
            following = second.search("lantern mara", **options)
            receipt = second.record_feedback(page.request_id, page.results[0].item.item_id, "click")
            shown = {r.item.item_id for r in page.results}
            assert following.results
            assert not shown & {r.item.item_id for r in following.results}
            assert receipt.recorded == 1
        assert (
            second.decision(page.request_id).displayed == first.decision(page.request_id).displayed
        )
        assert second.replay(page.request_id).identical


class Load:
    """Searches without pause until it is told to stop."""

    def __init__(self, client: Client) -> None:
        self.failures: list[ForageError] = []
        self.degraded: list[str] = []
        self.latencies: list[float] = []
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        words = ("lantern", "mara ellwood", "copper mon", "horror", "")
        while not self._stop.wait(0.03):
            started = time.monotonic()
            try:
                page = self._client.search(words[len(self.latencies) % len(words)])
            except ForageError as error:
                self.failures.append(error)
                continue
            self.latencies.append(time.monotonic() - started)
            self.degraded += [f"{d.component}: {d.reason} {d.detail}" for d in page.degraded]


def test_a_roll_out_of_every_service_under_load_fails_no_search(tmp_path: Path):
    names = (*GENERATORS, "ranker", "orchestrator")
    flags = {"orchestrator": LEARNING}
    with Fleet(tmp_path, dict.fromkeys(names, 2), flags) as fleet:
        fleet.wait_serving()
        with fleet.client() as client, Load(client) as load:
            wait_applied(client, client.upsert(items()))
            calm = len(load.latencies)
            for child in fleet.children.values():
                fleet.roll(child)

    latencies = sorted(load.latencies)
    print(
        f"{len(latencies)} searches, {calm} before; {len(load.failures)} failed;"
        f" {len(load.degraded)} degraded {sorted(set(load.degraded))};"
        f" p50 {latencies[len(latencies) // 2] * 1000:.0f} ms, max {latencies[-1] * 1000:.0f} ms"
    )
    assert load.failures == []
    assert len(latencies) > 100
