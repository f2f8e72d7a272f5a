"""Snapshots of projections in NATS's object store: a new replica starts from one, then the tail."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import pytest
import yaml

from forage.errors import StorageError
from forage.log.engines import Storage, open_storage
from forage.log.follower import Follower
from forage.log.interface import Stream, Topic
from forage.log.nats_connection import NatsConnection
from forage.log.nats_objects import Objects
from forage.log.nats_streams import Layout
from forage.log.snapshots import IndexSnapshots
from forage.settings import NatsSettings, ServiceSettings, SnapshotSettings
from forage.supervisor import Mesh
from forage.testing.catalog import SCHEMA, items, upsert
from forage.testing.log_contract import event
from tests.nats.server import NatsServer
from tests.unit.snapshot_world import KIND, Tally
from tests.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
OFTEN = SnapshotSettings(every_s=0.1, least_changes=1)


class Machine:
    """A process of its own, as far as the folder and the connection go, that keeps a tally."""

    def __init__(
        self,
        folder: Path,
        url: str,
        settings: NatsSettings,
        *,
        topic: Topic = Topic.INTERACTIONS,
        snapshots: bool = True,
    ) -> None:
        service = ServiceSettings(
            data_dir=folder,
            log_url=url,
            nats=settings,
            snapshots=OFTEN if snapshots else SnapshotSettings(enabled=False),
        )
        self.storage: Storage = open_storage(service)
        self.tally = Tally(folder, topic)
        self.follower = Follower(
            self.storage.log,
            [self.tally],
            checkpoint_every_s=0.02,
            snapshots=IndexSnapshots.open(
                service, self.storage.log, self.storage.registry, self.storage.lease
            ),
        )

    def __enter__(self) -> "Machine":
        self.follower.start()
        assert self.follower.caught_up.wait(20.0)
        return self

    def __exit__(self, *_: object) -> None:
        self.follower.stop()
        self.storage.close()

    def versions(self) -> list[int]:
        return [info.version for info in self.storage.registry.history(KIND)]

    def fill(self, start: int, end: int) -> None:
        events = [event(Stream.FEEDBACK, str(n), b"x" * 100) for n in range(start, end)]
        self.storage.log.append(events)

    def applied(self) -> int:
        return self.follower.applied("tally")


OpenMachine = Callable[..., Machine]


@pytest.fixture
def machine(shared_server: NatsServer, settings: NatsSettings, tmp_path: Path) -> OpenMachine:
    def open_machine(name: str, **options: object) -> Machine:
        given = options.pop("settings", settings)
        return Machine(tmp_path / name, shared_server.url, given, **options)

    return open_machine


@pytest.fixture
def admin(shared_server: NatsServer, settings: NatsSettings) -> Iterator[NatsConnection]:
    connection = NatsConnection.open(shared_server.url, settings)
    yield connection
    connection.close()


def test_a_new_replica_starts_from_a_snapshot_then_the_tail(machine: OpenMachine):
    with machine("a") as a:
        a.fill(0, 3_000)
        eventually(lambda: a.versions())
        eventually(lambda: a.storage.registry.current(KIND).metadata["sequence"] == 3_000)
    with machine("b", snapshots=False) as b:
        b.fill(3_000, 3_010)
        eventually(lambda: b.applied() == 3_010)

    with machine("c") as c:
        eventually(lambda: c.applied() == 3_010)

    assert c.tally.keys == [str(n) for n in range(3_010)]
    assert c.tally.given == list(range(3_001, 3_011))


def test_of_replicas_on_several_machines_one_publishes(machine: OpenMachine):
    with ExitStack() as running:
        machines = [running.enter_context(machine(name)) for name in "abcd"]
        machines[0].fill(0, 100)
        eventually(lambda: machines[0].versions())
        threading.Event().wait(2.0)
        history = machines[0].storage.registry.history(KIND)

    assert [info.version for info in history] in ([1], [2, 1]), "each sequence at most once"
    sequences = [info.metadata["sequence"] for info in history]
    assert len(set(sequences)) == len(sequences)


def test_a_replica_from_a_snapshot_knows_what_the_log_has_forgotten(
    machine: OpenMachine,
    admin: NatsConnection,
    settings: NatsSettings,
    caplog: pytest.LogCaptureFixture,
):
    with machine("a") as a:
        a.fill(0, 50)
        eventually(lambda: a.versions())
        eventually(lambda: a.storage.registry.current(KIND).metadata["sequence"] == 50)
    with machine("b", snapshots=False) as b:
        b.fill(50, 100)
    # As retention does: everything up to 60, some of it newer than the snapshot.
    name = Layout(settings).stream(Topic.INTERACTIONS)
    admin.run(admin.api(f"STREAM.PURGE.{name}", seq=61), "forget")

    with machine("with") as one, machine("without", snapshots=False) as other:
        eventually(lambda: one.applied() == other.applied() == 100)

    assert [int(k) for k in one.tally.keys] == [*range(50), *range(60, 100)]
    assert [int(k) for k in other.tally.keys] == [*range(60, 100)]
    assert "sequences 51 to 60 are neither in its snapshot nor in the log" in caplog.text


def test_the_catalog_never_forgets_the_newest_of_an_item(machine: OpenMachine):
    with machine("a", topic=Topic.CATALOG) as a:
        for _ in range(3):
            a.storage.log.append([upsert(item) for item in items()])
        eventually(lambda: a.applied() == 3 * len(items()))
        kept = a.storage.log.read(Topic.CATALOG, 0, 1_000)
    with machine("b", topic=Topic.CATALOG, snapshots=False) as b:
        eventually(lambda: b.applied() == 3 * len(items()))

    assert [record.key for record in kept] == [item.item_id for item in items()]
    assert b.tally.keys == [item.item_id for item in items()]


def test_a_damaged_object_is_refused_by_name_and_the_log_is_read(
    machine: OpenMachine,
    admin: NatsConnection,
    settings: NatsSettings,
    caplog: pytest.LogCaptureFixture,
):
    with machine("a") as a:
        a.fill(0, 50)
        eventually(lambda: a.versions())
    artifacts = Layout(settings).artifacts
    chunks = f"$O.{artifacts}.C.>"
    admin.run(admin.api(f"STREAM.PURGE.OBJ_{artifacts}", filter=chunks), "damage")

    with machine("b") as b:
        eventually(lambda: b.applied() == 50)

    assert b.tally.given == list(range(1, 51))
    assert "of projection tally is refused: object" in caplog.text
    assert "is damaged: 0 of" in caplog.text


def test_a_large_payload_goes_in_pieces_and_comes_back(machine: OpenMachine, tmp_path: Path):
    payload = bytes(range(256)) * (20 * 4_096 + 1)
    with machine("a") as a:
        registry = a.storage.registry
        info = registry.publish("index-large", memoryview(payload), {})
        file = BytesIO()

        fetched = registry.fetch("index-large", 1, file)

        assert fetched == info
        assert file.getvalue() == payload == registry.load("index-large")[1]


def test_a_full_object_store_is_named_leaves_nothing_half_and_does_not_stop_the_log(
    machine: OpenMachine, admin: NatsConnection, settings: NatsSettings
):
    small = settings.model_copy(update={"artifacts_max_bytes": 1_000_000})
    with machine("a", settings=small) as a:
        registry = a.storage.registry
        registry.publish("index-x", b"x" * 500_000, {})

        with pytest.raises(StorageError, match=r"nats\.artifacts_max_bytes: .* full"):
            registry.publish("index-x", b"x" * 900_000, {}, expected_current=1)

        a.fill(0, 10)
        assert [info.version for info in registry.history("index-x")] == [1]
    store = f"STREAM.INFO.OBJ_{Layout(settings).artifacts}"
    assert admin.run(admin.api(store), "look")["state"]["bytes"] < 600_000


def test_what_a_dead_publisher_left_is_found_when_it_is_old(
    machine: OpenMachine, admin: NatsConnection, settings: NatsSettings
):
    artifacts = Layout(settings).artifacts
    with machine("a") as a:
        a.storage.registry.publish("index-x", b"whole", {})
        subject = f"$O.{artifacts}.C.index-x-0123"
        admin.run(admin.request(subject, b"half"), "leave")
        objects = Objects(admin, artifacts)

        def strays(older_than_s: float) -> list[str]:
            known = [name for name in whole if name != "index-x-0123"]
            return admin.run(objects.strays("index-x-", known, older_than_s), "look")

        whole = admin.run(objects.strays("index-", [], -1.0), "look")
        assert len(whole) == 2
        assert strays(3_600.0) == []
        assert strays(-1.0) == ["index-x-0123"]
        admin.run(objects.remove("index-x-0123"), "remove")
        assert strays(-1.0) == []
        assert a.storage.registry.load("index-x")[1] == b"whole"


def test_a_server_killed_during_the_upload_leaves_the_old_snapshot_and_takes_the_next(
    server: NatsServer, tmp_path: Path
):
    with Machine(tmp_path / "a", server.url, NatsSettings(), snapshots=False) as a:
        registry = a.storage.registry
        registry.publish("index-x", b"old", {})
        failed: list[StorageError] = []

        def publish() -> None:
            try:
                registry.publish("index-x", bytes(60_000_000), {}, expected_current=1)
            except StorageError as error:
                failed.append(error)

        publishing = threading.Thread(target=publish)
        publishing.start()
        admin = NatsConnection.open(server.url, NatsSettings())
        store = f"STREAM.INFO.OBJ_{Layout(NatsSettings()).artifacts}"
        eventually(
            lambda: admin.run(admin.api(store), "look")["state"]["messages"] > 20, timeout_s=30.0
        )
        server.kill()
        publishing.join(30.0)
        server.start()
        admin.close()

        def again() -> bool:
            try:
                return registry.load("index-x")[1] == b"old"
            except StorageError:
                return False

        eventually(again)
        info = registry.publish("index-x", b"new", {}, expected_current=1)

    assert len(failed) == 1
    assert info.version == 2


@pytest.mark.timeout(180)
def test_a_new_lexical_and_a_new_graph_process_start_from_snapshots(
    shared_server: NatsServer, settings: NatsSettings, tmp_path: Path
):
    schema_file = tmp_path / "schema.yaml"
    schema_file.write_text(yaml.safe_dump(SCHEMA.model_dump(mode="json")))
    names = ("lexical", "graph")
    flags = {
        "log_url": shared_server.url,
        "nats.prefix": settings.prefix,
        "schema_file": str(schema_file),
        "snapshots.every_s": 0.1,
        "snapshots.least_changes": 1,
    }
    storage = open_storage(ServiceSettings(log_url=shared_server.url, nats=settings))
    storage.log.append([upsert(item) for item in items()])

    def started(folder: str) -> str:
        data = tmp_path / folder
        data.mkdir()
        given = dict.fromkeys(names, flags)
        with Mesh(
            REPOSITORY / "config", data, names=list(names), free_ports=True, flags=given
        ) as mesh:
            mesh.wait_ready(60.0)
            for kind in ("index-lexical", "index-graph-catalog"):
                eventually(lambda kind=kind: storage.registry.history(kind), 60.0)
        return "".join(path.read_text() for path in data.rglob("*.log"))

    first, second = started("first"), started("second")
    storage.close()

    assert "starts from snapshot" not in first
    for projection in ("lexical", "graph.catalog"):
        assert f"projection {projection} starts from snapshot" in second
    assert "refused" not in second
