"""The same comparison for other users: other clicks, more noise, feedback that comes late."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from evaluation.simulation.clicks import CLICK_MODELS
from evaluation.simulation.comparison import (
    BEST_MIX,
    BEST_PLAN,
    LEARNED,
    Comparer,
    ComparisonSettings,
)
from evaluation.simulation.contenders import cost_of, everything
from evaluation.simulation.replay import Change, Trace, Users
from evaluation.simulation.warm_up import Progress, Scene, WarmUp
from orchestrator.settings import OrchestratorSettings

USERS: Mapping[str, Users] = {
    "position-based": Users(),
    "cascade": Users(CLICK_MODELS["cascade"]),
    "dynamic Bayesian": Users(CLICK_MODELS["dbn"]),
    "position-based, noise .10": Users(noise=0.1),
    "position-based, feedback after 10 minutes": Users(delay_s=600.0),
}
_CONTENDERS = (LEARNED, "lints", BEST_PLAN, BEST_MIX)


@dataclass(frozen=True, slots=True)
class Robust:
    """What one contender reached with some users, over the last half of the requests."""

    users: str
    contender: str
    ndcg: float
    net: float
    cost: float
    """As a share of call-everything's."""


def robustness(
    scene: Scene,
    settings: OrchestratorSettings,
    warm_up: WarmUp,
    options: ComparisonSettings,
    progress: Progress,
) -> Iterator[Robust]:
    """Yield the figures of every kind of users; the best plan and mix are chosen for each."""
    full = cost_of(settings, everything(settings))
    for number, (name, users) in enumerate(USERS.items(), 1):
        comparer = Comparer(scene, settings, warm_up, replace(options, users=users))
        hindsight = comparer.hindsight()
        traces: dict[str, list[Trace]] = {}
        for seed in options.seeds:
            for contender in comparer.contenders(hindsight, seed=seed):
                if contender.name in _CONTENDERS:
                    world = [Change(0, scene.questions)]
                    trace = comparer.replay(seed).run(contender, comparer.stream(seed), world)
                    traces.setdefault(contender.name, []).append(trace)
        half = options.requests // 2
        for contender_name, found in traces.items():
            yield Robust(
                users=name,
                contender=contender_name,
                ndcg=float(np.mean([t.ndcg[half:].mean() for t in found])),
                net=float(np.mean([t.net(settings.plan.price)[half:].mean() for t in found])),
                cost=float(np.mean([t.costs[half:].mean() for t in found]) / full),
            )
        progress("other users", number / len(USERS))
