"""`forage evaluate`: quality on judged collections, with intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from forage.cli.progress import Bars
from forage.errors import InvalidArgumentError

if TYPE_CHECKING:
    from evaluation.collections.collection import Collection
    from evaluation.evaluate.experiment import Evaluation

DEFAULT = ("scifact", "cranfield", "chorus", "music")


def evaluate(
    collection: Annotated[
        list[str] | None, typer.Option(help="A known collection; may be given several times.")
    ] = None,
    beir: Annotated[
        Path | None, typer.Option(help="A folder in BEIR form: corpus, queries, qrels.")
    ] = None,
    trec: Annotated[
        Path | None, typer.Option(help="A folder in TREC form: documents, topics, qrels.")
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(help="Schema of the documents of --beir or --trec.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=50, help="How many seeds.")] = 3,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Folds where no split is given.")] = 5,
    cache: Annotated[Path, typer.Option(help="Folder of indexes and vectors, used again.")] = Path(
        "data/evaluation"
    ),
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Measure generators alone, fixed fusions, the ranker, and the best choice per query.

    Nothing is tuned on the topics that are measured. Without an option, the collections
    scifact, cranfield, chorus and music are measured.
    """
    # The engines are heavy, and only this command wants them.
    from evaluation.evaluate.experiment import evaluate as measure
    from evaluation.mesh import Mesh

    found: list[Evaluation] = []
    console = Console(stderr=True)
    for one in _collections(collection, beir, trec, schema):
        console.print(f"{one.name}:")
        with Bars() as bars:
            mesh = Mesh(one, cache)
            mesh.open(partial(bars.show, "index"))
            try:
                measured = measure(mesh, one, seeds=range(seeds), folds=folds, progress=bars.show)
            finally:
                mesh.close()
        found.extend(measured)
        show(measured)
    if out is not None:
        out.write_text(json.dumps([asdict(e) for e in found], indent=2), encoding="utf-8")
        console.print(f"Figures written to {out}.")
    console.print("Next: forage simulate lets simulated users teach the mesh.")


def _collections(
    names: Sequence[str] | None, beir: Path | None, trec: Path | None, schema: Path | None
) -> list[Collection]:
    from evaluation.collections import beir as beir_form
    from evaluation.collections import catalogue
    from evaluation.collections import trec as trec_form

    if schema is not None and beir is None and trec is None:
        raise InvalidArgumentError("schema", "without documents", allowed="with --beir or --trec")
    found = [catalogue.load(name) for name in names or ()]
    if beir is not None:
        found.append(beir_form.load(beir, own_schema=schema))
    if trec is not None:
        found.append(trec_form.load(trec, own_schema=schema))
    return found or [catalogue.load(name) for name in DEFAULT]


def show(evaluations: Sequence[Evaluation]) -> None:
    """Print each evaluation as a table, with what it was measured on."""
    console = Console()
    for one in evaluations:
        title = f"{one.collection}: {one.rule}, seeds {', '.join(map(str, one.seeds))}"
        metrics = list(one.rows[0].metrics)
        table = Table("", *metrics, "candidates", "ms", "cost", title=title)
        for row in one.rows:
            cells = [str(row.metrics[m]) for m in metrics]
            spent = (f"{row.candidates:.0f}", f"{row.milliseconds:.1f}", f"{row.cost:.0%}")
            table.add_row(row.contender, *cells, *spent)
        console.print(table)
        console.print(
            f"{one.items:,} items, {one.rows[0].metrics[metrics[0]].queries} test and"
            f" {one.trained} training topics; {one.overlap:.0%} of the test topics share a"
            f" relevant item with training. Chosen on training: {one.static}"
        )
        console.print(
            f"Within 40 % of the cost, chosen on training: {one.mix}; it stood in for the learned"
            f" plan in {one.fallbacks:.0%} of the splits."
        )
        for d in one.differences:
            console.print(f"nDCG@10: {d.contender} - {d.rival}: {d.interval}")
