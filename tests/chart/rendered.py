"""Reads the rendered examples, without helm, as the services would."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from forage import services
from forage.cli.terminal import settings_flags
from forage.settings import ServiceSettings, load

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/forage"
EXAMPLES = ("minimal", "bundled", "production", "replicas")
TEMPLATES = {"StatefulSet": "template", "Deployment": "template", "CronJob": "jobTemplate"}
Manifest = dict[str, Any]


@functools.cache
def manifests(example: str) -> list[Manifest]:
    files = sorted((CHART / "examples" / example / "rendered").rglob("*.yaml"))
    return [m for f in files for m in yaml.load_all(f.read_text(), yaml.CSafeLoader) if m]


def named(example: str, kind: str) -> dict[str, Manifest]:
    return {m["metadata"]["name"]: m for m in manifests(example) if m["kind"] == kind}


def only(example: str, kind: str) -> Manifest:
    (found,) = named(example, kind).values()
    return found


def pods(example: str) -> Iterator[tuple[Manifest, Manifest]]:
    """Yield (labels, specification) of every pod that the example's manifests make."""
    for manifest in manifests(example):
        if manifest["kind"] == "Pod":
            yield manifest["metadata"]["labels"], manifest["spec"]
        elif manifest["kind"] in TEMPLATES:
            spec = manifest["spec"]
            if manifest["kind"] == "CronJob":
                spec = spec["jobTemplate"]["spec"]
            yield spec["template"]["metadata"]["labels"], spec["template"]["spec"]


def serving(example: str) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Yield (name, container, specification of its pod) of every container that serves."""
    for _, spec in pods(example):
        for container in spec["containers"]:
            if container.get("args", [""])[0] == "serve":
                yield container["name"], container, spec


def served(container: Manifest) -> str:
    """Return the service that a container runs."""
    name: str = container["args"][1]
    return name


def write_config(example: str, folder: Path) -> None:
    """Put the files of the ConfigMap where a pod has them."""
    folder.mkdir(exist_ok=True)
    for name, content in named(example, "ConfigMap")["forage"]["data"].items():
        (folder / name).write_text(content)


def environment(container: Manifest) -> dict[str, str]:
    """Return the variables whose values are in the manifest."""
    return {e["name"]: e["value"] for e in container.get("env", []) if "value" in e}


def effective(example: str, container: Manifest, tmp_path: Path) -> ServiceSettings:
    """Load a container's settings from its arguments and variables, as the service does."""
    folder = tmp_path / "config"
    write_config(example, folder)
    service = "ranker"
    file: Path | None = folder / "ranker.yaml"
    assignments = []
    if "args" in container:
        _, service, *options = container["args"]
        file = None
        for option in options:
            flag, _, value = option.partition("=")
            if flag == "--config":
                file = tmp_path / value
            else:
                assert flag == "--set"
                assignments.append(value)
    return load(
        service,
        services.find(service).settings,
        file=file,
        flags=settings_flags(assignments),
        environment=environment(container),
    ).settings
