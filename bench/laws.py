"""How the services grow with the catalogue: laws fitted to figures that were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

GENERATORS = ("lexical", "semantic", "graph", "memory", "exploration")
SERVICES = ("orchestrator", *GENERATORS, "ranker")
VARIANTS = ("semantic invented", "semantic server", "semantic server invented", "ranker model")
"""Semantic with vectors that were drawn, and on a server; the ranker with a model."""
_STEADY = ("orchestrator", "semantic", "ranker")
"""Services whose calls do not grow with the catalogue: they look up what they are given."""
_DIMENSION = 384
_NEIGHBOURS = 32
_SCALARS = 220
"""Bytes of an item's id, title and filter fields in Milvus, with its own bookkeeping."""
_MEMORY_FACTOR = 2.3
"""What a Milvus node holds for each byte of vectors and graph, Go's heap and copies included.

Measured a few minutes after a restart: 2.3 at 100,000 items in HNSW, 2.4 at a million in IVF_FLAT.
"""
_SEGMENT_BYTES = 2**30
"""Of vectors in a sealed segment (`dataCoord.segment.maxSize`); a search asks every segment."""
_SEGMENT_MS = 4.2
"""Processor time of one search in one segment, with ef 256: 12.6 ms for three at 100,000 items."""


@dataclass(frozen=True, slots=True)
class Law:
    """base + slope * items."""

    base: float
    slope: float

    def at(self, items: float) -> float:
        """Return the value for a number of items."""
        return self.base + self.slope * items

    @classmethod
    def fit(cls, points: Mapping[float, float]) -> Law:
        """Return the line with the least squares of relative deviations, or the level of one point.

        Neither its base nor its slope is below 0.
        """
        items = np.array(list(points), float)
        values = np.array(list(points.values()), float)
        if len(items) == 1:
            return cls(float(values[0]), 0.0)
        weighted = np.stack([1.0 / values, items / values], axis=1)
        base, slope = np.linalg.lstsq(weighted, np.ones(len(items)), rcond=None)[0]
        if slope < 0:
            return cls(float((1 / values).sum() / (1 / values**2).sum()), 0.0)
        if base < 0:
            share = items / values
            return cls(0.0, float(share.sum() / (share**2).sum()))
        return cls(float(base), float(slope))


@dataclass(frozen=True, slots=True)
class Laws:
    """How one service grows with the catalogue."""

    memory_mb: Law
    index_cpu_s: Law
    call_cpu_ms: Law
    disk_mb: Law
    start_cpu_s: Law


def laws_of(name: str, sizes: Mapping[float, Mapping[str, Any]]) -> Laws:
    """Return the laws of one service; figures are by number of items."""

    def law(figure: str) -> Law:
        points = {items: service_figures(found, name).get(figure) for items, found in sizes.items()}
        known = {items: value for items, value in points.items() if value}
        return Law.fit(known) if known else Law(0.0, 0.0)

    call = law("loaded_cpu_ms")
    return Laws(
        memory_mb=law("pss_mb"),
        index_cpu_s=law("index_cpu_s"),
        call_cpu_ms=Law(call.at(min(sizes)), 0.0) if name in _STEADY else call,
        disk_mb=law("disk_mb"),
        start_cpu_s=law("start_cpu_s"),
    )


def service_figures(stages: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return all figures of a service at one size: its building, its start and its calls."""
    found = {**stages.get(name, {}), **stages.get(f"ask {name}", {})}
    if "index_pss_mb" in found:
        found.setdefault("pss_mb", found["index_pss_mb"])
    mesh = stages.get("mesh") or stages.get("mesh invented", {})
    in_mesh = mesh.get("loaded_cpu_ms", {})
    if name in ("orchestrator", "ranker") and name in in_mesh:
        found.setdefault("loaded_cpu_ms", in_mesh[name])
    return found


def milvus_bytes(items: float, *, dimension: int = _DIMENSION, links: int = _NEIGHBOURS) -> float:
    """Return the memory that Milvus needs for one copy of the vectors in HNSW.

    Float32 vectors; 2 * `links` neighbours of 4 bytes on the lowest level, and a tenth more above.
    """
    vector, graph = 4 * dimension, 2 * links * 4 * 1.1
    return items * (vector + graph + _SCALARS) * _MEMORY_FACTOR


def milvus_ms(items: float, *, dimension: int = _DIMENSION) -> float:
    """Return the processor time of one search, which asks every segment."""
    segments = max(1, math.ceil(items * 4 * dimension / _SEGMENT_BYTES))
    return segments * _SEGMENT_MS


def deviations(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the law of memory over what was measured, for each service and size."""
    sizes = {float(items): stages for items, stages in figures["sizes"].items()}
    found = {}
    for name in SERVICES:
        law = laws_of(name, sizes).memory_mb
        for items, stages in sizes.items():
            value = service_figures(stages, name).get("pss_mb")
            if value:
                found[f"{name} at {items:,.0f}"] = law.at(items) / value
    return found
