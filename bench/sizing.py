"""What a catalogue and its traffic need: `python -m bench.sizing --items 1e9 --searches 1e5`.

Laws are fitted to the figures that `bench.scaling` measured (docs/scaling/figures.json), and
carried on to other sizes. Memory, index time and the time of one call are lines in the number of
items; a search in HNSW is taken to take no longer. docs/scaling.md has the formulas.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.laws import SERVICES, Laws, laws_of, milvus_bytes, milvus_ms

FIGURES = Path("docs/scaling/figures.json")
_WAIT_S = 10.0
"""How long a search waits for its feedback before it is learned from (`learner.delay_s`)."""
_TIMEOUT_MS = 250.0
"""After which an orchestrator gives a call up (`generators.NAME.timeout_ms`)."""
FLAT_ABOVE = 100_000.0
"""Items at which calls are as dear as a sparse retrieval is taken to be at any size."""
_DAY_S = 86_400
out = Console(width=110, highlight=False)


@dataclass(frozen=True)
class Demand:
    """What is wanted."""

    items: float
    searches: float
    """A second, at the busiest time."""
    feedback: float = 0.3
    """Events per search."""
    day: float = 0.4
    """The mean rate of a day, as a share of the busiest."""
    cores: int = 16
    """Of one machine."""
    memory_gb: float = 64.0
    headroom: float = 0.6
    """The share of a core, and of a machine's memory, that is planned to be used."""
    shard_items: float = math.inf
    """The most items of one process; infinite: no shards, as Forage is today."""
    flat_above: float = math.inf
    """Items from which on a call takes no longer; infinite: in proportion, as it is today."""
    routed: frozenset[str] = frozenset()
    """Services of which a call asks one shard only; the others have all their shards asked."""
    partitions: int = 1
    """Parts that interactions are learned in; 1: every replica learns from all, as it is today."""

    def changed(self, *, shard_items: float, partitions: int) -> Demand:
        """Return the same for a Forage that had what docs/scaling.md says is missing."""
        return replace(
            self,
            shard_items=shard_items,
            partitions=partitions,
            flat_above=FLAT_ABOVE,
            routed=frozenset(SERVICES) - {"lexical"},
        )


@dataclass(frozen=True)
class Need:
    """What one service needs."""

    service: str
    calls: float
    """A second."""
    shards: int
    replicas: int
    """Of each shard; 0: no number is enough."""
    cores: float
    memory_gb: float
    """Of all processes."""
    process_gb: float
    call_ms: float
    """Processor time of one call to one shard."""
    follow_cores: float
    """That one process spends on learning from the traffic."""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What all services need, and the log."""

    needs: tuple[Need, ...]
    log_gb_a_day: float
    log_mb_s: float
    log_keys_gb_a_day: float
    """Memory that NATS needs for the keys of a day's records."""
    catalog_gb: float
    milvus_gb: float
    milvus_cores: float
    machines: int
    """0: it cannot be done."""
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """Everything that was measured, as laws and constants."""

    laws: Mapping[str, Laws]
    calls: Mapping[str, float]
    """Share of the searches that call each service."""
    follow_ms: Mapping[str, float]
    """Processor time that one search costs a process that learns from it."""
    waiting_kb: float
    """Of memory, for each search that still waits to be learned from."""
    decision_bytes: float
    feedback_bytes: float
    log_bytes_per_item: float

    @classmethod
    def load(cls, file: Path = FIGURES) -> Measured:
        """Fit everything to a file of figures."""
        return cls.of(json.loads(file.read_text()))

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> Measured:
        """Fit everything to figures by number of items."""
        sizes = {float(items): found for items, found in figures["sizes"].items()}
        traffic = figures["traffic"]
        largest = sizes[max(sizes)]
        log = next(largest[stage] for stage in ("import", "log") if stage in largest)
        return cls(
            laws={name: laws_of(name, sizes) for name in SERVICES},
            calls=traffic["calls"] | {"orchestrator": 1.0, "ranker": 1.0},
            follow_ms=traffic["follow_ms"],
            waiting_kb=traffic["waiting_kb"],
            decision_bytes=traffic["decision_bytes"],
            feedback_bytes=traffic["feedback_bytes"],
            log_bytes_per_item=log["log_mb"] * 2**20 / max(sizes),
        )

    def plan(self, demand: Demand) -> Plan:
        """Return what a demand needs."""
        needs = tuple(self._need(name, demand) for name in SERVICES)
        records = demand.searches * (1 + demand.feedback)
        log_s = demand.searches * (self.decision_bytes + demand.feedback * self.feedback_bytes)
        problems = [f"{need.service}: {problem}" for need in needs for problem in need.problems]
        # A process plans its own headroom, so all cores of a machine can be given to processes.
        milvus_cores = demand.searches * self.calls["semantic"] * milvus_ms(demand.items) / 1e3
        by_cores = (sum(n.cores for n in needs) + milvus_cores) / (demand.cores * demand.headroom)
        milvus_gb = milvus_bytes(demand.items) / 2**30
        by_memory = (sum(n.memory_gb for n in needs) + 2 * milvus_gb) / (
            demand.memory_gb * demand.headroom
        )
        return Plan(
            needs,
            log_gb_a_day=log_s * demand.day * _DAY_S / 2**30,
            log_mb_s=log_s / 2**20,
            log_keys_gb_a_day=records * demand.day * _DAY_S * 300 / 2**30,
            catalog_gb=demand.items * self.log_bytes_per_item / 2**30,
            milvus_gb=milvus_gb,
            milvus_cores=milvus_cores,
            machines=0 if problems else math.ceil(max(by_cores, by_memory)),
            problems=tuple(problems),
        )

    def _need(self, name: str, demand: Demand) -> Need:
        laws = self.laws[name]
        # The vectors are Milvus's to spread; the service itself holds none of them.
        items = 0.0 if name == "semantic" else demand.items
        shards = max(1, math.ceil(items / demand.shard_items))
        held = items / shards
        call_ms = laws.call_cpu_ms.at(min(held, demand.flat_above))
        calls = demand.searches * self.calls.get(name, 0.0)
        follow = demand.searches * self.follow_ms.get(name, 0.0) / 1e3 / demand.partitions
        busy = calls * call_ms / 1e3 / (shards if name in demand.routed else 1)
        waiting = demand.searches / demand.partitions * _WAIT_S if name == "orchestrator" else 0.0
        process_gb = laws.memory_mb.at(held) / 1024 + waiting * self.waiting_kb / 2**20
        problems = tuple(_problems(demand, process_gb, call_ms, follow))
        left = demand.headroom - follow
        replicas = max(2, math.ceil(busy / left)) if left > 0 else 0
        return Need(
            name,
            calls=calls,
            shards=shards,
            replicas=replicas,
            cores=shards * (busy + replicas * follow),
            memory_gb=shards * replicas * process_gb,
            process_gb=process_gb,
            call_ms=call_ms,
            follow_cores=follow,
            problems=problems,
        )


def _problems(demand: Demand, process_gb: float, call_ms: float, follow: float) -> Iterable[str]:
    if process_gb > demand.memory_gb * demand.headroom:
        yield f"one process needs {process_gb:,.0f} GB, and it cannot be divided today"
    if call_ms > _TIMEOUT_MS:
        given_up = f"it is given up after {_TIMEOUT_MS:.0f} ms"
        yield f"one call takes {call_ms:,.0f} ms of a core; {given_up}"
    if follow > demand.headroom:
        yield f"learning from all the traffic takes {follow:.1f} cores of every replica"


def show(demand: Demand, plan: Plan) -> None:
    """Print a plan."""
    title = f"{demand.items:,.0f} items, {demand.searches:,.0f} searches a second"
    names = ("service", "calls/s", "shards", "replicas", "cores", "GB in all", "GB each", "ms")
    table = Table(*names, "learning", title=title)
    for need in plan.needs:
        planned = (need.replicas, need.cores, need.memory_gb)
        table.add_row(
            need.service,
            f"{need.calls:,.0f}",
            f"{need.shards:,}",
            *(f"{value:,.0f}" if need.replicas else "-" for value in planned),
            f"{need.process_gb:,.1f}",
            f"{need.call_ms:,.1f}",
            f"{need.follow_cores:.2f}",
        )
    out.print(table)
    for line in summary(demand, plan):
        out.print(line)


def summary(demand: Demand, plan: Plan) -> Iterable[str]:
    """Yield what a plan says beside its table."""
    yield (
        f"Milvus: {plan.milvus_gb:,.0f} GB for each of two copies of the vectors in HNSW,"
        f" {plan.milvus_cores:,.0f} cores."
    )
    yield (
        f"The log: {plan.catalog_gb:,.1f} GB of catalogue; {plan.log_mb_s:,.1f} MB/s of decisions"
        f" and feedback at the busiest, {plan.log_gb_a_day:,.0f} GB a day; NATS keeps"
        f" {plan.log_keys_gb_a_day:,.1f} GB of keys in memory for each day of retention."
    )
    if plan.machines:
        yield f"{plan.machines:,} machines of {demand.cores} cores and {demand.memory_gb:g} GB."
    for problem in plan.problems:
        yield f"- Not possible: {problem}."


def main(
    items: Annotated[float, typer.Option(help="Items of the catalogue.")],
    searches: Annotated[float, typer.Option(help="Searches a second at the busiest time.")],
    feedback: Annotated[float, typer.Option(help="Events per search.")] = 0.3,
    cores: Annotated[int, typer.Option(help="Cores of a machine.")] = 16,
    memory_gb: Annotated[float, typer.Option(help="Memory of a machine.")] = 64.0,
    headroom: Annotated[float, typer.Option(help="Share planned to be used.")] = 0.6,
    shard_items: Annotated[
        float, typer.Option(help="Suppose shards of so many items, and calls that do not scan.")
    ] = 0.0,
    partitions: Annotated[int, typer.Option(help="Suppose learning in so many parts.")] = 1,
    figures: Annotated[Path, typer.Option(help="What was measured.")] = FIGURES,
) -> None:
    """Print what a catalogue and its traffic need."""
    demand = Demand(
        items=items,
        searches=searches,
        feedback=feedback,
        cores=cores,
        memory_gb=memory_gb,
        headroom=headroom,
        partitions=partitions,
    )
    if shard_items:
        demand = demand.changed(shard_items=shard_items, partitions=partitions)
    show(demand, Measured.load(figures).plan(demand))


if __name__ == "__main__":
    typer.run(main)
