"""The compose files, the image and the locks agree with the services' settings."""

import re
import socket
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import yaml
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from forage import services
from forage.settings import load

ROOT = Path(__file__).parents[2]
SERVICES = ("lexical", "semantic", "graph", "memory", "exploration", "ranker", "orchestrator")


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


@pytest.fixture(scope="module")
def containers():
    return read("docker-compose.yml")["services"]


def test_there_is_one_container_for_each_installed_service(containers):
    assert set(containers) == set(SERVICES) == set(services.names())
    for name, container in containers.items():
        assert container["command"] == ["serve", name, "--config", f"config/{name}.yaml"]


def test_every_variable_names_a_setting_of_its_service(containers):
    given = environment(containers["orchestrator"])

    for name, container in containers.items():
        assert environment(container) == given
        own = {v for v in given if v.startswith(f"FORAGE_{name.upper()}__")}
        sources = settings(name, container).sources.values()
        assert {f"environment {v}" for v in own} <= set(sources)
    assert all(v.split("__")[0].removeprefix("FORAGE_").lower() in containers for v in given)


def test_without_an_endpoint_telemetry_goes_to_files(containers):
    for name, container in containers.items():
        assert settings(name, container).settings.telemetry.endpoint == ""


def test_every_service_listens_for_the_others_and_is_asked_at_its_port(containers):
    for name, container in containers.items():
        server = settings(name, container).settings.server
        assert server.host == "0.0.0.0"
        command = container["healthcheck"]["test"]
        assert command == ["CMD", "python", "check_health.py", str(server.port)]


def test_the_orchestrator_calls_every_other_container_at_its_port(containers):
    mesh = settings("orchestrator", containers["orchestrator"]).settings

    targets = {name: generator.target for name, generator in mesh.generators.items()}
    targets["ranker"] = mesh.ranker.target

    others = [name for name in containers if name != "orchestrator"]
    assert targets == {n: f"{n}:{settings(n).settings.server.port}" for n in others}


def test_local_settings_files_agree_on_ports():
    mesh = settings("orchestrator").settings

    targets = {name: generator.target for name, generator in mesh.generators.items()}
    targets["ranker"] = mesh.ranker.target

    for name, target in targets.items():
        assert target == f"127.0.0.1:{settings(name).settings.server.port}"


def test_only_the_orchestrator_is_published_and_only_to_this_host(containers):
    port = settings("orchestrator").settings.server.port

    published = {n: c["ports"] for n, c in containers.items() if "ports" in c}

    assert set(published) == {"orchestrator"}
    assert [by_default(p) for p in published["orchestrator"]] == [f"127.0.0.1:{port}:{port}"]


def test_the_orchestrator_is_stopped_before_those_it_calls(containers):
    depending = {name for name, c in containers.items() if "depends_on" in c}

    assert depending == {"orchestrator"}
    assert set(containers["orchestrator"]["depends_on"]) == set(containers) - depending


def test_containers_have_time_to_drain(containers):
    for name, container in containers.items():
        server = settings(name, container).settings.server
        seconds = int(container["stop_grace_period"].removesuffix("s"))
        assert seconds * 1000 > server.drain_delay_ms + server.grace_ms


def test_all_share_one_volume_at_the_image_s_data_folder(containers):
    folder = re.findall(r"^WORKDIR (\S+)$", (ROOT / "Dockerfile").read_text(), re.M)[-1]

    for name, container in containers.items():
        data = f"{folder}/{settings(name).settings.data_dir}"
        assert f"data:{data}" in container["volumes"]
        assert f"./config:{folder}/config:ro" in container["volumes"]
        assert container["read_only"] is True
    assert "data" in read("docker-compose.yml")["volumes"]


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


def test_observability_sends_everything_to_the_collector(containers):
    overlay = read("compose.observability.yaml")["services"]
    collector = read("deploy/observability/collector.yaml")
    receiver = collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]

    for name in containers:
        environment = {f"FORAGE_{name.upper()}__TELEMETRY__ENDPOINT"}
        assert environment <= set(overlay[name]["environment"])
        merged = {**containers[name], "environment": overlay[name]["environment"]}
        endpoint = settings(name, merged).settings.telemetry.endpoint
        assert endpoint == f"http://collector:{receiver.rpartition(':')[2]}"


def test_prometheus_scrapes_where_the_collector_exports():
    collector = read("deploy/observability/collector.yaml")
    prometheus = read("deploy/observability/prometheus.yaml")
    exported = collector["exporters"]["prometheus"]["endpoint"].rpartition(":")[2]

    (job,) = prometheus["scrape_configs"]

    assert job["static_configs"][0]["targets"] == [f"collector:{exported}"]


def test_the_collector_s_pipelines_use_only_what_is_configured():
    collector = read("deploy/observability/collector.yaml")

    for pipeline in collector["service"]["pipelines"].values():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) <= set(collector[part])


def test_images_are_pinned_to_a_version():
    overlay = read("compose.observability.yaml")["services"]

    images = [c["image"] for c in overlay.values() if "image" in c]

    assert len(images) == 3
    assert all(re.search(r":v?\d+\.\d+\.\d+$", image) for image in images)


def test_chart_image_and_distribution_have_one_version(containers):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = read("helm/forage/Chart.yaml")

    assert chart["appVersion"] == version
    assert {by_default(c["image"]) for c in containers.values()} == {f"forage-mesh:{version}"}


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
