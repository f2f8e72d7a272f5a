"""`forage train`: hand over to the installed ranker's command, which the kernel does not import."""

from __future__ import annotations

from importlib.metadata import entry_points

import typer

PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}
GROUP = "forage.commands"


def train(context: typer.Context) -> None:
    """Train a ranking model from the log, and publish it if it beats the current one.

    Options are those of the installed ranker: `forage train --help` lists them.
    """
    from forage.errors import StartupError

    found = [entry for entry in entry_points(group=GROUP) if entry.name == "train"]
    if not found:
        raise StartupError(
            "no ranker is installed; install it with: pip install forage-mesh[ranker]"
        )
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(found[0].load())
    command(args=context.args, prog_name="forage train")
