"""What the report measures, part by part."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from evaluation.collections import catalogue
from evaluation.collections.files import judged_data
from evaluation.evaluate import commands as evaluating
from evaluation.evaluate.debiasing import measure_debiasing
from evaluation.evaluate.experiment import evaluate
from evaluation.evaluate.letor import measure_letor
from evaluation.mesh import Mesh
from evaluation.ope.coverage import CoverageSettings, measure_coverage
from evaluation.simulation.run import RunSettings, run
from evaluation.understanding.measuring import measure as measure_understanding

Json = Any
Tell = Callable[[str, float], None]
SEEDS = 3
FOLDS = 5
SEARCHES = (60, 240)
"""Searches of each training query whose clicks teach; the target is judged at the last."""
_SIMULATION = RunSettings(requests=4_000, seeds=2, robustness=True)
OTHER_WORLDS = (2, 3)
"""Seeds of the warm-ups of further simulations; that of the first is 1."""


def _evaluated(name: str, work: Path, tell: Tell) -> Json:
    collection = catalogue.load(name)
    mesh = Mesh(collection, work / "cache")
    mesh.open(lambda done, wanted: tell("index", done / wanted))
    try:
        found = evaluate(
            mesh,
            collection,
            seeds=range(SEEDS),
            folds=FOLDS,
            progress=lambda stage, done, wanted: tell(stage, done / wanted),
        )
    finally:
        mesh.close()
    return [asdict(e) for e in found]


def _simulation(work: Path, tell: Tell) -> Json:
    return _simulated(_SIMULATION, work / "simulation", work, tell)


def _other_world(seed: int, work: Path, tell: Tell) -> Json:
    settings = replace(_SIMULATION, world=seed, drift=False, robustness=False)
    return _simulated(settings, work / f"simulation-{seed}", work, tell)


def _simulated(settings: RunSettings, folder: Path, work: Path, tell: Tell) -> Json:
    folder.mkdir(exist_ok=True)
    run(settings, judged_data(), cache=work / "scenes", out=folder, progress=tell)
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def _coverage(_: Path, tell: Tell) -> Json:
    found = measure_coverage(
        CoverageSettings(), progress=lambda share: tell("off-policy coverage", share)
    )
    return asdict(found)


def _letor(_: Path, tell: Tell) -> Json:
    tell("learning to rank", 0.0)
    return [asdict(figure) for figure in measure_letor(judged_data(), seeds=range(SEEDS))]


def _debiasing(_: Path, tell: Tell) -> Json:
    tell("clicks with position bias", 0.0)
    return [
        asdict(measure_debiasing(judged_data(), seeds=range(SEEDS), searches_per_query=searches))
        for searches in SEARCHES
    ]


def _understanding(_: Path, tell: Tell) -> Json:
    tell("query understanding", 0.0)
    return asdict(measure_understanding(judged_data()))


WORLDS = tuple(f"world-{seed}" for seed in OTHER_WORLDS)
EVALUATIONS = tuple(f"evaluation-{name}" for name in evaluating.DEFAULT)
# The longest first, so that all cores are busy to the end.
PARTS: Mapping[str, Callable[[Path, Tell], Json]] = {
    "simulation": _simulation,
    **{part: partial(_other_world, seed) for part, seed in zip(WORLDS, OTHER_WORLDS, strict=True)},
    **{
        part: partial(_evaluated, name)
        for part, name in zip(EVALUATIONS, evaluating.DEFAULT, strict=True)
    },
    "coverage": _coverage,
    "letor": _letor,
    "debiasing": _debiasing,
    "understanding": _understanding,
}


def measured(work: Path, workers: int) -> dict[str, Json]:
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

    try:
        figures = json.dumps(PARTS[part](work, tell), indent=1)
    except Exception as error:
        # The other parts go on, so this would otherwise be heard of only after the last of them.
        console.print(f"{time.time() - began:6.0f} s  {part}: failed: {error}")
        raise
    _file(work, part).write_text(figures, encoding="utf-8")
    console.print(f"{time.time() - began:6.0f} s  {part}: measured")
