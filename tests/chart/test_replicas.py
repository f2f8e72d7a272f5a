"""The example with replicas, read without helm: what it says is what the services understand."""

from pathlib import Path

import pytest
import yaml

from forage import services
from forage.cli.terminal import settings_flags
from forage.settings import load

CHART = Path(__file__).parents[2] / "helm/forage"
EXAMPLE = CHART / "examples/replicas"


def manifests(kind):
    files = sorted((EXAMPLE / "rendered").rglob("*.yaml"))
    found = [m for f in files for m in yaml.safe_load_all(f.read_text()) if m]
    return {m["metadata"]["name"]: m for m in found if m["kind"] == kind}


SETS = {name: s["spec"] for name, s in manifests("StatefulSet").items()}


def pod(name):
    return SETS[name]["template"]["spec"]


def effective(container, tmp_path):
    """Load a container's settings from its arguments, as `forage serve` does."""
    _, name, config, *options = container["args"]
    (settings_map,) = manifests("ConfigMap").values()
    file = tmp_path / Path(config.removeprefix("--config=")).name
    file.write_text(settings_map["data"][file.name])
    flags = settings_flags([option.removeprefix("--set=") for option in options])
    return load(name, services.find(name).settings, file=file, flags=flags, environment={}).settings


@pytest.fixture
def loaded(tmp_path):
    return {name: effective(pod(name)["containers"][0], tmp_path) for name in SETS}


def test_every_service_has_pods_of_its_own_with_settings_that_are_valid(loaded):
    assert set(loaded) == {f"forage-{name}" for name in services.names()}
    assert {len(pod(name)["containers"]) for name in SETS} == {1}
    assert {s.log_url for s in loaded.values()} == {
        "nats://nats-0.nats:4222,nats://nats-1.nats:4222,nats://nats-2.nats:4222"
    }
    assert {s.nats.replicas for s in loaded.values()} == {3}


def test_the_orchestrator_calls_all_replicas_of_each_service_by_its_headless_service(loaded):
    mesh = loaded["forage-orchestrator"]
    called = {name: g.target for name, g in mesh.generators.items()} | {
        "ranker": mesh.ranker.target
    }
    found = manifests("Service")

    for name, target in called.items():
        service = found[f"forage-{name}"]["spec"]
        (port,) = service["ports"]
        assert target == f"dns:///forage-{name}.search.svc.cluster.local:{port['port']}"
        assert service["clusterIP"] == "None"
        assert "publishNotReadyAddresses" not in service
        assert port["port"] == loaded[f"forage-{name}"].server.port
    assert len(called) == len(services.names()) - 1


def test_services_budgets_and_spread_select_exactly_the_pods_of_their_service():
    for name, spec in SETS.items():
        labels = spec["template"]["metadata"]["labels"]
        selector = spec["selector"]["matchLabels"]
        assert selector.items() <= labels.items()
        assert selector["app.kubernetes.io/component"] == name.removeprefix("forage-")
        assert manifests("Service")[name]["spec"]["selector"] == selector
        budget = manifests("PodDisruptionBudget")[name]["spec"]
        assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": selector}}
        spread = pod(name)["topologySpreadConstraints"]
        assert [s["topologyKey"] for s in spread] == [
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        ]
        assert all(s["labelSelector"]["matchLabels"] == selector for s in spread)
        assert {s["whenUnsatisfiable"] for s in spread} == {"DoNotSchedule"}


def test_what_is_scaled_automatically_has_no_fixed_number_of_replicas():
    scaled = manifests("HorizontalPodAutoscaler")

    assert set(scaled) == {"forage-semantic", "forage-ranker"}
    for name, spec in SETS.items():
        assert ("replicas" in spec) != (name in scaled)
    for name, scaler in scaled.items():
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert scaler["spec"]["minReplicas"] <= scaler["spec"]["maxReplicas"]


def test_every_pod_has_the_time_to_drain_and_finish(loaded):
    for name, settings in loaded.items():
        server = settings.server
        needed_ms = server.drain_delay_ms + server.grace_ms
        assert server.drain_delay_ms > 0
        assert pod(name)["terminationGracePeriodSeconds"] * 1000 > needed_ms


def test_probes_ask_the_port_that_the_service_listens_on(loaded):
    for name, settings in loaded.items():
        (container,) = pod(name)["containers"]
        assert [p["containerPort"] for p in container["ports"]] == [settings.server.port]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["grpc"] == {"port": settings.server.port}


def test_the_log_in_to_nats_is_a_reference_to_a_secret():
    for name in SETS:
        (container,) = pod(name)["containers"]
        prefix = f"FORAGE_{container['name'].upper()}__NATS__"
        found = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"]}
        assert set(found) == {f"{prefix}{key}" for key in ("USER", "PASSWORD", "TOKEN", "CREDS")}
        assert {ref["name"] for ref in found.values()} == {"forage-nats"}


def test_only_orchestrators_reach_the_other_services():
    inner = manifests("NetworkPolicy")["forage-inner"]["spec"]
    ((peer,),) = (rule["from"] for rule in inner["ingress"])

    labels = SETS["forage-orchestrator"]["template"]["metadata"]["labels"]
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()
