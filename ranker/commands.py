"""`forage train`: the command of the ranker, found by the entry-point group `forage.commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from forage.errors import ForageError, StartupError
from forage.log.engines import open_storage
from forage.settings import load
from ranker.publishing import rollback as run_rollback
from ranker.settings import RankerSettings
from ranker.training import TrainingReport
from ranker.training import train as run_training

NOT_PUBLISHED = 4
_FAILED = 1
_STARTUP = 2


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
    console = Console(stderr=True)
    try:
        flags = {} if data is None else {"data_dir": data}
        settings = load("ranker", RankerSettings, file=config, flags=flags).settings
        storage = open_storage(settings)
        try:
            if rollback:
                version = run_rollback(storage.registry).version
                typer.echo(f"ranker model {version} is current again")
                return
            with _Bars(console) as bars:
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
    except ForageError as error:
        console.print(f"error: {error.message}", style="red", markup=False, highlight=False)
        raise typer.Exit(_STARTUP if isinstance(error, StartupError) else _FAILED) from error
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


class _Bars:
    """One progress bar per stage, on stderr."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, stage: str, share: float) -> None:
        """Show how much of a stage is done."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=1.0)
        self._progress.update(self._tasks[stage], completed=share)
