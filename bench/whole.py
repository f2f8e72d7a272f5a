"""The last stage of `bench.scaling`: all seven services together, searched by simulated users."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import numpy as np

from bench import load
from bench.probe import Figures, stage_times
from bench.processes import Usage, usage
from bench.queries import percentile
from bench.stages import Run
from forage.demo.users import crowd
from forage.log import Topic
from forage.log.sqlite import SqliteEventLog
from forage.supervisor import Mesh

_SETTLE_S = 15.0


def mesh(run: Run) -> Figures:
    """Run all seven services: searches alone, then simulated users who give feedback."""
    flags = {"semantic": run.milvus}
    intents = run.catalog.intents(3 * run.searches, seed=12)
    texts = [intent.text for intent in intents]
    with Mesh(run.config, run.data, free_ports=True, flags=flags) as found:
        began = time.monotonic()
        found.wait_ready(run.limit_s)
        figures: Figures = {"start_s": time.monotonic() - began}
        load.searches(found.address, texts[:200])
        before = _usages(found)
        one = load.searches(found.address, texts[: run.searches], keep=True)
        between = _usages(found)
        many = load.searches(found.address, texts * 2, clients=8)
        after = _usages(found)
        figures |= _searching(one, many) | stage_times(one.responses)
        figures["cpu_ms"] = _spent(before, between, len(one.seconds))
        figures["loaded_cpu_ms"] = _spent(between, after, len(many.seconds))
        figures["learning"] = _learning(run, found, intents)
        figures["pss_mb"] = {name: used.pss_mb for name, used in _usages(found).items()}
    return figures | {"load": os.getloadavg()[0]}


def _learning(run: Run, found: Mesh, intents: list[Any]) -> Figures:
    """Let users search and click; return what their records take."""
    time.sleep(_SETTLE_S)
    with_log = SqliteEventLog.open(run.data / "log.db", read_only=True)
    try:
        start = with_log.head(Topic.INTERACTIONS)
        tally = crowd(found.address, intents, seed=5)
        time.sleep(_SETTLE_S)
        sizes: dict[str, list[int]] = {}
        while records := with_log.read(Topic.INTERACTIONS, start, 1_000):
            start = records[-1].sequence
            for record in records:
                size = len(record.payload) + len(record.key) + len(json.dumps(record.headers))
                sizes.setdefault(record.stream, []).append(size)
    finally:
        with_log.close()
    figures: Figures = {"searches": len(tally.sessions), "failures": len(tally.failures)}
    for stream, found_sizes in sizes.items():
        figures[stream] = len(found_sizes)
        figures[f"{stream}_bytes"] = float(np.mean(found_sizes))
    return figures


def _searching(one: load.Measured, many: load.Measured) -> Figures:
    calls: dict[str, int] = {}
    late: dict[str, int] = {}
    for answer in one.responses:
        for outcome in answer.outcomes:
            called = int(outcome.fan_out > 0)
            calls[outcome.generator] = calls.get(outcome.generator, 0) + called
        for name in answer.degraded:
            late[name.component] = late.get(name.component, 0) + 1
    count = max(1, len(one.responses))
    return {
        "searches": count,
        "p50_ms": percentile(one.seconds, 0.5) * 1e3,
        "p99_ms": percentile(one.seconds, 0.99) * 1e3,
        "per_second": many.per_second,
        "loaded_p50_ms": percentile(many.seconds, 0.5) * 1e3,
        "loaded_p99_ms": percentile(many.seconds, 0.99) * 1e3,
        "failures": one.failures + many.failures,
        "calls": {name: number / count for name, number in sorted(calls.items())},
        "degraded": {name: number / count for name, number in sorted(late.items())},
    }


def _usages(found: Mesh) -> dict[str, Usage]:
    return {state.name: usage(state.pid) for state in found.states()}


def _spent(before: dict[str, Usage], after: dict[str, Usage], calls: int) -> dict[str, float]:
    return {n: (after[n].cpu_s - before[n].cpu_s) / max(1, calls) * 1e3 for n in before}
