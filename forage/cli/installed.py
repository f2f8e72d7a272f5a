"""Commands of installed packages, which the kernel does not import: `train`, `evaluate` ..."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

import typer

GROUP = "forage.commands"


@dataclass(frozen=True, slots=True)
class Installed:
    """A command that another package of the distribution brings."""

    name: str
    help: str
    extra: str
    """What to install for it."""


COMMANDS = (
    Installed(
        "train",
        "Train a ranking model from the log, and publish it if it beats the current one.",
        "ranker",
    ),
    Installed("evaluate", "Measure quality on judged collections.", "evaluate"),
    Installed(
        "simulate", "Let simulated users teach the mesh, and draw what it learns.", "evaluate"
    ),
    Installed("ope", "Estimate from a log what another policy would have earned.", "evaluate"),
)


def add_to(app: typer.Typer) -> None:
    """Register every command; each is looked up when it is used."""
    for command in COMMANDS:
        app.command(
            command.name,
            help=command.help,
            add_help_option=False,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )(_handing_over(command))


def _handing_over(command: Installed) -> Callable[[typer.Context], None]:
    def hand_over(context: typer.Context) -> None:
        from forage.errors import StartupError

        remedy = f"install it with: pip install forage-mesh[{command.extra}]"
        found = [e for e in entry_points(group=GROUP) if e.name == command.name]
        if not found:
            raise StartupError(f"forage {command.name} is not installed; {remedy}")
        try:
            function = found[0].load()
        except ModuleNotFoundError as error:
            raise StartupError(
                f"forage {command.name} needs the package '{error.name}'; {remedy}"
            ) from error
        inner = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        inner.command()(function)
        inner(args=context.args, prog_name=f"forage {command.name}")

    return hand_over
