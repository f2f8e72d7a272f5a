"""A real mesh of seven processes over the fixture catalogue, on free ports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from forage.client import Client, Retry
from forage.importer import wait_applied
from forage.supervisor import Mesh
from forage.testing.catalog import SCHEMA, items

REPOSITORY = Path(__file__).parents[2]
READY_S = 60.0


@dataclass
class RunningMesh:
    """A mesh and how to reach it."""

    mesh: Mesh
    data: Path

    def client(self, *, retry_s: float = 0.0) -> Client:
        """Return a client of the orchestrator that retries for so long."""
        return Client(self.mesh.address, timeout_s=max(10.0, retry_s), retry=Retry(for_s=retry_s))


def start_mesh(data: Path) -> Mesh:
    """Return a mesh over the fixture schema; the learner does not wait long for feedback."""
    schema_file = data / "schema.yaml"
    schema_file.write_text(yaml.safe_dump(SCHEMA.model_dump(mode="json")))
    flags = {
        name: {"schema_file": str(schema_file)}
        for name in ("lexical", "semantic", "graph", "memory", "exploration", "ranker")
    }
    flags["orchestrator"] = {
        "schema_file": str(schema_file),
        "learner.delay_s": 0.5,
        "learner.publish_every_s": 0.2,
    }
    return Mesh(REPOSITORY / "config", data, free_ports=True, flags=flags)


@pytest.fixture(scope="module")
def running_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """Start the mesh, put the fixture catalogue in, and stop it after the module."""
    data = tmp_path_factory.mktemp("mesh")
    with start_mesh(data) as mesh:
        mesh.wait_ready(READY_S)
        running = RunningMesh(mesh, data)
        with running.client() as client:
            wait_applied(client, client.upsert(items()))
        yield running
