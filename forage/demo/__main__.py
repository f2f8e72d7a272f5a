"""Entry point of `python -m forage.demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from forage.errors import ForageError


def demo(
    data: Annotated[Path, typer.Option(help="Data folder; kept for the next start.")],
    config_dir: Annotated[Path, typer.Option(help="The services' YAML files.")] = Path("config"),
    once: Annotated[bool, typer.Option("--once", help="End after the last page.")] = False,
    searches: Annotated[int, typer.Option(min=20, help="Searches of the simulated users.")] = 600,
    seed: Annotated[int, typer.Option(help="Seed of the simulated users.")] = 7,
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help="Use free ports instead of the configured ones.")
    ] = False,
) -> None:
    """Start the mesh, import the films, and show searches, learning, ranking and a trace."""
    from forage.demo.pages import Demo

    tour = Demo(data, config_dir, searches=searches, seed=seed, free_ports=free_ports)
    try:
        tour.run(stay=not once)
    except ForageError as error:
        print(f"error: {error.message}", file=sys.stderr)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(demo)
