"""The quality report: measures whatever is not measured yet, and writes `docs/quality.md`.

Run it as `python -m evaluation.report`, or `make quality`. Each part keeps its figures as JSON in
the work folder, so that a run that was cut short goes on, and one part can be measured again by
deleting its file.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from evaluation.report.pages import report
from evaluation.report.parts import measured


def main(
    work: Annotated[Path, typer.Option(help="Folder of the parts' figures.")] = Path(
        "data/quality"
    ),
    out: Annotated[Path, typer.Option(help="The report; pictures go beside it.")] = Path(
        "docs/quality.md"
    ),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Parts at a time; by default one per core.")
    ] = None,
) -> None:
    """Measure what is missing in the work folder and write the report."""
    console = Console(stderr=True)
    pictures = out.with_suffix("")
    parts = measured(work, workers or os.cpu_count() or 1)
    pictures.mkdir(parents=True, exist_ok=True)
    for picture in sorted((work / "simulation").glob("*.png")):
        shutil.copy(picture, pictures / picture.name)
    lines = report(parts, sorted(p.name for p in pictures.glob("*.png")), pictures.name)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    console.print(f"Written: {out}. Pictures: {pictures}.")


if __name__ == "__main__":
    typer.run(main)
