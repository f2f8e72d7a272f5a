"""`forage train`: the command of the ranker, found by the entry-point group `forage.commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from forage.cli.progress import Bars
from forage.log.engines import open_storage
from forage.settings import load
from ranker.publishing import rollback as run_rollback
from ranker.settings import RankerSettings
from ranker.training import TrainingReport
from ranker.training import train as run_training

NOT_PUBLISHED = 4


def train(
    data: Annotated[
        Path | None, typer.Option(help="Data folder; by default the one of the configuration.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="ranker.yaml.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Same seed, same model.")] = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Publish even if it is not better.")
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Make the previous model current instead.")
    ] = False,
) -> None:
    """Train a ranking model from the log and publish it if it beats the current one.

    Running rankers load it without a restart. Exit status: 0 published or rolled back, 1 failed,
    2 bad configuration, 4 trained but not published, or too little data.
    """
    flags = {} if data is None else {"data_dir": data}
    settings = load("ranker", RankerSettings, file=config, flags=flags).settings
    storage = open_storage(settings)
    try:
        if rollback:
            version = run_rollback(storage.registry).version
            typer.echo(f"ranker model {version} is current again")
            return
        with Bars() as bars:
            report = run_training(
                storage.log,
                storage.registry,
                settings,
                seed=seed,
                force=force,
                progress=bars.show,
            )
    finally:
        storage.close()
    _print(report)
    if not report.published:
        raise typer.Exit(NOT_PUBLISHED)


def _print(report: TrainingReport) -> None:
    console = Console()
    if report.metrics:
        table = Table("metric", "value")
        for name, value in report.metrics.items():
            table.add_row(name, f"{value:.4f}".removesuffix(".0000"))
        console.print(table)
    state = f"published as version {report.version}" if report.published else "not published"
    console.print(f"{state}: {report.reason}", markup=False, highlight=False)
