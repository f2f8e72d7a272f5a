"""The command line: one file per family of commands, and nothing heavy imported before it is used.

Exit status of every command: 0 done, 1 refused or failed, 2 wrong usage or configuration, 3 no
server at the address. Messages about failures go to stderr, and never with a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from forage.cli import (
    check_config,
    explain,
    feedback,
    importing,
    installed,
    log,
    policy,
    search,
    serve,
    status,
    trace,
    up,
)

DONE, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3
DEBUG = "FORAGE_DEBUG"

app = typer.Typer(
    name="forage",
    help="Search that learns what to retrieve, how much of it, and how to rank it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("import")(importing.import_catalog)
app.command("search")(search.search)
app.command("feedback")(feedback.feedback)
app.add_typer(policy.app, name="policy")
app.add_typer(log.app, name="log")
app.command("status")(status.status)
app.command("trace")(trace.trace)
app.command("explain")(explain.explain)
app.command("check-config")(check_config.check_config)
app.command("serve")(serve.serve)
installed.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, and return or exit with its status."""
    try:
        app(args=None if arguments is None else list(arguments))
    except Exception as error:
        return _report(error)
    return DONE


def _report(error: Exception) -> int:
    from forage.client.attempts import UnreachableError
    from forage.errors import ForageError, StartupError

    if os.environ.get(DEBUG):
        raise error
    if not isinstance(error, ForageError):
        print(
            f"error: {type(error).__name__}: {error}\nThis is a defect of Forage;"
            f" {DEBUG}=1 shows where it happened.",
            file=sys.stderr,
        )
        return FAILED
    print(f"error: {error.message}", file=sys.stderr)
    if isinstance(error, UnreachableError):
        print("Start one with: forage up", file=sys.stderr)
        return UNREACHABLE
    return USAGE if isinstance(error, StartupError) else FAILED
