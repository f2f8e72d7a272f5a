"""The rendered examples, read without helm: what they say is what the services understand."""

import json
import re
from pathlib import Path

import pytest
import yaml

from forage import services
from forage.catalog.schema import Schema
from forage.cli.terminal import settings_flags
from forage.settings import load

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/forage"
EXAMPLES = ("minimal", "production")


def manifests(example):
    files = sorted((CHART / "examples" / example / "rendered").rglob("*.yaml"))
    return [m for f in files for m in yaml.safe_load_all(f.read_text()) if m]


def only(example, kind):
    (found,) = [m for m in manifests(example) if m["kind"] == kind]
    return found


def pod(example):
    return only(example, "StatefulSet")["spec"]["template"]["spec"]


def effective(example, container, tmp_path):
    """Load a container's settings from its arguments, as `forage serve` does."""
    serve, name, *options = container["args"]
    assert serve == "serve"
    assert name == container["name"]
    file = None
    assignments = []
    for option in options:
        flag, _, value = option.partition("=")
        if flag == "--config":
            file = tmp_path / Path(value).name
            file.write_text(only(example, "ConfigMap")["data"][file.name])
        else:
            assert flag == "--set"
            assignments.append(value)
    flags = settings_flags(assignments)
    settings = services.find(name).settings
    return load(name, settings, file=file, flags=flags, environment={}).settings


@pytest.fixture(params=EXAMPLES)
def example(request):
    return request.param


@pytest.fixture
def loaded(example, tmp_path):
    return {c["name"]: effective(example, c, tmp_path) for c in pod(example)["containers"]}


def test_every_container_s_settings_are_valid(example, loaded):
    expected = {"minimal": set(services.names())}
    expected["production"] = expected["minimal"] - {"exploration"}
    assert set(loaded) == expected[example]


def test_every_probe_asks_the_port_that_the_service_listens_on(example, loaded):
    for container in pod(example)["containers"]:
        server = loaded[container["name"]].server
        assert server.host == "0.0.0.0"
        assert [p["containerPort"] for p in container["ports"]] == [server.port]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            how = container[probe]
            if example == "minimal":
                assert how["exec"]["command"] == ["python", "check_health.py", str(server.port)]
            else:
                assert how["grpc"] == {"port": server.port}


def test_ports_are_valid_and_differ(loaded):
    ports = [settings.server.port for settings in loaded.values()]
    assert len(set(ports)) == len(ports)
    assert all(1024 <= port <= 65535 for port in ports)


def test_the_orchestrator_calls_the_containers_of_its_pod_and_no_other(loaded):
    mesh = loaded["orchestrator"]

    called = {name: g.target for name, g in mesh.generators.items() if g.enabled}
    called["ranker"] = mesh.ranker.target

    others = {n: s.server.port for n, s in loaded.items() if n != "orchestrator"}
    assert called == {name: f"127.0.0.1:{port}" for name, port in others.items()}


def test_the_ranker_has_features_of_the_generators_that_are_called(loaded):
    called = [name for name, g in loaded["orchestrator"].generators.items() if g.enabled]

    assert sorted(loaded["ranker"].generators) == sorted(called)


def test_the_orchestrator_ends_before_the_others_stop_serving_and_the_pod_waits(example, loaded):
    front = loaded["orchestrator"].server
    done_ms = front.drain_delay_ms + front.grace_ms

    longest_ms = max(s.server.drain_delay_ms + s.server.grace_ms for s in loaded.values())

    assert all(s.server.drain_delay_ms >= done_ms for n, s in loaded.items() if n != "orchestrator")
    assert pod(example)["terminationGracePeriodSeconds"] * 1000 > longest_ms


def test_what_the_settings_name_is_mounted(example, loaded):
    folder = re.findall(r"^WORKDIR (\S+)$", (ROOT / "Dockerfile").read_text(), re.M)[-1]

    for container in pod(example)["containers"]:
        settings = loaded[container["name"]]
        mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
        assert f"{folder}/{settings.data_dir}" in mounts
        assert mounts[f"{folder}/{settings.schema_file.parent}"]["readOnly"]
        assert settings.schema_file.name in only(example, "ConfigMap")["data"]
        assert "/tmp" in mounts
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_catalogue_schema_loads(example, tmp_path):
    file = tmp_path / "schema.yaml"
    file.write_text(only(example, "ConfigMap")["data"]["catalog.schema.yaml"])

    assert Schema.load(file).name


def test_the_golden_files_hold_the_settings_files_as_they_are(example, loaded):
    data = only(example, "ConfigMap")["data"]

    files = {f"{name}.yaml": f"{name}.yaml" for name in loaded}
    files["catalog.schema.yaml"] = "films.schema.yaml"
    for key, file in files.items():
        assert data[key].strip() == (ROOT / "config" / file).read_text().strip(), (
            "the golden files are old; renew them: deploy/render_examples.sh helm/forage/examples"
        )


def test_services_lead_to_the_orchestrator(example, loaded):
    for service in (m for m in manifests(example) if m["kind"] == "Service"):
        (port,) = service["spec"]["ports"]
        assert port["port"] == loaded["orchestrator"].server.port
        assert port["targetPort"] == "orchestrator"


def test_no_second_pod_is_possible(example):
    schema = json.loads((CHART / "values.schema.json").read_text())

    assert schema["properties"]["replicas"]["maximum"] == 1
    assert only(example, "StatefulSet")["spec"]["replicas"] == 1


def test_the_values_schema_knows_every_value_and_refuses_others():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    assert set(values) == set(schema["properties"]) - {"global"}
    assert schema["additionalProperties"] is False
    for name, value in values.items():
        known = schema["properties"][name]
        if "properties" in known:
            assert known["additionalProperties"] is False, name
            assert set(value) == set(known["properties"]), name


def test_the_values_have_every_installed_service():
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    assert set(values["services"]) == set(services.names())
