"""The compose files as compose reads them, for the tests that hold them to the settings."""

import re
from pathlib import Path

import yaml

from forage import services
from forage.settings import load

ROOT = Path(__file__).parents[2]
SERVICES = ("lexical", "semantic", "graph", "memory", "exploration", "ranker", "orchestrator")
FILES = ("docker-compose.yml", "compose.embedded.yaml")
SERVERS = {"nats", "milvus", "collector", "jaeger", "prometheus"}


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


def by_default(text):
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def environment(container):
    return {name: by_default(value) for name, value in container["environment"].items()}


def settings(name, container=None):
    return load(
        name,
        services.find(name).settings,
        file=ROOT / "config" / f"{name}.yaml",
        environment=environment(container) if container else {},
    )


def extended(container):
    """Return a container as compose sees it, with what it extends."""
    if "extends" not in container:
        return container
    origin = read(container["extends"]["file"])["services"][container["extends"]["service"]]
    return {
        **origin,
        **container,
        "environment": {**origin["environment"], **container["environment"]},
        "volumes": [*origin["volumes"], *container["volumes"]],
    }


def forage(containers):
    """Return (service, container) of those that run one of Forage's services, by container."""
    return {
        name: (c["command"][1], c)
        for name, c in containers.items()
        if c.get("command", [""])[0] == "serve"
    }
