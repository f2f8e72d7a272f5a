"""The chart, rendered by the real helm: golden files, refusals, and what values change."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/forage"
SCALING = {"minReplicas": 2, "maxReplicas": 4, "cpuPercent": 70}
ON_NATS = {"nats": {"url": "nats://nats:4222"}}
OPERATORS = (
    "--api-versions=monitoring.coreos.com/v1",
    "--api-versions=gateway.networking.k8s.io/v1",
)
HELM = os.environ.get("FORAGE_HELM") or shutil.which("helm")

pytestmark = pytest.mark.skipif(
    HELM is None, reason="no helm on the PATH, and none named in FORAGE_HELM"
)


def run(*arguments):
    return subprocess.run(
        [HELM, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )


def template(tmp_path, values, *arguments):
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    return run("template", "forage", str(CHART), "--values", str(file), *arguments)


def render(tmp_path, values, *arguments):
    done = template(tmp_path, values, *arguments)
    assert done.returncode == 0, done.stderr
    return [m for m in yaml.safe_load_all(done.stdout) if m]


def stateful_set(manifests):
    (found,) = [m for m in manifests if m["kind"] == "StatefulSet"]
    return found["spec"]


def containers(manifests):
    return {c["name"]: c for c in stateful_set(manifests)["template"]["spec"]["containers"]}


def test_the_examples_render_to_their_golden_files(tmp_path):
    environment = {**os.environ, "FORAGE_HELM": HELM}
    script = ROOT / "deploy/render_examples.sh"

    subprocess.run([script, tmp_path], env=environment, check=True, timeout=30)

    def tree(root):
        files = root.glob("*/rendered/**/*.yaml")
        # Helm 4 puts empty lines between documents, Helm 3 does not.
        return {str(f.relative_to(root)): f.read_text().replace("\n\n", "\n") for f in files}

    assert tree(tmp_path) == tree(CHART / "examples"), (
        "the golden files are old; renew them: make chart-goldens"
    )


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"replicas": 2}, "replicas"),
        ({"replica": 1}, "replica"),
        ({"persistence": {"enabled": True, "accessModes": ["ReadWriteMany"]}}, "accessModes"),
        ({"services": {"lexical": {"confg": {}}}}, "confg"),
        ({"services": {"Lexical": {}}}, "Lexical"),
        ({"services": {"lexcial": {}}}, "services.lexcial: config.server.port is missing"),
        ({"services": {"orchestrator": None}}, "orchestrator"),
        ({"telemetry": {"endpoint": "collector:4317"}}, "endpoint"),
        ({"services": {"lexical": {"replicas": 2}}}, "services.lexical: replicas and autoscaling"),
        (
            {"services": {"lexical": {"autoscaling": SCALING}}},
            "services.lexical: replicas and auto",
        ),
        ({**ON_NATS, "services": {"graph": {"replicas": 0}}}, "replicas"),
        ({**ON_NATS, "services": {"graph": {"autoscaling": {"min": 1}}}}, "autoscaling"),
        (
            {**ON_NATS, "services": {"graph": {"replicas": 2, "autoscaling": SCALING}}},
            "services.graph: replicas and autoscaling exclude each other",
        ),
        ({"nats": {"url": "http://nats:4222"}}, "url"),
        ({"topologySpread": "Perhaps"}, "topologySpread"),
        ({"nats": {"url": "nats://a:4222", "enabled": True}}, "nats.enabled and nats.url exclude"),
        ({"nats": {"enabld": True}}, "enabld"),
        ({"nats": {"enabled": True, "tls": {"secret": "ca"}}}, "nats.tls is for your own server"),
        ({"nats": {"secret": "login"}}, "nats.secret needs nats.url"),
        ({**ON_NATS, "replicas": 0}, "services.<name>.replicas"),
        (
            {"nats": {"url": "nats://a:4222", "tls": {"secret": "ca"}}},
            "nats.tls.secret needs a nats.url that begins with tls://",
        ),
        ({"nats": {"enabled": True}, "config": {"nats": {"replicas": 3}}}, "config.nats.replicas"),
        ({**ON_NATS, "config": {"log_url": "sqlite:log.db"}}, "config.log_url: nats.url"),
        (
            {**ON_NATS, "services": {"graph": {"config": {"log_url": "nats://b:4222"}}}},
            "services.graph.config.log_url: nats.url",
        ),
        (
            {"milvus": {"uri": "http://a:19530", "enabled": True}},
            "milvus.enabled and milvus.uri exclude",
        ),
        ({"milvus": {"enabled": True, "secret": "login"}}, "milvus.secret and milvus.tls are for"),
        ({"milvus": {"enabled": True}, "services": {"semantic": None}}, "need services.semantic"),
        (
            {
                "milvus": {"enabled": True},
                "services": {"semantic": {"config": {"milvus": {"uri": "http://b:19530"}}}},
            },
            "services.semantic.config.milvus.uri: milvus.uri",
        ),
        (
            {"collector": {"enabled": True}, "telemetry": {"endpoint": "http://a:4317"}},
            "collector.enabled and telemetry.endpoint exclude",
        ),
        (
            {
                "telemetry": {"endpoint": "http://a:4317"},
                "config": {"telemetry": {"endpoint": "http://b:4317"}},
            },
            "config.telemetry.endpoint: telemetry.endpoint",
        ),
        ({"jaeger": {"enabled": True}}, "jaeger.enabled needs collector.enabled"),
        (
            {
                "jaeger": {"enabled": True},
                "collector": {"enabled": True, "traces": "http://tempo:4317"},
            },
            "jaeger.enabled and collector.traces exclude",
        ),
        ({"serviceMonitor": {"enabled": True}}, "serviceMonitor.enabled needs collector.enabled"),
        (
            {"serviceMonitor": {"enabled": True}, "collector": {"enabled": True}},
            "has no monitoring.coreos.com/v1",
        ),
        ({"gateway": {"enabled": True}}, "parentRefs"),
        (
            {"gateway": {"enabled": True, "parentRefs": [{"name": "public"}]}},
            "has no gateway.networking.k8s.io/v1",
        ),
        ({"ingress": {"enabled": True}}, "host"),
        ({"train": {"enabled": True, "schedule": "daily"}}, "schedule"),
        ({"train": {"enabled": True}, "services": {"ranker": None}}, "services.ranker"),
        (
            {"train": {"enabled": True}, "persistence": {"enabled": False}},
            "train.enabled without NATS needs persistence.enabled",
        ),
        (
            {"services": {"indexer": {"serves": "semantic", "config": {"server": {"port": 7107}}}}},
            "services.indexer.serves needs nats.url",
        ),
        (
            {**ON_NATS, "services": {"nats": {"config": {"server": {"port": 7107}}}}},
            "services.nats: the chart uses this name",
        ),
        (
            {
                **ON_NATS,
                "services": {"graph": {"autoscaling": {**SCALING, "minReplicas": 9}}},
            },
            "minReplicas is above maxReplicas",
        ),
        (
            {
                **ON_NATS,
                "services": {"graph": {"autoscaling": SCALING, "resources": {"requests": None}}},
            },
            "services.graph.autoscaling: cpuPercent is of",
        ),
        ({"services": {"graph": {"resources": {"limit": {"memory": "1Gi"}}}}}, "limit"),
    ],
)
def test_bad_values_are_refused_by_name(tmp_path, values, told):
    done = template(tmp_path, values)

    assert done.returncode != 0
    assert told in done.stderr


def test_a_changed_settings_file_replaces_the_pod(tmp_path):
    def checksum(values):
        metadata = stateful_set(render(tmp_path, values))["template"]["metadata"]
        return metadata["annotations"]["checksum/config"]

    assert checksum({}) == checksum({"service": {"type": "NodePort"}})
    assert checksum({}) != checksum({"catalogSchema": {"name": "songs", "title": "title"}})


def test_a_generator_of_ones_own_is_called_at_its_port(tmp_path):
    values = {"services": {"trending": {"config": {"server": {"port": 7107}}}}}

    found = containers(render(tmp_path, values))

    assert '--set=generators.trending.target="127.0.0.1:7107"' in found["orchestrator"]["args"]
    assert "--set=server.port=7107" in found["trending"]["args"]
    assert not any("--config" in argument for argument in found["trending"]["args"])


def test_a_port_changed_in_the_values_changes_everywhere(tmp_path):
    values = {"services": {"lexical": {"config": {"server": {"port": 9001}}}}}

    found = containers(render(tmp_path, values, "--kube-version", "1.37.0"))

    assert found["lexical"]["ports"][0]["containerPort"] == 9001
    assert found["lexical"]["readinessProbe"]["grpc"]["port"] == 9001
    assert '--set=generators.lexical.target="127.0.0.1:9001"' in found["orchestrator"]["args"]


def test_a_service_s_own_settings_win_over_those_of_all(tmp_path):
    values = {
        "config": {"telemetry": {"sample_ratio": 0.1}},
        "services": {"graph": {"config": {"telemetry": {"sample_ratio": 1}}}},
    }

    found = containers(render(tmp_path, values))

    assert "--set=telemetry.sample_ratio=1" in found["graph"]["args"]
    assert "--set=telemetry.sample_ratio=0.1" in found["memory"]["args"]


def test_a_longer_drain_gives_the_pod_longer(tmp_path):
    def grace(values):
        return stateful_set(render(tmp_path, values))["template"]["spec"][
            "terminationGracePeriodSeconds"
        ]

    assert grace({"drainDelayMs": 0, "graceMs": 0}) == 10
    assert grace({"drainDelayMs": 1500, "graceMs": 20_000}) == 52


def test_quotes_in_settings_survive(tmp_path):
    values = {"services": {"lexical": {"config": {"language": 'it\'s "x" #: {}'}}}}

    args = containers(render(tmp_path, values))["lexical"]["args"]

    assert '--set=language="it\'s \\"x\\" #: {}"' in args


def test_the_packaged_chart_carries_the_settings_files_and_no_examples(tmp_path):
    done = run("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr

    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        names = set(archive.getnames())

    assert {f"forage/config/{p.name}" for p in (ROOT / "config").glob("*.yaml")} <= names
    assert not any("/examples/" in name for name in names)


def test_with_nats_every_service_has_pods_of_its_own(tmp_path):
    values = {**ON_NATS, "services": {"trending": {"config": {"server": {"port": 7107}}}}}

    found = render(tmp_path, values)

    sets = {m["metadata"]["name"]: m["spec"] for m in found if m["kind"] == "StatefulSet"}
    orchestrator = sets["forage-orchestrator"]["template"]["spec"]["containers"][0]
    target = "dns:///forage-trending.default.svc.cluster.local:7107"
    assert len(sets) == 8
    assert all(spec["replicas"] == 1 for spec in sets.values())
    assert f'--set=generators.trending.target="{target}"' in orchestrator["args"]


def test_long_names_fit_into_what_kubernetes_allows(tmp_path):
    values = {**ON_NATS, "fullnameOverride": "a" * 60}

    for manifest in render(tmp_path, values):
        limit = 52 if manifest["kind"] == "StatefulSet" else 63
        assert len(manifest["metadata"]["name"]) <= limit, manifest["kind"]


def test_an_old_cluster_gets_the_apis_that_it_has(tmp_path):
    values = {
        **ON_NATS,
        "podDisruptionBudget": {"enabled": True},
        "train": {"enabled": True},
        "services": {"graph": {"autoscaling": SCALING}, "lexical": {"replicas": 2}},
    }

    def versions(kubernetes):
        found = render(tmp_path, values, "--kube-version", kubernetes)
        kinds = ("CronJob", "HorizontalPodAutoscaler", "PodDisruptionBudget")
        return {m["kind"]: m["apiVersion"] for m in found if m["kind"] in kinds}

    assert versions("1.20.2") == {
        "CronJob": "batch/v1beta1",
        "HorizontalPodAutoscaler": "autoscaling/v2beta2",
        "PodDisruptionBudget": "policy/v1beta1",
    }
    assert versions("1.37.0") == {
        "CronJob": "batch/v1",
        "HorizontalPodAutoscaler": "autoscaling/v2",
        "PodDisruptionBudget": "policy/v1",
    }


def test_servers_are_off_unless_asked_for(tmp_path):
    found = render(tmp_path, {}, *OPERATORS)

    kinds = {m["kind"] for m in found}
    images = {c["image"] for c in containers(found).values()}
    assert not kinds & {"Deployment", "CronJob", "Ingress", "GRPCRoute", "ServiceMonitor"}
    assert images == {"forage-mesh:0.1.0"}


def test_one_server_alone_can_be_asked_for(tmp_path):
    found = render(tmp_path, {"milvus": {"enabled": True}, "collector": {"enabled": True}})

    sets = {m["metadata"]["name"]: m["spec"] for m in found if m["kind"] == "StatefulSet"}
    pod = {c["name"]: c["args"] for c in sets["forage"]["template"]["spec"]["containers"]}
    (collector,) = [
        m["data"]["collector.yaml"] for m in found if "collector.yaml" in m.get("data", {})
    ]
    assert set(sets) == {"forage", "forage-milvus"}
    assert '--set=milvus.uri="http://forage-milvus:19530"' in pod["semantic"]
    assert not any("milvus" in argument for argument in pod["lexical"])
    # Nobody has said where traces go.
    assert "exporters: [debug]" in collector


def test_long_names_of_servers_are_the_same_everywhere(tmp_path):
    found = render(tmp_path, {"nats": {"enabled": True}, "fullnameOverride": "a" * 60})

    (service,) = [
        m["metadata"]["name"]
        for m in found
        if m["kind"] == "Service" and m["metadata"]["name"].endswith("-nats")
    ]
    assert f'--set=log_url="nats://{service}:4222"' in {
        argument
        for m in found
        if m["kind"] == "StatefulSet"
        for argument in m["spec"]["template"]["spec"]["containers"][0]["args"]
    }


def test_the_notes_say_what_to_do_next_with_these_values(tmp_path):
    chart = shutil.copytree(CHART, tmp_path / "chart")
    # `helm template` leaves the notes out, and `helm install` wants a cluster.
    show = '{kind: Notes, text: {{ include (print .Template.BasePath "/NOTES.txt") . | quote }}}'
    (chart / "templates/shown.yaml").write_text(show)

    def notes(example):
        values = CHART / f"examples/{example}/values.yaml"
        done = run("template", "forage", str(chart), "--values", str(values))
        assert done.returncode == 0, done.stderr
        (found,) = [m for m in yaml.safe_load_all(done.stdout) if m and m["kind"] == "Notes"]
        return found["text"]

    minimal, production = notes("minimal"), notes("production")
    assert "exec forage-0 -c orchestrator -- forage import --demo" in minimal
    assert "lost with the pod" in minimal
    assert "Set\ntrain.enabled" in minimal
    assert "search.example.com:443" in production
    assert "--from=cronjob/forage-train" in production
