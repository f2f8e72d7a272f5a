"""Collector, Prometheus and alarms agree with the stack and with the metrics there are."""

import re

import pytest

from forage.signals import Attribute, Kind, Metric
from tests.repo.compose_files import (
    extended,
    forage,
    read,
    settings,
)


@pytest.fixture(scope="module")
def stack():
    return {name: extended(c) for name, c in read("docker-compose.yml")["services"].items()}


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
