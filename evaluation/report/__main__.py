"""The quality report: measures whatever is not measured yet, and writes `docs/quality.md`.

Run it as `python -m evaluation.report`, or `make quality`. Each part keeps its figures as JSON in
the work folder, so that a run that was cut short goes on, and one part can be measured again by
deleting its file.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from evaluation.report.pages import report
from evaluation.report.parts import PARTS, Json


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
    parts = _measured(work, workers or os.cpu_count() or 1)
    pictures.mkdir(parents=True, exist_ok=True)
    for picture in sorted((work / "simulation").glob("*.png")):
        shutil.copy(picture, pictures / picture.name)
    lines = report(parts, sorted(p.name for p in pictures.glob("*.png")), pictures.name)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    console.print(f"Written: {out}. Pictures: {pictures}.")


def _measured(work: Path, workers: int) -> dict[str, Json]:
    """Return the figures of all parts, by name; what is in the work folder is not done again."""
    work.mkdir(parents=True, exist_ok=True)
    began = time.time()
    missing = [name for name in PARTS if not _file(work, name).exists()]
    # Engines and XGBoost keep threads that would not survive a fork.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_measure, work, name, began) for name in missing]):
            done.result()
    return {name: json.loads(_file(work, name).read_text(encoding="utf-8")) for name in PARTS}


def _file(work: Path, part: str) -> Path:
    return work / f"{part}.json"


def _measure(work: Path, part: str, began: float) -> None:
    console = Console(stderr=True)
    told = 0.0

    def tell(stage: str, share: float) -> None:
        nonlocal told
        if share >= 1 or time.time() - told > 10:
            told = time.time()
            console.print(f"{told - began:6.0f} s  {part}: {stage}: {share:.0%}")

    figures = json.dumps(PARTS[part](work, tell), indent=1)
    _file(work, part).write_text(figures, encoding="utf-8")
    console.print(f"{time.time() - began:6.0f} s  {part}: measured")


if __name__ == "__main__":
    typer.run(main)
