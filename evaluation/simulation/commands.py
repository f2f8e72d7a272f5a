"""`forage simulate`: simulated users on mixed film traffic, curves, and the targets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from evaluation.collections.files import judged_data


def simulate(
    out: Annotated[Path, typer.Option(help="Folder of pictures and results.")] = Path("simulation"),
    cache: Annotated[Path, typer.Option(help="Folder of vectors and scenes, used again.")] = Path(
        "data/simulation"
    ),
    requests: Annotated[int, typer.Option(min=200, help="Requests per seed.")] = 4_000,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="How many seeds.")] = 3,
    invented: Annotated[
        bool, typer.Option("--invented", help="A small invented catalogue; needs no data.")
    ] = False,
    world: Annotated[
        int, typer.Option(min=0, help="Seed of the warm-up: what is held out, asked and clicked.")
    ] = 1,
    clicks: Annotated[
        str, typer.Option(help="position, cascade, dbn (dynamic Bayesian) or perfect.")
    ] = "position",
    noise: Annotated[
        float, typer.Option(min=0, max=0.5, help="P(click | looked at) of unwanted results.")
    ] = 0.02,
    delay: Annotated[
        float, typer.Option(min=0, help="Mean seconds until feedback arrives (exponential).")
    ] = 0.0,
    drift: Annotated[bool, typer.Option(help="Also measure recovery after changes.")] = True,
    robustness: Annotated[
        bool, typer.Option(help="Also compare for other clicks, noise and delay.")
    ] = False,
) -> None:
    """Simulate users on the mixed film traffic; draw the curves and check the targets.

    Exit status: 0 done (met or not, targets are reported), 1 failed, 2 data or settings missing.
    """
    # Matplotlib, XGBoost and the peers are heavy, and only this command wants them.
    from evaluation.simulation.clicks import CLICK_MODELS
    from evaluation.simulation.run import RunSettings, run

    console = Console(stderr=True)
    if clicks not in CLICK_MODELS:
        raise typer.BadParameter(f"'{clicks}'; allowed: {', '.join(CLICK_MODELS)}")
    settings = RunSettings(
        requests=requests,
        seeds=seeds,
        invented=invented,
        world=world,
        clicks=clicks,
        drift=drift,
        noise=noise,
        delay_s=delay,
        robustness=robustness,
    )
    began = time.monotonic()
    told: dict[str, float] = {}

    def progress(stage: str, share: float) -> None:
        if share >= 1 or time.monotonic() - told.get("at", 0) > 10:
            told["at"] = time.monotonic()
            console.print(f"{time.monotonic() - began:6.0f} s  {stage}: {share:.0%}")

    data = None if invented else judged_data()
    _print(run(settings, data, cache=cache, out=out, progress=progress))


def _print(report: object) -> None:
    from evaluation.simulation.run import Report

    assert isinstance(report, Report)
    console = Console()
    table = Table("contender", "nDCG@10", "net reward", "cost", "engaged covered", "regret")
    for row in report.rows:
        figures = (row.ndcg, row.net, row.cost, row.engaged)
        table.add_row(row.contender, *(f"{f:.4f}" for f in figures), f"{row.regret:.1f}")
    console.print(table)
    table = Table("finding", "value", "95 %", "target", "met")
    for found in report.findings:
        interval = f"[{found.low:.3f}, {found.high:.3f}]"
        table.add_row(
            found.what, f"{found.value:.3f}", interval, found.target, "yes" if found.met else "no"
        )
    console.print(table)
