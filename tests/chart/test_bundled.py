"""The servers that a release can bring with it, and the training job, read without helm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.chart.rendered import (
    effective,
    environment,
    manifests,
    named,
    only,
    serving,
    write_config,
)

SERVERS = ("nats", "milvus", "collector", "jaeger")


def config(name):
    (content,) = named("bundled", "ConfigMap")[f"forage-{name}"]["data"].values()
    return content


def container(name):
    kind = "StatefulSet" if name in ("nats", "milvus") else "Deployment"
    workload = named("bundled", kind)[f"forage-{name}"]["spec"]
    (found,) = workload["template"]["spec"]["containers"]
    return found


def address(name):
    """Return where the first port of a server's Service is."""
    ports = {p["name"]: p["port"] for p in named("bundled", "Service")[name]["spec"]["ports"]}
    return {key: f"{name}:{port}" for key, port in ports.items()}


def train_container(example):
    job = only(example, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (found,) = job["containers"]
    return found


def test_the_services_settings_point_at_the_servers_of_the_release(tmp_path):
    for name, found, _ in serving("bundled"):
        settings = effective("bundled", found, tmp_path)
        assert settings.log_url == f"nats://{address('forage-nats')['client']}"
        assert settings.telemetry.endpoint == f"http://{address('forage-collector')['otlp']}"
        if name == "semantic":
            assert settings.milvus.uri == f"http://{address('forage-milvus')['grpc']}"
            # They start at the same time.
            assert settings.milvus.connect_timeout_ms == 60_000
        assert settings.nats.connect_timeout_ms == 60_000


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_s_probes_ask_one_of_its_ports(name):
    found = container(name)

    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert found[probe]["httpGet"]["port"] in {p["name"] for p in found["ports"]}


@pytest.mark.parametrize("name", ["nats", "milvus"])
def test_what_a_server_must_not_lose_is_on_a_volume(name):
    spec = named("bundled", "StatefulSet")[f"forage-{name}"]["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    mounts = {m["name"]: m["mountPath"] for m in container(name)["volumeMounts"]}

    folder = mounts[claim["metadata"]["name"]]
    stored = config("nats") if name == "nats" else environment(container(name))["ETCD_DATA_DIR"]
    assert folder in stored


def test_nats_syncs_every_write_before_it_acknowledges_it():
    assert "sync_interval: always" in config("nats")


def test_the_collector_s_configuration_is_consistent_and_its_ports_are_those_of_its_service():
    settings = yaml.safe_load(config("collector"))

    for pipeline in settings["service"]["pipelines"].values():
        for part, names in pipeline.items():
            assert set(names) <= set(settings[part])
    assert set(settings["service"]["extensions"]) <= set(settings["extensions"])
    ports = {p["name"]: p["containerPort"] for p in container("collector")["ports"]}
    listening = {
        "otlp": settings["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"],
        "metrics": settings["exporters"]["prometheus"]["endpoint"],
        "health": settings["extensions"]["health_check"]["endpoint"],
    }
    assert {name: f"0.0.0.0:{port}" for name, port in ports.items()} == listening
    exporter = settings["exporters"]["otlp/traces"]
    assert exporter["endpoint"] == f"http://{address('forage-jaeger')['otlp']}"
    assert exporter["tls"] == {"insecure": True}


def test_prometheus_scrapes_the_collector_by_name_of_port():
    spec = only("bundled", "ServiceMonitor")["spec"]
    service = named("bundled", "Service")["forage-collector"]

    assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {e["port"] for e in spec["endpoints"]} <= {p["name"] for p in service["spec"]["ports"]}


def test_services_of_a_release_and_its_servers_are_told_apart():
    selectors = [
        frozenset(m["spec"]["selector"]["matchLabels"].items())
        for m in manifests("bundled")
        if m["kind"] in ("StatefulSet", "Deployment")
    ]

    assert not any(a < b for a in selectors for b in selectors)
    assert len(set(selectors)) == len(selectors)


@pytest.mark.parametrize("example", ["bundled", "production", "replicas"])
def test_the_job_trains_with_the_settings_of_the_ranker(example, tmp_path):
    ranker = next(c for name, c, _ in serving(example) if name == "ranker")

    def relevant(found):
        settings = effective(example, found, tmp_path)
        return settings.model_dump(exclude={"server", "telemetry"})

    assert relevant(train_container(example)) == relevant(ranker)


def test_without_nats_the_job_opens_the_pod_s_volume_on_the_same_node():
    job = only("production", "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    pod = only("production", "StatefulSet")
    claims = [v["persistentVolumeClaim"] for v in job["volumes"] if "persistentVolumeClaim" in v]
    (term,) = job["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]

    assert claims == [{"claimName": f"data-{pod['metadata']['name']}-0"}]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    labels = pod["spec"]["template"]["metadata"]["labels"]
    assert term["labelSelector"]["matchLabels"].items() <= labels.items()


def test_the_job_s_command_runs_and_too_little_feedback_is_no_failure(tmp_path):
    found = train_container("production")
    write_config("production", tmp_path / "config")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(**more):
        return subprocess.run(
            found["command"],
            cwd=tmp_path,
            env={**environment(found), "PATH": path, **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert "not published" in done.stdout
    wrong = run(FORAGE_RANKER__LOG_URL="ftp://nats")
    assert wrong.returncode != 0
    assert "log_url" in wrong.stderr
