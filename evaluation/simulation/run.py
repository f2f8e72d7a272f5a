"""One whole simulation: build the scene, compare, change the world, draw, write it down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from evaluation.collections.collection import Collection
from evaluation.simulation.building import Built, StudySettings, build
from evaluation.simulation.clicks import CLICK_MODELS
from evaluation.simulation.comparison import CONTEXTUAL, Comparer, ComparisonSettings
from evaluation.simulation.drift import SCENARIOS, Recovery, recover
from evaluation.simulation.invented import invented_collection
from evaluation.simulation.needs import film_collection, strangers
from evaluation.simulation.pictures import draw, draw_recovery
from evaluation.simulation.replay import Users
from evaluation.simulation.results import (
    Finding,
    Row,
    comparison_findings,
    recovery_findings,
    rows,
    study_findings,
    to_json,
)
from evaluation.simulation.robustness import Robust, robustness
from evaluation.simulation.warm_up import Progress, WarmUp
from orchestrator.settings import OrchestratorSettings

_BEFORE, _AFTER = 1_500, 2_000


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What to simulate."""

    requests: int = 4_000
    seeds: int = 3
    invented: bool = False
    world: int = 1
    """Seed of the warm-up: which needs are held out, what its users ask and click."""
    clicks: str = "position"
    drift: bool = True
    noise: float = 0.02
    delay_s: float = 0.0
    """Mean of the exponential time until feedback arrives."""
    robustness: bool = False
    """Also compare the learned plan with fixed plans for other users."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it."""

    rows: Sequence[Row]
    findings: Sequence[Finding]


def run(
    settings: RunSettings,
    data: Path | None,
    *,
    cache: Path,
    out: Path,
    progress: Progress,
) -> Report:
    """Simulate; write pictures and `results.json` to `out`. Without `data`, films are invented."""
    collection = invented_collection() if data is None else film_collection(data)
    warm_up, studies = _sizes(small=data is None, world=settings.world)
    others = None if data is None else strangers(data, collection)
    built = build(cache, collection, others, warm_up, studies, progress)
    comparer = comparer_of(built, settings, warm_up, progress)
    comparison = comparer.compare()
    draw(comparison, out)
    recoveries = _drift(comparer, out, progress) if settings.drift else []
    found = [
        *comparison_findings(comparison),
        *recovery_findings(recoveries),
        *study_findings(built),
    ]
    table = list(rows(comparison))
    about = {
        "settings": asdict(settings),
        "collection": _describe(collection),
        "proven": comparison.exact,
        "exploration": {
            "items": len(built.explored.ten),
            "slots_per_search": built.explored.slots,
            "share_of_slots": built.explored.share,
            "expected_searches": built.explored.expected,
        },
        "robustness": [asdict(row) for row in _robust(comparer, settings, warm_up, progress)],
    }
    (out / "results.json").write_text(to_json(found, table, about), encoding="utf-8")
    return Report(table, found)


def _sizes(*, small: bool, world: int) -> tuple[WarmUp, StudySettings]:
    if not small:
        return WarmUp(seed=world), StudySettings()
    studies = StudySettings(
        memory_queries=8, memory_searches=40, new_items=3, exploration_searches=100
    )
    return WarmUp(days=1, searches=300, seed=world), studies


def comparer_of(
    built: Built, settings: RunSettings, warm_up: WarmUp, progress: Progress
) -> Comparer:
    """Return the comparer of a scene, with the product's default settings."""
    options = ComparisonSettings(
        requests=settings.requests,
        seeds=tuple(range(1, settings.seeds + 1)),
        users=Users(CLICK_MODELS[settings.clicks], settings.noise, settings.delay_s),
    )
    return Comparer(built.scene, OrchestratorSettings(), warm_up, options, progress)


def _robust(
    comparer: Comparer, settings: RunSettings, warm_up: WarmUp, progress: Progress
) -> list[Robust]:
    if not settings.robustness:
        return []
    options = replace(comparer.options, seeds=comparer.options.seeds[:1])
    return list(robustness(comparer.scene, comparer.settings, warm_up, options, progress))


def _drift(comparer: Comparer, out: Path, progress: Progress) -> list[Recovery]:
    recoveries = []
    for number, (name, what) in enumerate(SCENARIOS.items(), 1):
        recovery = recover(
            comparer,
            name,
            at=_BEFORE,
            after=_AFTER,
            contenders=lambda seed: [comparer.policy("lints"), *list(comparer.peers(seed))[:1]],
        )
        draw_recovery(
            recovery.traces,
            recovery.oracle,
            price=recovery.price,
            at=recovery.at,
            title=f"An abrupt change: {what}",
            folder=out,
            name=f"drift_{name}",
        )
        recoveries.append(recovery)
        progress("changes", number / len(SCENARIOS))
    return recoveries


def _describe(collection: Collection) -> dict[str, object]:
    return {
        "name": collection.name,
        "items": len(collection.items),
        "needs": len(collection.topics),
        "note": collection.note,
        "oracle": CONTEXTUAL,
    }
