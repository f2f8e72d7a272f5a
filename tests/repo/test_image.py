"""The image: what it holds, what it runs with, and how its health is asked."""

import re
import socket
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.repo.compose_files import (
    ROOT,
    SERVERS,
    by_default,
    read,
)


def test_the_image_does_not_run_as_root():
    users = re.findall(r"^USER (\S+)$", (ROOT / "Dockerfile").read_text(), re.M)

    assert users == ["10001:10001"]


def test_the_build_context_has_what_the_dockerfile_copies_and_no_more():
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }

    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)

    assert kept == {path for copied in copies for path in copied.split()}
    assert all((ROOT / path).exists() for path in kept)


def test_the_image_has_every_package_of_the_distribution_and_no_other():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    packages = build["targets"]["wheel"]["packages"]

    copied = re.findall(r"^COPY (\w+) \1$", (ROOT / "Dockerfile").read_text(), re.M)

    assert sorted(copied) == sorted(packages)


def test_chart_image_and_distribution_have_one_version(containers):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = read("helm/forage/Chart.yaml")
    ours = [c["image"] for name, c in containers.items() if name not in SERVERS]

    assert chart["appVersion"] == version
    assert {by_default(image) for image in ours} == {f"forage-mesh:{version}"}


def pins(name):
    return set(re.findall(r"^([a-z0-9.-]+==[^ ;]+)", (ROOT / name).read_text(), re.M))


@pytest.mark.parametrize("name", ["requirements.runtime.lock", "requirements.build.lock"])
def test_the_image_s_locks_hold_hashed_versions_that_the_tests_run_with(name):
    found = pins(name)

    assert found
    assert found <= pins("requirements.lock")
    text = (ROOT / name).read_text()
    assert len(re.findall(r"--hash=sha256:", text)) >= len(found)


def test_the_runtime_lock_has_every_dependency_and_no_tool():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    def names(requirements):
        found = {re.match(r"[A-Za-z0-9._-]+", r)[0].lower() for r in requirements}
        return found - {"forage-mesh"}

    # The image serves; whoever measures quality installs the extra for that.
    every = project["project"]["optional-dependencies"]
    extras = [requirements for name, requirements in every.items() if name != "evaluate"]
    wanted = names(project["project"]["dependencies"]).union(*(names(e) for e in extras))
    locked = {pin.partition("==")[0] for pin in pins("requirements.runtime.lock")}
    tools = names(project["dependency-groups"]["dev"]) - wanted

    assert wanted <= locked
    assert not tools & locked


@pytest.fixture
def health_port():
    servicer = health.HealthServicer()
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, port
    server.stop(None).wait()


def check_health(port):
    script = ROOT / "deploy/check_health.py"
    return subprocess.run(
        [sys.executable, script, str(port)], capture_output=True, text=True, timeout=20, check=False
    )


def test_a_service_is_healthy_exactly_while_it_says_so(health_port):
    servicer, port = health_port

    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    assert check_health(port).returncode == 0

    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    done = check_health(port)
    assert done.returncode == 1
    assert "NOT_SERVING" in done.stderr


def test_a_service_that_does_not_answer_is_not_healthy():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        done = check_health(reserved.getsockname()[1])

    assert done.returncode == 1
    assert "UNAVAILABLE" in done.stderr or "DEADLINE_EXCEEDED" in done.stderr
