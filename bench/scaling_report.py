"""Figures of several sizes to docs/scaling: `python -m bench.scaling_report --work DIR`.

Writes `figures.json`, to which `bench.sizing` fits its formulas, `tables.md`, and pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import typer

from bench.laws import SERVICES, VARIANTS, service_figures
from bench.sizing import Demand, Measured, summary

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_DIGITS = 4
_WAITING_KB = 13.0
"""A decision of 12 KB, kept as recorded, and its place in a dictionary."""
_PLANS = (
    (Demand(1e6, 1e2), 1e6, 1),
    (Demand(1e7, 1e3), 1e6, 4),
    (Demand(1e8, 1e4), 2e6, 32),
    (Demand(1e9, 1e5), 5e6, 256),
)
"""(demand, items of a shard, parts of the learning) if there were shards."""
_BUILDING = {
    "index_cpu_s": "index, CPU s",
    "index_s": "index, s",
    "index_peak_mb": "peak MB",
    "pss_mb": "MB",
    "disk_mb": "disk MB",
    "start_cpu_s": "start, CPU s",
    "start_s": "start, s",
}
_CALLING = {
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "loaded_cpu_ms": "CPU ms a call",
    "per_second": "calls/s, 8 clients",
}
_WRITING = {
    "cpu_ms": "CPU ms",
    "seen_p50_ms": "seen after, ms (p50)",
    "seen_most_ms": "at most",
}
_SERVER = {
    "milvus_index": "index",
    "server_index_cpu_s": "until all can be found, CPU s",
    "server_settled_cpu_s": "until it is idle",
    "server_pss_mb": "MB",
    "server_loaded_cpu_ms": "CPU ms a call",
}
_VECTORS = {
    "mesh": "embedded",
    "mesh invented": "invented",
    "mesh server": "embedded, on a server",
    "mesh server invented": "invented, on a server",
}
_MESH = {
    "p50_ms": "search p50, ms",
    "p99_ms": "search p99, ms",
    "per_second": "searches/s, 8 clients",
    "understand_p50_ms": "understand p50, ms",
    "understand_p99_ms": "understand p99, ms",
    "load": "load of the machine",
}


def main(
    work: Annotated[Path, typer.Option(help="Folder of `bench.scaling`.")],
    target: Annotated[Path, typer.Option(help="Where figures and pictures go.")] = Path(
        "docs/scaling"
    ),
    least: Annotated[int, typer.Option(help="The smallest catalogue to include.")] = 10_000,
    keep: Annotated[
        bool, typer.Option(help="Keep what `target` has of stages that `work` has not.")
    ] = False,
) -> None:
    """Collect the figures of all sizes into one file, and show them."""
    found = {int(file.parent.name): file for file in work.glob("*/figures.json")}
    sizes = {str(n): json.loads(found[n].read_text()) for n in sorted(found) if n >= least}
    if keep:
        sizes = laid_over(json.loads((target / "figures.json").read_text())["sizes"], sizes)
    # Tables and plans are made of what is written down, so that anybody can make them again.
    figures = rounded({"sizes": sizes, "traffic": traffic(sizes)})
    target.mkdir(parents=True, exist_ok=True)
    (target / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (target / "tables.md").write_text("\n".join(tables(figures)) + "\n")
    draw(figures, target)


def laid_over(before: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return all stages of all sizes, smallest first; of a stage that both have, what was found."""
    every = sorted({*before, *found}, key=int)
    return {items: {**before.get(items, {}), **found.get(items, {})} for items in every}


def traffic(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was found of the traffic, at the largest size that has it.

    With invented vectors semantic finds nothing, so plans learn not to call it: they do not count.
    """
    meshes = [found["mesh"] for found in sizes.values() if "p50_ms" in found.get("mesh", {})]
    follows = [found["follow"] for found in sizes.values() if "cpu_ms" in found.get("follow", {})]
    learning = meshes[-1]["learning"]
    return {
        "calls": meshes[-1]["calls"],
        "follow_ms": follows[-1]["cpu_ms"],
        "follow_kb": follows[-1]["kb"],
        "waiting_kb": _WAITING_KB,
        "decision_bytes": learning["decisions_bytes"],
        "feedback_bytes": learning["feedback_bytes"],
    }


def rounded(value: Any) -> Any:
    """Return figures with as many digits as mean something."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def tables(figures: Mapping[str, Any]) -> Iterable[str]:
    """Yield the lines of tables.md."""
    sizes, measured = figures["sizes"], Measured.of(figures)
    yield "# Scaling: the figures"
    yield ""
    yield "Written by `python -m bench.scaling_report`; docs/scaling.md says what they mean."
    for title, columns in (("Building and starting", _BUILDING), ("Calls", _CALLING)):
        yield from ("", f"## {title}", "")
        yield from _table(["service", "items", *columns.values()], _services(sizes, columns))
    yield from ("", "## Importing", "")
    yield from _table(
        ["items", "items/s", "orchestrator, CPU s", "client, CPU s", "log, MB"],
        (
            [f"{int(n):,}", *(_text(f.get("import", f.get("log", {})).get(k)) for k in _IMPORTING)]
            for n, f in sizes.items()
        ),
    )
    yield from _write_table(sizes)
    yield from _server_table(sizes)
    yield from _mesh_tables(sizes)
    yield from ("", "## Laws", "", "`base + slope * items`, fitted by `bench.sizing`.", "")
    yield from _table(
        ["service", "MB", "bytes an item", "call, CPU ms", "more per million items"],
        (
            [
                name,
                _text(laws.memory_mb.base),
                _text(laws.memory_mb.slope * 2**20),
                _text(laws.call_cpu_ms.base),
                _text(laws.call_cpu_ms.slope * 1e6),
            ]
            for name, laws in measured.laws.items()
        ),
    )
    yield from _traffic_table(figures["traffic"])
    for demand, shard_items, partitions in _PLANS:
        changed = demand.changed(shard_items=shard_items, partitions=partitions)
        title = f"{demand.items:,.0f} items, {demand.searches:,.0f} searches a second"
        yield from ("", f"## {title}, as Forage is", "")
        yield from _plan(measured, demand)
        if demand.items > shard_items:
            yield from ("", f"## {title}, with what is missing", "")
            yield f"Shards of {shard_items:,.0f} items, learning in {partitions} parts."
            yield ""
            yield from _plan(measured, changed)


_IMPORTING = ("items_per_s", "orchestrator_cpu_s", "client_cpu_s", "log_mb")


def _services(sizes: Mapping[str, Any], columns: Mapping[str, str]) -> Iterable[Sequence[str]]:
    for name in (*SERVICES, *VARIANTS):
        for items, stages in sizes.items():
            found = service_figures(stages, name)
            if any(key in found for key in columns):
                yield [name, f"{int(items):,}", *(_text(found.get(key)) for key in columns)]


def _write_table(sizes: Mapping[str, Any]) -> Iterable[str]:
    rows = [
        [name, f"{int(items):,}", *(_text(stages[f"write {name}"].get(key)) for key in _WRITING)]
        for name in SERVICES
        for items, stages in sizes.items()
        if f"write {name}" in stages
    ]
    if rows:
        yield from ("", "## A change of one item", "")
        yield from _table(["service", "items", *_WRITING.values()], rows)


def _server_table(sizes: Mapping[str, Any]) -> Iterable[str]:
    rows = [
        [f"{int(items):,}", *(_text(found.get(key)) for key in _SERVER)]
        for items, stages in sizes.items()
        for found in [service_figures(stages, "semantic server invented")]
        if found
    ]
    if rows:
        yield from ("", "## A Milvus server, beside semantic", "")
        yield from _table(["items", *_SERVER.values()], rows)


def _meshes(sizes: Mapping[str, Any]) -> Iterable[tuple[list[str], dict[str, Any]]]:
    """Yield (size and vectors, figures) of every run of all seven."""
    for stage, vectors in _VECTORS.items():
        for items, stages in sizes.items():
            if "p50_ms" in stages.get(stage, {}):
                yield [f"{int(items):,}", vectors], {**stages["understand"], **stages[stage]}


def _mesh_tables(sizes: Mapping[str, Any]) -> Iterable[str]:
    runs = list(_meshes(sizes))
    yield from ("", "## All seven together", "")
    head = ["items", "vectors"]
    yield from _table(
        [*head, *_MESH.values()],
        ([*run, *(_text(found.get(key)) for key in _MESH)] for run, found in runs),
    )
    for title, key in (
        ("CPU ms a search, 8 clients", "loaded_cpu_ms"),
        ("MB after the simulated users", "pss_mb"),
    ):
        yield from ("", f"{title}:", "")
        yield from _table(
            [*head, *SERVICES],
            ([*run, *(_text(found[key].get(name)) for name in SERVICES)] for run, found in runs),
        )


def _traffic_table(found: Mapping[str, Any]) -> Iterable[str]:
    yield from ("", "## Traffic", "")
    rows = [
        (
            name,
            _text(found["calls"].get(name)),
            _text(found["follow_ms"].get(name)),
            _text(found["follow_kb"].get(name)),
        )
        for name in SERVICES
    ]
    head = ["service", "called per search", "learning, CPU ms a search", "memory, KB a search"]
    yield from _table(head, rows)
    yield ""
    yield f"A decision is {found['decision_bytes']:,.0f} bytes in the log, an event of feedback"
    yield f"{found['feedback_bytes']:,.0f}."


def _plan(measured: Measured, demand: Demand) -> Iterable[str]:
    plan = measured.plan(demand)
    head = ["service", "calls/s", "shards", "replicas", "cores", "GB each", "CPU ms", "learning"]
    yield from _table(
        head,
        (
            [
                need.service,
                f"{need.calls:,.0f}",
                f"{need.shards:,}",
                f"{need.replicas:,}" if need.replicas else "-",
                _text(need.cores) if need.replicas else "-",
                _text(need.process_gb),
                _text(need.call_ms),
                _text(need.follow_cores),
            ]
            for need in plan.needs
        ),
    )
    yield ""
    yield from summary(demand, plan)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _text(value: object) -> str:
    if not isinstance(value, int | float):
        return str(value or "")
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def draw(figures: Mapping[str, Any], target: Path) -> None:
    """Draw memory and calls against the number of items."""
    for file, name, label in (
        ("memory.png", "pss_mb", "resident memory of one process, MB"),
        ("calls.png", "loaded_cpu_ms", "processor time of one call, ms"),
    ):
        figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
        for service in SERVICES:
            _line(axes, service, _points(figures, service, name))
        axes.set(xscale="log", yscale="log", xlabel="items in the catalogue", ylabel=label)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_formatter("{x:,g}")
        axes.tick_params(which="minor", labelsize=6)
        axes.grid(which="both", alpha=0.25)
        axes.legend(fontsize=8)
        figure.savefig(target / file, dpi=110)
    plt.close("all")


def _points(figures: Mapping[str, Any], service: str, name: str) -> dict[float, float]:
    sizes = figures["sizes"].items()
    found = ((float(n), service_figures(stages, service).get(name)) for n, stages in sizes)
    return {items: value for items, value in found if value}


def _line(axes: Axes, name: str, points: Mapping[float, float]) -> None:
    if points:
        axes.plot(list(points), list(points.values()), marker="o", label=name)


if __name__ == "__main__":
    typer.run(main)
