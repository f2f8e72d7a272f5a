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
        "the golden files are old; renew them: deploy/render_examples.sh helm/forage/examples"
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
        "services": {"graph": {"autoscaling": SCALING}},
    }

    def versions(kubernetes):
        found = render(tmp_path, values, "--kube-version", kubernetes)
        return {m["kind"]: m["apiVersion"] for m in found}

    assert versions("1.20.2")["HorizontalPodAutoscaler"] == "autoscaling/v2beta2"
    assert versions("1.37.0")["HorizontalPodAutoscaler"] == "autoscaling/v2"
