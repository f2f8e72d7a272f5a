"""The examples with NATS, read without helm: replicas, and the servers that they use."""

import pytest

from forage import services
from tests.chart.rendered import effective, named, serving

EXAMPLE = "replicas"
AUTOSCALED = {*services.names()} - {"orchestrator"}


def sets(example):
    return {
        name: s["spec"]
        for name, s in named(example, "StatefulSet").items()
        if s["spec"]["template"]["metadata"]["labels"].get("app.kubernetes.io/component")
    }


SETS = sets(EXAMPLE)


def pod(name):
    return SETS[name]["template"]["spec"]


@pytest.fixture
def loaded(tmp_path):
    return {name: effective(EXAMPLE, c, tmp_path) for name, c, _ in serving(EXAMPLE)}


def test_every_service_has_pods_of_its_own(loaded):
    assert set(SETS) == {f"forage-{name}" for name in (*services.names(), "indexer")}
    assert {len(pod(name)["containers"]) for name in SETS} == {1}
    assert {s.log_url for s in loaded.values()} == {
        "tls://nats-0.nats:4222,tls://nats-1.nats:4222,tls://nats-2.nats:4222"
    }
    assert {s.nats.replicas for s in loaded.values()} == {3}


def test_one_indexer_writes_the_collection_that_the_others_search(loaded):
    indexer, semantic = loaded["indexer"], loaded["semantic"]

    assert type(indexer) is type(semantic)
    assert (indexer.role, semantic.role) == ("index", "serve")
    assert indexer.milvus == semantic.milvus
    assert semantic.milvus.uri == "https://milvus.vectors:19530"
    assert semantic.milvus.index == "HNSW"
    assert str(semantic.milvus.tls_ca_file) == "tls/milvus/ca.crt"
    assert semantic.milvus.tls_cert_file is None


def test_the_orchestrator_calls_all_replicas_of_each_service_by_its_headless_service(loaded):
    mesh = loaded["orchestrator"]
    called = {name: g.target for name, g in mesh.generators.items()} | {
        "ranker": mesh.ranker.target
    }
    found = named(EXAMPLE, "Service")

    for name, target in called.items():
        service = found[f"forage-{name}"]["spec"]
        (port,) = service["ports"]
        assert target == f"dns:///forage-{name}.search.svc.cluster.local:{port['port']}"
        assert service["clusterIP"] == "None"
        assert "publishNotReadyAddresses" not in service
        assert port["port"] == loaded[name].server.port
    assert set(called) == set(services.names()) - {"orchestrator"}


def test_services_budgets_and_spread_select_exactly_the_pods_of_their_service():
    for name, spec in SETS.items():
        labels = spec["template"]["metadata"]["labels"]
        selector = spec["selector"]["matchLabels"]
        assert selector.items() <= labels.items()
        assert selector["app.kubernetes.io/component"] == name.removeprefix("forage-")
        assert named(EXAMPLE, "Service")[name]["spec"]["selector"] == selector
        spread = pod(name)["topologySpreadConstraints"]
        assert [s["topologyKey"] for s in spread] == [
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        ]
        assert all(s["labelSelector"]["matchLabels"] == selector for s in spread)
        assert {s["whenUnsatisfiable"] for s in spread} == {"DoNotSchedule"}
        if name != "forage-indexer":
            budget = named(EXAMPLE, "PodDisruptionBudget")[name]["spec"]
            assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": selector}}


def test_what_is_scaled_automatically_has_no_fixed_number_of_replicas():
    scaled = named(EXAMPLE, "HorizontalPodAutoscaler")

    assert set(scaled) == {f"forage-{name}" for name in AUTOSCALED}
    for name, spec in SETS.items():
        assert ("replicas" in spec) != (name in scaled)
    for name, scaler in scaled.items():
        (container,) = pod(name)["containers"]
        assert "cpu" in container["resources"]["requests"]
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert scaler["spec"]["minReplicas"] <= scaler["spec"]["maxReplicas"]


@pytest.mark.parametrize(
    ("server", "keys", "secret", "users"),
    [
        ("NATS", {"USER", "PASSWORD", "TOKEN", "CREDS"}, "forage-nats", None),
        ("MILVUS", {"USER", "PASSWORD", "TOKEN"}, "forage-milvus", {"semantic", "indexer"}),
    ],
)
def test_a_log_in_is_a_reference_to_a_secret(server, keys, secret, users):
    for name, container, _ in serving(EXAMPLE):
        prefix = f"FORAGE_{container['args'][1].upper()}__{server}__"
        found = {
            e["name"].removeprefix(prefix): e["valueFrom"]["secretKeyRef"]
            for e in container["env"]
            if e["name"].startswith(prefix)
        }
        assert set(found) == (keys if users is None or name in users else set())
        assert {ref["name"] for ref in found.values()} <= {secret}
        assert all(ref["key"].upper() == key and ref["optional"] for key, ref in found.items())


def test_only_orchestrators_reach_the_other_services():
    inner = named(EXAMPLE, "NetworkPolicy")["forage-inner"]["spec"]
    ((peer,),) = (rule["from"] for rule in inner["ingress"])

    labels = SETS["forage-orchestrator"]["template"]["metadata"]["labels"]
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()
