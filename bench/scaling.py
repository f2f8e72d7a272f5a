"""How cost grows with the catalogue: `python -m bench.scaling --items 100000 --work DIR`.

An invented catalogue (`bench.catalogs`) is imported through the orchestrator. Then each service
runs by itself on that log: built from nothing, stopped, started again, and asked what an
orchestrator would ask it. At the end all seven run together, with simulated users. Every stage
leaves its figures in `DIR/ITEMS/figures.json`; one that is there is not run again, so a run that
was stopped goes on where it was.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench import invented, stages, whole
from bench.catalogs import Catalog
from bench.laws import VARIANTS
from bench.probe import Figures
from bench.stages import GENERATORS, Run
from forage.errors import ForageError

SERVICES = ("orchestrator", *GENERATORS, "ranker")
_FIRST = ("rows", "import", "orchestrator", "lexical", "understand", *GENERATORS[1:], "ranker")
_ALL = (
    *_FIRST,
    *(f"ask {name}" for name in (*GENERATORS, "ranker")),
    *(f"write {name}" for name in SERVICES if name != "semantic"),
    "mesh",
    "follow",
    "ranker model",
)
STAGES = (*_ALL, "log")
"""`log` is `import` without the orchestrator, for catalogues that would take too long."""
_WITH_VECTORS = ("semantic", "ask semantic", "mesh")
"""Stages whose figures are another kind's with a server, and with invented vectors."""
out = Console(width=110, highlight=False)


def main(
    work: Annotated[Path, typer.Option(help="Folder for catalogues, indexes and figures.")],
    items: Annotated[int, typer.Option(help="Items of the catalogue.")] = 10_000,
    only: Annotated[str, typer.Option(help=f"Stages, by comma: {', '.join(STAGES)}.")] = "",
    again: Annotated[bool, typer.Option(help="Run stages again that have figures.")] = False,
    searches: Annotated[int, typer.Option(help="Queries to measure with.")] = 1_000,
    limit_s: Annotated[float, typer.Option(help="Longest start of a service.")] = 900.0,
    milvus: Annotated[str, typer.Option(help="A Milvus server's address; else Milvus Lite.")] = "",
    milvus_index: Annotated[str, typer.Option(help="Index on the server.")] = "HNSW",
    milvus_pid: Annotated[int, typer.Option(help="Its process, to be measured too.")] = 0,
    invented_vectors: Annotated[
        bool, typer.Option(help="Draw the catalogue's vectors instead of embedding its texts.")
    ] = False,
    restart: Annotated[
        bool, typer.Option(help="Ask after a restart; else as soon as the index is built.")
    ] = True,
    config_dir: Annotated[Path, typer.Option(help="The services' YAML files.")] = Path("config"),
    seed: Annotated[int, typer.Option(help="Seed of the catalogue.")] = 1,
) -> None:
    """Measure one size of catalogue, and print its figures."""
    folder = work.absolute() / f"{items}"
    server = {"milvus.uri": milvus, "milvus.index": milvus_index} if milvus else {}
    run = Run(
        Catalog(items, seed),
        config_dir,
        folder,
        searches,
        limit_s,
        server,
        restart,
        invented=invented_vectors,
        milvus_pid=milvus_pid,
    )
    target = folder / "figures.json"
    figures = _read(target)
    kind = (" server" if milvus else "") + (" invented" if invented_vectors else "")
    wanted = only.split(",") if only else _ALL
    for unknown in sorted(set(wanted) - set(STAGES)):
        raise typer.BadParameter(f"there is no stage '{unknown}'; allowed: {', '.join(STAGES)}")
    for name in wanted:
        key = name + kind if name in _WITH_VECTORS else name
        if key in figures and "failed" not in figures[key] and not again:
            continue
        began = time.monotonic()
        out.print(f"{time.strftime('%H:%M:%S')} {items:,} items: {key}", end=" ")
        try:
            if name in _WITH_VECTORS and not invented_vectors:
                invented.refuse(run.data)
            found = _stage(name)(run)
        except ForageError as error:
            found = {"failed": error.message, "after_s": time.monotonic() - began}
        out.print(f"{time.monotonic() - began:.0f} s {found.get('failed', '')}")
        folder.mkdir(parents=True, exist_ok=True)
        # Another run may have added other stages meanwhile.
        figures = _read(target) | {key: found}
        figures["machine"] = _machine(figures.get("machine", {}))
        target.write_text(json.dumps(figures, indent=1))
    show(items, figures)


def _read(target: Path) -> dict[str, Figures]:
    found: dict[str, Figures] = json.loads(target.read_text()) if target.exists() else {}
    return found


def _stage(name: str) -> Callable[[Run], Figures]:
    done = {
        "rows": stages.write_rows,
        "import": stages.import_rows,
        "log": stages.write_log,
        "orchestrator": stages.orchestrator,
        "understand": stages.record,
        "mesh": whole.mesh,
        "follow": stages.followed,
        "ranker model": stages.modelled,
    }
    if name in done:
        return done[name]
    verb, _, service = name.rpartition(" ")
    on_service = {"": stages.build, "ask": stages.ask, "write": stages.write}
    return partial(on_service[verb], name=service)


def _machine(before: Figures) -> Figures:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    most = max(float(before.get("most_load", 0.0)), os.getloadavg()[0])
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "most_load": most,
    }


def show(items: int, figures: dict[str, Figures]) -> None:
    """Print the figures as tables."""
    built = Table("service", "index s", "CPU s", "us/item", "peak MB", "disk MB", "start s", "MB")
    asked = Table("service", "p50 ms", "p99 ms", "CPU ms", "calls/s", "CPU ms, 8 clients", "failed")
    built.title = f"{items:,} items"
    for name in (*SERVICES, *VARIANTS):
        found = figures.get(name, {}) | figures.get(f"ask {name}", {})
        if "index_s" in found:
            names = ("index_s", "index_cpu_s", "index_cpu_us_per_item", "index_peak_mb", "disk_mb")
            built.add_row(name, *(_text(found.get(n)) for n in (*names, "start_s", "pss_mb")))
        if "p50_ms" in found:
            names = ("p50_ms", "p99_ms", "cpu_ms", "per_second", "loaded_cpu_ms")
            failed = str(sum(found["failures"].values()))
            asked.add_row(name, *(_text(found.get(n)) for n in names), failed)
    out.print(built)
    out.print(asked)
    meshes = (name for name in figures if name.startswith("mesh"))
    writes = (name for name in figures if name.startswith("write "))
    for name in ("import", "understand", *writes, *meshes, "follow"):
        if name in figures:
            out.print(f"{name}: {json.dumps(_rounded(figures[name]))}", soft_wrap=True)


def _text(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, int | float) else ""


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, 2) if isinstance(value, float) else value


if __name__ == "__main__":
    typer.run(main)
