"""`forage import`: files into the catalogue."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from forage.cli.terminal import ADDRESS, DATA, Address, Data, connect, console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from forage.catalog.rows import BadRow
    from forage.client import Client, IngestStatus
    from forage.importer import Progress, Source, Summary

_INTERRUPTED = 130


def import_catalog(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Files of rows.")
    ] = None,
    format: Annotated[
        Literal["jsonl", "csv", "parquet"] | None,
        typer.Option(help="Format of the files; by default as their names say."),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Import the demo catalogue: 17,472 films and more.")
    ] = False,
    predict: Annotated[
        bool, typer.Option(help="Predict missing values that the schema wants predicted.")
    ] = True,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad rows out, instead of stopping there.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Go on where an earlier import stopped.")
    ] = True,
    wait: Annotated[
        bool, typer.Option(help="Wait until every service has applied what was written.")
    ] = True,
    data: Data = DATA,
    address: Address = ADDRESS,
) -> None:
    """Import catalogue files; bad rows are named by line and reason on stderr.

    Without --skip-bad the import stops at the first bad row: what is before it is written, and
    nothing after it. An interrupted import goes on where it stopped; how far it is, is kept in
    DATA/imports.
    """
    if bool(paths) is demo:
        raise typer.BadParameter("give files, or --demo, and not both", param_hint="PATH")
    from forage.importer import Importer, Source

    err = console(stderr=True)
    folder = data / "imports"
    with connect(address, timeout_s=60.0) as client, _bars(err) as bars:
        client.schema()
        sources = [_demo(folder, bars)] if demo else [Source(p, format) for p in paths or ()]
        importer = Importer(
            client,
            folder,
            skip_bad=skip_bad,
            predict=predict,
            on_progress=_Stages(bars).show,
            on_bad_row=_print_bad_row,
        )
        if not resume:
            importer.restart(sources)
        try:
            summary = importer.run(sources)
            if wait and summary.sequence:
                _wait(client, summary.sequence, bars)
        except KeyboardInterrupt:
            bars.stop()
            typer.echo("interrupted; the same command goes on from here", err=True)
            raise typer.Exit(_INTERRUPTED) from None
    _print(summary)


def _demo(folder: Path, bars: Bars) -> Source:
    from forage.catalog.demo import demo_items, write_jsonl
    from forage.importer import Source

    task = bars.add_task("make demo", total=None)
    folder.mkdir(parents=True, exist_ok=True)
    path, temporary = folder / "demo.jsonl", folder / "demo.jsonl.tmp"
    count = write_jsonl(demo_items(), temporary)
    temporary.replace(path)
    bars.update(task, total=count, completed=count)
    return Source(path)


def _bars(err: Console) -> Bars:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Task as RichTask
    from rich.text import Text

    class Rate(TextColumn):
        """Rows per second."""

        def render(self, task: RichTask) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f}/s" if speed else "")

    return Progress(
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(""),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
    )


class _Stages:
    """One bar per stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def show(self, progress: Progress) -> None:
        """Show how far a stage is."""
        if progress.stage not in self._tasks:
            self._tasks[progress.stage] = self._bars.add_task(progress.stage)
        task = self._tasks[progress.stage]
        self._bars.update(task, completed=progress.done, total=progress.total or None)


def _wait(client: Client, sequence: int, bars: Bars) -> None:
    from forage.importer import wait_applied

    tasks: dict[str, TaskID] = {}
    first: dict[str, int] = {}

    def show(status: IngestStatus) -> None:
        for service in status.services:
            for p in service.projections:
                if p.topic != "catalog":
                    continue
                if p.name not in tasks:
                    first[p.name] = min(p.applied_sequence, sequence - 1)
                    tasks[p.name] = bars.add_task(f"apply {p.name}", total=sequence - first[p.name])
                done = min(p.applied_sequence, sequence) - first[p.name]
                bars.update(tasks[p.name], completed=done)

    wait_applied(client, sequence, on_status=show)


def _print_bad_row(path: Path, row: BadRow) -> None:
    print(f"{path}:{row.line}: {row.reason}", file=sys.stderr)


def _print(summary: Summary) -> None:
    resumed = f", {summary.resumed:,} rows were done before" if summary.resumed else ""
    bad = f", {summary.bad:,} bad rows left out" if summary.bad else ""
    typer.echo(f"{summary.written:,} items written{resumed}{bad}")
    for report in summary.reports:
        if report.refused:
            typer.echo(f"{report.attribute} of {report.kind}: not predicted: {report.refused}")
        else:
            typer.echo(
                f"{report.attribute} of {report.kind}: predicted for {report.items:,} of"
                f" {report.missing:,} items without one (held-out precision"
                f" {report.precision:.2f}, recall {report.recall:.2f})"
            )
    typer.echo("next: forage search TEXT, forage status")
