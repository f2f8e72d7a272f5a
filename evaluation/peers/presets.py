"""What the peers choose among: a list of static plans, with the product's context and reward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.simulation.contenders import cost_of
from evaluation.simulation.replay import FanOuts, Outcome, Request
from orchestrator.context import ACTION_FEATURES
from orchestrator.settings import OrchestratorSettings

_ACTION = len(ACTION_FEATURES)


class PlanArms:
    """Static plans as arms, of which those with a masked generator cannot be chosen."""

    def __init__(self, settings: OrchestratorSettings, plans: Sequence[FanOuts]) -> None:
        self.plans = tuple(plans)
        self.generators = tuple(settings.generators)
        self.costs = np.array([cost_of(settings, plan) for plan in plans], float)
        self._price = settings.plan.price

    def net(self, outcome: Outcome) -> float:
        """Return the observed reward net of the plan's cost: what a peer is to maximise."""
        return outcome.reward - self._price * outcome.choice.cost

    def allowed(self, request: Request) -> list[int]:
        """Return the arms that ask no masked generator; all of them if none does without."""
        free = [
            arm
            for arm, plan in enumerate(self.plans)
            if not any(
                k and name in request.masked for name, k in zip(self.generators, plan, strict=True)
            )
        ]
        return free or list(range(len(self.plans)))


def flat_context(request: Request) -> NDArray[np.float64]:
    """Return the query's features once, then the action features of every generator."""
    return np.concatenate([request.phi[0, :-_ACTION], request.phi[:, -_ACTION:].ravel()])
