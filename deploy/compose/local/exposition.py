"""Metrics of OTLP in Prometheus's text form, named as the collector's Prometheus exporter does."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics

_UNITS = {"s": "seconds", "ms": "milliseconds", "By": "bytes"}


class Exposition:
    """The latest cumulative points of every metric of every process."""

    def __init__(self) -> None:
        """Begin with none."""
        self._metrics: dict[tuple[str, str], tuple[dict[str, str], Metric]] = {}
        self._lock = threading.Lock()

    def update(self, resource_metrics: Iterable[ResourceMetrics]) -> None:
        """Replace what these processes have reported before."""
        with self._lock:
            for resource in resource_metrics:
                labels = _labels(resource.resource.attributes)
                process = labels.get("service_instance_id", labels.get("service_name", ""))
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        self._metrics[metric.name, process] = (labels, metric)

    def text(self) -> str:
        """Return all of them, a metric's processes one after the other."""
        with self._lock:
            kept = [self._metrics[key] for key in sorted(self._metrics)]
        lines: list[str] = []
        typed: set[str] = set()
        for labels, metric in kept:
            name, kind = _name(metric), _kind(metric)
            if name not in typed:
                typed.add(name)
                lines.append(f"# TYPE {name} {kind}")
            lines += _samples(name, metric, labels)
        return "\n".join(lines) + "\n"


def _kind(metric: Metric) -> str:
    kind = metric.WhichOneof("data")
    if kind == "sum":
        return "counter" if metric.sum.is_monotonic else "gauge"
    return str(kind)


def _name(metric: Metric) -> str:
    name = re.sub(r"[^a-zA-Z0-9_:]", "_", metric.name)
    kind = _kind(metric)
    unit = "ratio" if metric.unit == "1" and kind == "gauge" else _UNITS.get(metric.unit, "")
    if unit and not name.endswith(unit):
        name = f"{name}_{unit}"
    return f"{name}_total" if kind == "counter" and not name.endswith("_total") else name


def _samples(name: str, metric: Metric, common: dict[str, str]) -> Iterator[str]:
    kind = str(metric.WhichOneof("data"))
    for point in getattr(metric, kind).data_points:
        labels = {**common, **_labels(point.attributes)}
        if kind != "histogram":
            value = point.as_double if point.HasField("as_double") else point.as_int
            yield f"{name}{_render(labels)} {value}"
            continue
        below = 0
        bounds = [*(f"{bound:g}" for bound in point.explicit_bounds), "+Inf"]
        for bound, count in zip(bounds, point.bucket_counts, strict=True):
            below += count
            yield f"{name}_bucket{_render({**labels, 'le': bound})} {below}"
        yield f"{name}_sum{_render(labels)} {point.sum}"
        yield f"{name}_count{_render(labels)} {point.count}"


def _labels(attributes: Iterable[KeyValue]) -> dict[str, str]:
    labels = {}
    for attribute in attributes:
        value = getattr(attribute.value, attribute.value.WhichOneof("value") or "string_value")
        labels[re.sub(r"[^a-zA-Z0-9_]", "_", attribute.key)] = str(value)
    return labels


def _render(labels: dict[str, str]) -> str:
    escaped = (
        (name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for name, value in labels.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
