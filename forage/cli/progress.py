"""Progress on stderr: one bar per stage of a command's work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forage.cli.terminal import console

if TYPE_CHECKING:
    from rich.progress import TaskID


class Bars:
    """Shows a bar per stage while it is open; for one `with`."""

    def __init__(self) -> None:
        # A command that is only asked for its help needs no bars.
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        self._progress = Progress(
            TextColumn("{task.description:<20}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            Elapsed(),
            console=console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        """Start to show."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop to show; the bars stay as they are."""
        self._progress.stop()

    def show(self, stage: str, done: float, total: float = 1.0) -> None:
        """Show how far a stage is: `done` of `total`."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage)
        self._progress.update(self._tasks[stage], completed=done, total=total)
