"""All seven services on NATS, each with a data folder of its own, as on seven machines."""

import itertools
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from forage.cli import app
from forage.client import Client, Feedback, Retry
from forage.errors import ForageError
from forage.importer import wait_applied
from forage.log.engines import open_storage
from forage.log.interface import Stream, Topic
from forage.log.nats_connection import NatsConnection
from forage.log.nats_entries import Entries
from forage.log.nats_log import NatsEventLog
from forage.log.nats_streams import Layout
from forage.settings import NatsSettings, ServiceSettings, load
from forage.supervisor import Mesh
from forage.testing.catalog import SCHEMA, items
from orchestrator.bandit import Snapshot
from orchestrator.learning import POLICY, PolicyProjection
from orchestrator.settings import OrchestratorSettings
from tests.nats.server import NatsServer
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)
REPOSITORY = Path(__file__).parents[2]
OTHERS = ("lexical", "semantic", "graph", "memory", "exploration", "ranker")
READY_S = 90.0
TAKE_OVER_S = 10.0


class Machines:
    """Six services and two orchestrators that share nothing but the network."""

    def __init__(self, folder: Path, url: str) -> None:
        schema_file = folder / "schema.yaml"
        schema_file.write_text(yaml.safe_dump(SCHEMA.model_dump(mode="json")))
        self._folder = folder
        self._common = {"log_url": url, "schema_file": str(schema_file)}
        self._running = ExitStack()
        self._targets: dict[str, str] = {}

    def __enter__(self) -> "Machines":
        with ExitStack() as starting:
            others = [starting.enter_context(self._mesh(n, n, self._common)) for n in OTHERS]
            flags = dict(self._common)
            for name, mesh in zip(OTHERS, others, strict=True):
                key = "ranker" if name == "ranker" else f"generators.{name}"
                flags[f"{key}.target"] = mesh.target(name)
            flags |= {"learner.delay_s": 0.5, "learner.publish_every_s": 0.2}
            self.orchestrators = [
                starting.enter_context(self._mesh("orchestrator", folder, flags))
                for folder in ("first", "second")
            ]
            for mesh in (*others, *self.orchestrators):
                mesh.wait_ready(READY_S)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def client(self, which: int = 0, retry_s: float = 0.0) -> Client:
        address = self.orchestrators[which].address
        return Client(address, timeout_s=max(10.0, retry_s), retry=Retry(for_s=retry_s))

    def _mesh(self, name: str, folder: str, flags: dict[str, object]) -> Mesh:
        data = self._folder / folder
        data.mkdir()
        return Mesh(REPOSITORY / "config", data, names=[name], free_ports=True, flags={name: flags})


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("broker")) as server:
        yield server


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, broker: NatsServer) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("machines"), broker.url) as machines:
        with machines.client() as client:
            wait_applied(client, client.upsert(items()))
        yield machines


def holder(broker: NatsServer) -> int:
    """Return the process id of the learner that has the lease; 0 if nobody has it."""
    connection = NatsConnection.open(broker.url, NatsSettings())
    entries = Entries(connection, Layout(NatsSettings()).leases)
    found = connection.run(entries.get("learner"), "read the lease").value
    connection.close()
    return int(found.split(b":")[-2]) if found else 0


def test_both_orchestrators_find_what_one_was_given(machines: Machines):
    for which in (0, 1):
        with machines.client(which) as client:
            # On busy cores the first searches may be too slow for some generator.
            eventually(lambda c=client: not c.search("lantern keeper", policy="full").degraded)
            page = client.search("the lantern keeper", policy="full")

        assert page.results[0].item.texts("title") == ("The Lantern Keeper",)


def test_feedback_to_one_orchestrator_is_a_duplicate_at_the_other(machines: Machines):
    with machines.client(0) as first, machines.client(1) as second:
        page = first.search("lantern")
        event = Feedback(page.request_id, page.results[0].item.item_id, "play", event_id="twice")

        here = first.record_events([event])
        there = second.record_events([event])

    assert (here.recorded, here.duplicates) == (1, 0)
    assert (there.recorded, there.duplicates) == (0, 1)


def test_searches_go_on_while_nats_is_dead_and_nothing_acknowledged_is_lost(
    machines: Machines, broker: NatsServer
):
    acknowledged: list[Feedback] = []

    def give(client: Client, number: int) -> bool:
        page = client.search("lantern")
        event = Feedback(
            page.request_id, page.results[0].item.item_id, "click", event_id=f"crash-{number}"
        )
        try:
            client.record_events([event])
        except ForageError:
            return False
        acknowledged.append(event)
        return True

    with machines.client() as client, machines.client(retry_s=60.0) as patient:
        assert all(give(client, number) for number in range(10))
        broker.kill()
        answered = [client.search("lantern").results for _ in range(20)]
        refused = not give(client, 10)
        broker.start()
        patient_page = patient.search("lantern")
        late = Feedback(
            patient_page.request_id, patient_page.results[0].item.item_id, "click", event_id="late"
        )
        patient.record_events([late])
        eventually(lambda: not client.search("lantern").degraded)
        again = client.record_events([*acknowledged, late])
        behind = eventually(lambda: not any(s.lag for s in client.ingest_status().services))

    assert all(answered)
    assert refused, "feedback must not be acknowledged while nothing can keep it"
    assert (again.recorded, again.duplicates) == (0, 11)
    assert behind < 30.0
    log = NatsEventLog.open(broker.url)
    keys = [r.key for r in log.read(Topic.INTERACTIONS, 0, 10_000, (Stream.FEEDBACK,))]
    log.close()
    assert len(keys) == len(set(keys))
    assert {"late", *(f"crash-{n}" for n in range(10))} <= set(keys)


def test_searches_go_on_across_a_partition(machines: Machines, broker: NatsServer):
    with machines.client() as client, machines.client(retry_s=60.0) as patient:
        broker.pause()
        try:
            end = time.monotonic() + 5.0
            answered = 0
            while time.monotonic() < end:
                assert client.search("lantern").results
                answered += 1
        finally:
            broker.resume()
        page = patient.search("lantern")
        patient.record_feedback(page.request_id, page.results[0].item.item_id, "click")
        back = eventually(lambda: not client.search("lantern").degraded)

    print(f"{answered} searches in 5 s without NATS; whole again after {back:.1f} s")


def test_a_second_learner_takes_over_from_one_that_hangs(machines: Machines, broker: NatsServer):
    numbers = iter(range(10_000))

    def leads(index: int) -> bool:
        return holder(broker) == machines.orchestrators[index].states()[0].pid

    def teach(client: Client) -> int:
        page = client.search("mara ellwood")
        event_id = f"taught-{next(numbers)}"
        client.record_feedback(
            page.request_id, page.results[0].item.item_id, "play", event_id=event_id
        )
        return client.policy().snapshot_version

    with machines.client(0) as client:
        before = teach(client)
        eventually(lambda: teach(client) > before + 1)
    leader = next(index for index in range(2) if leads(index))
    with machines.client(1 - leader) as client:
        machines.orchestrators[leader].kill("orchestrator", signal.SIGSTOP)
        try:
            took = eventually(lambda: teach(client) and leads(1 - leader), 2 * TAKE_OVER_S)
            stopped = client.policy().snapshot_version
            eventually(lambda: teach(client) > stopped)
        finally:
            machines.orchestrators[leader].kill("orchestrator", signal.SIGCONT)
        after = client.policy().snapshot_version
        with machines.client(leader, retry_s=30.0) as first:
            eventually(lambda: first.policy().snapshot_version >= after)

    print(f"took over after {took:.1f} s")
    assert took < TAKE_OVER_S


def learner_settings() -> OrchestratorSettings:
    flags = {"learner.delay_s": 0.5, "learner.publish_every_s": 0.2}
    file = REPOSITORY / "config" / "orchestrator.yaml"
    return load("orchestrator", OrchestratorSettings, file=file, flags=flags).settings


def test_a_killed_learner_is_replaced_and_no_event_is_lost_or_learned_twice(
    machines: Machines, broker: NatsServer
):
    numbers = iter(range(10_000))

    def teach(client: Client) -> None:
        page = client.search("lantern keeper")
        client.record_events(
            [
                Feedback(
                    page.request_id,
                    page.results[0].item.item_id,
                    "play",
                    event_id=f"killed-{next(numbers)}",
                )
            ]
        )

    def leads(index: int) -> bool:
        return holder(broker) == machines.orchestrators[index].states()[0].pid

    eventually(lambda: leads(0) or leads(1))
    leader = next(index for index in range(2) if leads(index))
    survivor = 1 - leader
    with machines.client(leader) as client:
        for _ in range(5):
            teach(client)
    killed = holder(broker)
    machines.orchestrators[leader].kill("orchestrator", signal.SIGKILL)
    storage = open_storage(ServiceSettings(log_url=broker.url))
    try:
        registry = storage.registry
        before = int(registry.current(POLICY).metadata["applied"])
        with machines.client(survivor, retry_s=30.0) as client:

            def taught_more() -> bool:
                teach(client)
                found = registry.current(POLICY)
                # The other one, or the killed one's successor, which its supervisor starts at once.
                return holder(broker) not in (0, killed) and int(found.metadata["applied"]) > before

            took = eventually(taught_more, 2 * TAKE_OVER_S)
        info, payload = registry.load(POLICY)
        snapshot = Snapshot.from_bytes(payload)
        again = PolicyProjection(learner_settings(), storage.log, registry, None)
        records = storage.log.read(Topic.INTERACTIONS, 0, 1_000_000)
        again.apply([r for r in records if r.sequence <= int(info.metadata["applied"])])
        history = sorted(registry.history(POLICY), key=lambda each: each.version)
    finally:
        storage.close()
    with machines.client(leader, retry_s=60.0) as client:
        eventually(lambda: client.policy().snapshot_version >= info.version)

    print(f"took over {took:.1f} s after the kill; learned up to {info.metadata['applied']}")
    assert took < TAKE_OVER_S
    assert snapshot.hazard.mean.tobytes() == again._learner.snapshot().hazard.mean.tobytes()
    applied = [int(each.metadata["applied"]) for each in history]
    assert applied == sorted(applied)
    pairs = itertools.pairwise(history)
    assert all(later.parent == earlier.version for earlier, later in pairs), "one line of versions"


def test_searches_go_on_while_the_stream_is_full_and_feedback_is_refused_by_name(
    machines: Machines, broker: NatsServer
):
    admin = NatsConnection.open(broker.url, NatsSettings())
    name = Layout(NatsSettings()).stream(Topic.INTERACTIONS)
    found = admin.run(admin.api(f"STREAM.INFO.{name}"), "look")

    def limited(most: int) -> None:
        config = {**found["config"], "max_bytes": most}
        admin.run(admin.api(f"STREAM.UPDATE.{name}", **config), "limit")

    with machines.client() as client, machines.client(retry_s=30.0) as patient:
        page = client.search("lantern")
        item_id = page.results[0].item.item_id
        client.record_events([Feedback(page.request_id, item_id, "click", event_id="before")])
        size = admin.run(admin.api(f"STREAM.INFO.{name}"), "look")["state"]["bytes"]
        limited(size)
        try:
            answered = [client.search("lantern") for _ in range(20)]
            late = Feedback(page.request_id, item_id, "click", event_id="while full")
            with pytest.raises(ForageError) as refused:
                client.record_events([late])
        finally:
            limited(-1)
        again = patient.record_events([late])
        eventually(lambda: not client.search("lantern").degraded)
        behind = eventually(lambda: not any(s.lag for s in client.ingest_status().services))
    admin.close()

    assert all(each.results for each in answered)
    assert any(d.reason == "NOT_RECORDED" for each in answered for d in each.degraded)
    assert "nats.interactions_max_bytes" in refused.value.message
    assert again.recorded == 1
    print(f"everything had caught up {behind:.1f} s after there was room again")


def test_a_mesh_moves_from_sqlite_to_nats_and_goes_on_where_it_was(
    broker: NatsServer, tmp_path: Path
):
    schema_file = tmp_path / "schema.yaml"
    schema_file.write_text(yaml.safe_dump(SCHEMA.model_dump(mode="json")))

    def mesh(**more: object) -> Mesh:
        common = {"schema_file": str(schema_file), **more}
        flags = {name: dict(common) for name in (*OTHERS, "orchestrator")}
        flags["orchestrator"] |= {"learner.delay_s": 0.2, "learner.publish_every_s": 0.2}
        return Mesh(REPOSITORY / "config", tmp_path, free_ports=True, flags=flags)

    with mesh() as embedded, Client(embedded.address, timeout_s=10.0) as client:
        embedded.wait_ready(READY_S)
        wait_applied(client, client.upsert(items()))
        # Replacing items leaves holes in the order, which the copy has to keep.
        wait_applied(client, client.upsert(items()[:3]))
        for number in range(5):
            page = client.search("lantern", policy="full")
            first = page.results[0].item.item_id
            client.record_feedback(page.request_id, first, "play", event_id=f"embedded-{number}")

        def learned() -> bool:
            # Searches are learned from when a later one says that their time is over.
            client.search("lantern")
            return client.policy().snapshot_version > 1

        eventually(learned)
        eventually(lambda: not any(s.lag for s in client.ingest_status().services))
        before = client.policy()
        heads = client.ingest_status()
        decided = client.search("mara ellwood")
        eventually(lambda: client.replay(decided.request_id).identical)
    moved = CliRunner().invoke(
        app,
        ["log", "copy", f"sqlite:{tmp_path}/log.db", broker.url, "--set", "nats.prefix=moved"],
    )
    assert moved.exit_code == 0, moved.output

    settings = {"log_url": broker.url, "nats.prefix": "moved"}
    with mesh(**settings) as networked, Client(networked.address, timeout_s=10.0) as client:
        networked.wait_ready(READY_S)
        status = client.ingest_status()
        after = client.policy()
        page = client.search("lantern", policy="full")
        again = client.record_events([Feedback(page.request_id, first, "play", event_id="new")])
        replayed = client.replay(decided.request_id)

    assert status.catalog_head == heads.catalog_head
    assert status.interactions_head >= heads.interactions_head
    assert after.observations >= before.observations > 0
    assert after.snapshot_version >= before.snapshot_version
    assert page.results[0].item.item_id == first
    assert again.recorded == 1
    assert replayed.identical
