"""All seven services, and a Milvus server that dies or falls silent and comes back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from forage.catalog.item import Item, Value
from forage.client import Client, SearchPage
from forage.importer import wait_applied
from forage.supervisor import Mesh
from forage.testing.catalog import SCHEMA, items
from tests.milvus.server import MilvusServer
from tests.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
GENERATORS = ("lexical", "semantic", "graph", "memory", "exploration")
SERVICES = (*GENERATORS, "ranker", "orchestrator")
PATIENT: dict[str, object] = {
    "deadline_ms": 8_000,
    "ranker.timeout_ms": 2_000,
    **{f"generators.{name}.timeout_ms": 2_000 for name in GENERATORS},
}
"""On a starved machine others would be missing too."""
READY_S = 90.0
BACK_S = 120.0
"""A killed Milvus waits until its old session has expired."""
NEW = Item("film:new", "film", {"title": (Value("Xylophone Harbour"),)})


def kill(server: MilvusServer) -> None:
    server.kill()


def restart(server: MilvusServer) -> None:
    server.start()


def partition(server: MilvusServer) -> None:
    """It still accepts connections, and answers nothing."""
    os.kill(server.pid, signal.SIGSTOP)


def heal(server: MilvusServer) -> None:
    os.kill(server.pid, signal.SIGCONT)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("lose", "regain"), [(kill, restart), (partition, heal)])
def test_searches_go_on_while_milvus_is_away_and_everything_catches_up(
    tmp_path: Path,
    server: MilvusServer,
    lose: Callable[[MilvusServer], None],
    regain: Callable[[MilvusServer], None],
) -> None:
    schema_file = tmp_path / "schema.yaml"
    schema_file.write_text(yaml.safe_dump(SCHEMA.model_dump(mode="json")))
    flags: dict[str, dict[str, object]] = {
        name: {"schema_file": str(schema_file)} for name in SERVICES
    }
    flags["semantic"] |= {"milvus.uri": server.uri, "milvus.index": "HNSW"}
    flags["orchestrator"] |= PATIENT
    mesh = Mesh(REPOSITORY / "config", tmp_path, free_ports=True, flags=flags)
    with mesh, Client(mesh.address, timeout_s=10.0) as client:

        def search(text: str = "lantern") -> SearchPage:
            """Every one of them has to be answered."""
            page = client.search(text, policy="full")
            assert page.results
            return page

        def semantic_is_missing() -> bool:
            return "semantic" in {d.component for d in search().degraded}

        mesh.wait_ready(READY_S)
        wait_applied(client, client.upsert(items()))
        eventually(lambda: not search().degraded)

        lose(server)
        try:
            eventually(semantic_is_missing)
            page = search()
            shown = page.results[0].item.item_id
            receipt = client.record_feedback(page.request_id, shown, "play")
            written = client.upsert([NEW])
            eventually(lambda: search("xylophone harbour").results[0].item.item_id == NEW.item_id)
            restarts = [state.restarts for state in mesh.states()]
        finally:
            regain(server)
        back = eventually(lambda: not search().degraded, BACK_S)
        wait_applied(client, written)
        found = {o.generator: o for o in search("xylophone harbour").outcomes}["semantic"]

    assert receipt.recorded == 1
    assert restarts == [0] * len(SERVICES), "nobody gives up because Milvus is away"
    assert (found.status, found.returned) == ("answered", len(items()) + 1)
    print(f"whole again {back:.1f} s after the server was started or spoke again")
