"""Every rendered example, read without helm: what it says is what the services understand."""

import json
import re

import pytest
import yaml

from forage import services
from forage.catalog.schema import Schema
from forage.settings import leaves
from tests.chart.rendered import (
    CHART,
    EXAMPLES,
    ROOT,
    effective,
    manifests,
    named,
    only,
    pods,
    served,
    serving,
)

WORKDIR = re.findall(r"^WORKDIR (\S+)$", (ROOT / "Dockerfile").read_text(), re.M)[-1]
ONE_POD = ("minimal", "production")
EXPECTED = {
    "minimal": set(services.names()),
    "bundled": set(services.names()),
    "production": set(services.names()) - {"exploration"},
    "replicas": {*services.names(), "indexer"},
}


@pytest.fixture(params=EXAMPLES)
def example(request):
    return request.param


@pytest.fixture
def loaded(example, tmp_path):
    return {name: effective(example, c, tmp_path) for name, c, _ in serving(example)}


def test_every_container_s_settings_are_valid(example, loaded):
    assert set(loaded) == EXPECTED[example]


def test_every_probe_asks_the_port_that_the_service_listens_on(example, loaded):
    for name, container, _ in serving(example):
        server = loaded[name].server
        assert server.host == "0.0.0.0"
        assert [p["containerPort"] for p in container["ports"]] == [server.port]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            how = container[probe]
            if example in ("minimal", "bundled"):
                assert how["exec"]["command"] == ["python", "check_health.py", str(server.port)]
            else:
                assert how["grpc"] == {"port": server.port}


def test_ports_are_valid_and_differ(loaded):
    ports = [settings.server.port for settings in loaded.values()]
    assert len(set(ports)) == len(ports)
    assert all(1024 <= port <= 65535 for port in ports)


def test_every_environment_variable_is_a_setting_of_the_service(example):
    for _, spec in pods(example):
        for container in spec["containers"]:
            for variable in container.get("env", []):
                if variable["name"].startswith("FORAGE_"):
                    service, *path = variable["name"].removeprefix("FORAGE_").lower().split("__")
                    settings = services.find(service).settings()
                    assert ".".join(path) in dict(leaves(settings)), variable["name"]


def test_no_secret_is_in_a_manifest(example):
    for _, spec in pods(example):
        for container in spec["containers"]:
            for variable in container.get("env", []):
                if re.search(r"PASSWORD|CREDS|USER$|TOKEN$", variable["name"]):
                    assert variable.get("value") in (None, '"$(TOKEN)"')
    assert not named(example, "Secret")


def test_the_orchestrator_calls_every_other_service_and_the_ranker_knows_them(example, loaded):
    called = [n for n, g in loaded["orchestrator"].generators.items() if g.enabled]

    assert sorted([*called, "orchestrator", "ranker"]) == sorted(EXPECTED[example] - {"indexer"})
    assert sorted(loaded["ranker"].generators) == sorted(called)


def test_pods_have_the_time_to_drain_and_finish(example, loaded):
    front = loaded["orchestrator"].server
    for name, _, spec in serving(example):
        server = loaded[name].server
        needed_ms = server.drain_delay_ms + server.grace_ms
        assert server.drain_delay_ms > 0
        assert spec["terminationGracePeriodSeconds"] * 1000 > needed_ms
        if example in ONE_POD and name != "orchestrator":
            # They serve on until the orchestrator of their pod is done.
            assert server.drain_delay_ms >= front.drain_delay_ms + front.grace_ms


def test_what_the_settings_name_is_mounted(example, loaded):
    for name, container, spec in serving(example):
        settings = loaded[name]
        mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
        assert {m["name"] for m in mounts.values()} <= {
            *(v["name"] for v in spec["volumes"]),
            "data",
        }
        assert f"{WORKDIR}/{settings.data_dir}" in mounts
        assert mounts[f"{WORKDIR}/{settings.schema_file.parent}"]["readOnly"]
        assert settings.schema_file.name in named(example, "ConfigMap")["forage"]["data"]
        for setting, value in leaves(settings):
            if re.search(r"\.tls_(ca|cert|key)_file$", setting) and value:
                assert mounts[f"{WORKDIR}/{value.parent}"]["readOnly"], setting
        assert "/tmp" in mounts


def test_pods_have_no_rights(example):
    for _, spec in pods(example):
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["serviceAccountName"] in named(example, "ServiceAccount")
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


def test_services_select_pods_of_one_workload_at_ports_that_these_have(example):
    for service in named(example, "Service").values():
        selector = service["spec"]["selector"].items()
        selected = [(labels, s) for labels, s in pods(example) if selector <= labels.items()]
        ((_, spec),) = selected
        open_ports = {p["name"]: p["containerPort"] for c in spec["containers"] for p in c["ports"]}
        for port in service["spec"]["ports"]:
            assert open_ports[port["targetPort"]] == port["port"]


def test_every_network_policy_selects_a_pod_and_every_server_pod_is_selected(example):
    policies = [p["spec"]["podSelector"] for p in named(example, "NetworkPolicy").values()]

    def selects(selector, labels):
        expressions = selector.get("matchExpressions", [])
        return selector["matchLabels"].items() <= labels.items() and all(
            labels.get(e["key"]) not in e["values"] for e in expressions
        )

    for labels, spec in pods(example):
        listens = any("ports" in c for c in spec["containers"])
        assert sum(selects(selector, labels) for selector in policies) == listens, labels
    for selector in policies:
        assert any(selects(selector, labels) for labels, _ in pods(example))


def test_a_pod_that_is_not_ready_does_not_hinder_an_upgrade(example):
    for workload in named(example, "StatefulSet").values():
        assert workload["spec"]["podManagementPolicy"] == "Parallel"


def test_the_catalogue_schema_loads(example, tmp_path):
    file = tmp_path / "schema.yaml"
    file.write_text(named(example, "ConfigMap")["forage"]["data"]["catalog.schema.yaml"])

    assert Schema.load(file).name


def test_the_golden_files_hold_the_settings_files_as_they_are(example):
    data = named(example, "ConfigMap")["forage"]["data"]

    files = {f"{served(c)}.yaml": f"{served(c)}.yaml" for _, c, _ in serving(example)}
    files["catalog.schema.yaml"] = "films.schema.yaml"
    for key, file in files.items():
        assert data[key].strip() == (ROOT / "config" / file).read_text().strip(), (
            "the golden files are old; renew them: make chart-goldens"
        )


@pytest.mark.parametrize("example", ONE_POD, indirect=True)
def test_in_one_pod_services_are_called_there_and_searched_through_two_services(example, loaded):
    mesh = loaded["orchestrator"]
    called = {name: g.target for name, g in mesh.generators.items() if g.enabled}
    called["ranker"] = mesh.ranker.target

    others = {n: s.server.port for n, s in loaded.items() if n != "orchestrator"}
    assert called == {name: f"127.0.0.1:{port}" for name, port in others.items()}
    for service in named(example, "Service").values():
        (port,) = service["spec"]["ports"]
        assert port["targetPort"] == "orchestrator"
    assert only(example, "StatefulSet")["spec"]["replicas"] == 1


def test_only_what_can_be_asked_for_outside_is_open_there():
    (rule,) = named("production", "Ingress")["forage"]["spec"]["rules"]
    (route,) = named("replicas", "GRPCRoute")["forage"]["spec"]["rules"]

    public = ["forage.v1.SearchService", "forage.v1.FeedbackService"]
    assert [p["path"] for p in rule["http"]["paths"]] == [f"/{name}" for name in public]
    assert [m["method"] for m in route["matches"]] == [{"service": name} for name in public]
    for name in public:
        service = name.removeprefix("forage.v1.")
        protos = "".join(p.read_text() for p in (ROOT / "protos/forage/v1").glob("*.proto"))
        assert f"service {service} {{" in protos
    assert named("production", "Ingress")["forage"]["spec"]["tls"] == [
        {"hosts": [rule["host"]], "secretName": "search-example-com"}
    ]


def test_the_values_schema_knows_every_value_and_refuses_others():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    assert set(values) == set(schema["properties"]) - {"global"}
    assert schema["additionalProperties"] is False
    assert schema["properties"]["replicas"]["maximum"] == 1
    for name, value in values.items():
        known = schema["properties"][name]
        if "properties" in known:
            assert known["additionalProperties"] is False, name
            assert set(value) == set(known["properties"]), name


def test_the_values_have_every_installed_service():
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    assert set(values["services"]) == set(services.names())


def test_every_example_has_golden_files():
    assert {p.name for p in (CHART / "examples").iterdir()} == set(EXAMPLES)
    assert all(manifests(example) for example in EXAMPLES)
