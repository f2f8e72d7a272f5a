"""`python -m bench`: starts the mesh, measures, and prints tables."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from rich.console import Console
from rich.table import Table

from bench import load, noop
from bench.queries import percentile, queries
from forage.client import Client
from forage.supervisor import Mesh
from forage.trace_reader import Trace, read_traces
from forage.v1 import (
    generator_service_pb2,
    generator_service_pb2_grpc,
    ranker_service_pb2,
    ranker_service_pb2_grpc,
    search_service_pb2,
    search_service_pb2_grpc,
)

GENERATORS = ("lexical", "semantic", "graph", "memory", "exploration")
out = Console(width=110, highlight=False)


def main(
    data: Annotated[Path, typer.Option(help="Data folder with the demo catalogue.")] = Path("data"),
    config_dir: Annotated[Path, typer.Option()] = Path("config"),
    searches: Annotated[int, typer.Option(help="Searches for the latency figures.")] = 1_000,
    rounds: Annotated[int, typer.Option(help="Rounds of tracing on against off.")] = 2,
) -> None:
    """Measure latency, overhead, throughput, memory, tracing cost and start-up."""
    texts = queries(searches + 300)
    results: dict[str, Any] = {}
    began = time.monotonic()
    with Mesh(config_dir, data, free_ports=True) as mesh:
        mesh.wait_ready(180)
        results["start_s"] = time.monotonic() - began
        _ensure_catalog(mesh)
        out.print(f"mesh ready in {results['start_s']:.1f} s; warming up")
        load.searches(mesh.address, texts[:300])
        before = time.time_ns()
        one = load.searches(mesh.address, texts[300:], keep=True)
        time.sleep(1.5)
        traces = [
            t
            for t in read_traces(data / "telemetry")
            if t.start_ns >= before and t.root.name.endswith("/Search")
        ]
        recording = data / "bench-recording"
        recording.write_bytes(pickle.dumps(_record(mesh, texts[300])))
        many = load.searches(mesh.address, texts[300:] * 2, clients=8)
        memory = _memory(mesh)
    with noop.mesh(recording, len(GENERATORS)) as address:
        load.searches(address, texts[:300])
        bare = load.searches(address, texts[300:800])
    recording.unlink()
    _latency(results, one, traces, bare)
    results["searches_per_second"] = many.per_second
    results["failures"] = one.failures + many.failures
    results["memory_mb"] = sum(memory.values())
    _show(results, one, traces, memory)
    on, off = _tracing(config_dir, data, texts, rounds)
    results["tracing_cost"] = 1 - sum(on) / sum(off)
    out.print(
        f"tracing at 100 %: {', '.join(f'{v:.0f}' for v in on)} searches/s against"
        f" {', '.join(f'{v:.0f}' for v in off)} without: {results['tracing_cost']:.1%}"
        " of throughput (goal 15 %)"
    )
    target = data / "bench.json"
    target.write_text(json.dumps(results, indent=2))
    out.print(f"figures written to {target}")


def _ensure_catalog(mesh: Mesh) -> None:
    with Client(mesh.address) as client:
        known = client.ingest_status().proto.catalog_head
    if not known:
        command = [sys.executable, "-m", "forage.cli", "import", "--demo"]
        subprocess.run([*command, "--address", mesh.address], check=True)


def _record(mesh: Mesh, text: str) -> dict[str, Any]:
    """Return the messages of one real search that calls every generator."""
    with grpc.insecure_channel(mesh.address) as channel:
        request = search_service_pb2.SearchRequest(text=text)
        answer = search_service_pb2_grpc.SearchServiceStub(channel).Search(request, timeout=10)
    asked = generator_service_pb2.GenerateRequest(query=answer.understood, limit=50, seed=1)
    with grpc.insecure_channel(mesh.target("lexical")) as channel:
        stub = generator_service_pb2_grpc.CandidateGeneratorServiceStub(channel)
        found = stub.Generate(asked, timeout=10)
    rank = ranker_service_pb2.RankRequest(query=answer.understood, feature_rows=10)
    places = range(len(found.hits))
    rank.item_ids.extend(hit.item_id for hit in found.hits)
    rank.fused_scores.extend(1 / (place + 1) for place in places)
    rank.proposals.add(
        generator="lexical",
        fan_out=asked.limit,
        answered=True,
        candidates=places,
        ranks=[place + 1 for place in places],
        scores=[hit.score for hit in found.hits],
    )
    with grpc.insecure_channel(mesh.target("ranker")) as channel:
        ranked = ranker_service_pb2_grpc.RankerServiceStub(channel).Rank(rank, timeout=10)
    return {
        noop.SEARCH: (request, answer),
        noop.GENERATE: (asked, found),
        noop.RANK: (rank, ranked),
    }


def _proportional_mb(process: Path) -> float:
    """Return the process's resident memory, pages shared by several processes counted in parts."""
    for line in (process / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _memory(mesh: Mesh) -> dict[str, float]:
    """Return resident megabytes by service, child processes included."""
    parents = {s.pid: s.name for s in mesh.states()}
    found = dict.fromkeys(parents.values(), 0.0)
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:
            continue
        pid, parent = int(fields["Pid"]), int(fields["PPid"])
        name = parents.get(pid) or parents.get(parent)
        if name:
            found[name] += _proportional_mb(status.parent)
    return found


def _work(trace: Trace) -> float:
    """Return the seconds of generator and ranker work on a search's critical path."""

    def longest(name: str) -> float:
        return max((s.duration_ns for s in trace.spans if s.name == name), default=0) / 1e9

    return longest("retrieve") + longest("features") + longest("predict")


def _latency(
    results: dict[str, Any], one: load.Measured, traces: list[Trace], bare: load.Measured
) -> None:
    results["p50_ms"] = percentile(one.seconds, 0.5) * 1e3
    results["p99_ms"] = percentile(one.seconds, 0.99) * 1e3
    plans = [r.stages["plan"].ToNanoseconds() / 1e6 for r in one.responses]
    results["plan_p50_ms"] = percentile(plans, 0.5)
    overhead = [t.root.duration_ns / 1e9 - _work(t) for t in traces]
    results["overhead_p50_ms"] = percentile(overhead, 0.5) * 1e3
    results["noop_p50_ms"] = percentile(bare.seconds, 0.5) * 1e3
    results["overhead_ratio"] = results["overhead_p50_ms"] / results["noop_p50_ms"]
    results["traces"] = len(traces)


def _show(
    results: dict[str, Any], one: load.Measured, traces: list[Trace], memory: dict[str, float]
) -> None:
    table = Table("figure", "measured", "goal")
    for name, key, goal in (
        ("whole search, p50, one client", "p50_ms", "15 ms"),
        ("whole search, p99", "p99_ms", "40 ms"),
        ("plan, p50", "plan_p50_ms", "0.5 ms"),
        ("all but generator and ranker work, p50", "overhead_p50_ms", "5 ms"),
        ("no-op mesh with the same messages, p50", "noop_p50_ms", ""),
        ("ratio of the two", "overhead_ratio", "2"),
        ("searches per second, 8 clients", "searches_per_second", "120"),
        ("resident memory, all processes, MB", "memory_mb", "1,500"),
        ("start with the catalogue in place, s", "start_s", "15"),
        ("failed searches", "failures", "0"),
    ):
        table.add_row(name, f"{results[key]:.2f}", goal)
    out.print(table)
    stages = Table("where the time goes", "p50 ms", "p99 ms", "in % of searches")
    for name in ("understand", "plan", "fan_out", "fuse", "rank", "answer"):
        spent = [r.stages[name].ToNanoseconds() / 1e6 for r in one.responses]
        stages.add_row(name, *(f"{percentile(spent, s):.2f}" for s in (0.5, 0.99)), "100")
    for service in (*GENERATORS, "ranker"):
        names = ("features", "predict") if service == "ranker" else ("retrieve",)
        spent = [
            sum(s.duration_ns for s in t.spans if s.service == service and s.name in names) / 1e6
            for t in traces
            if service in t.services
        ]
        share = f"{len(spent) / max(1, len(traces)):.0%}"
        stages.add_row(
            f"  {service} work", *(f"{percentile(spent, s):.2f}" for s in (0.5, 0.99)), share
        )
    out.print(stages)
    resident = Table("resident MB", *memory)
    resident.add_row("", *(f"{m:.0f}" for m in memory.values()))
    out.print(resident)


def _tracing(
    config_dir: Path, data: Path, texts: list[str], rounds: int
) -> tuple[list[float], list[float]]:
    """Return searches per second with and without tracing, in turn."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        for enabled in (True, False):
            names = (*GENERATORS, "ranker", "orchestrator")
            flags = {name: {"telemetry.enabled": enabled} for name in names}
            with Mesh(config_dir, data, free_ports=True, flags=flags) as mesh:
                mesh.wait_ready(180)
                load.searches(mesh.address, texts[:300], clients=8)
                found[enabled].append(
                    load.searches(mesh.address, texts[300:], clients=8).per_second
                )
    return found[True], found[False]


if __name__ == "__main__":
    typer.run(main)
