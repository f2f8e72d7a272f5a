"""MABWiser's linear contextual bandits as a contender."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mabwiser.mab import MAB, LearningPolicy

from evaluation.peers.presets import PlanArms, flat_context
from evaluation.simulation.contenders import plan_of
from evaluation.simulation.replay import Choice, FanOuts, Outcome, Request
from forage.log import Record
from orchestrator.settings import OrchestratorSettings

_BATCH = 25


class MabwiserContender:
    """LinUCB or LinTS over plans: one linear model per plan. Fits in batches of 25 outcomes."""

    def __init__(
        self,
        settings: OrchestratorSettings,
        plans: Sequence[FanOuts],
        *,
        policy: str,
        alpha: float,
        name: str,
        seed: int,
    ) -> None:
        """Use the library's learning policy of that name, such as `LinUCB`."""
        self.name = name
        self._settings = settings
        self._arms = PlanArms(settings, plans)
        self._rng = np.random.default_rng(seed)
        self._learner = MAB(
            list(range(len(plans))), getattr(LearningPolicy, policy)(alpha=alpha), seed=seed
        )
        self._fitted = False
        self._chosen: dict[int, int] = {}
        self._waiting: list[tuple[int, float, np.ndarray]] = []

    def choose(self, request: Request) -> Choice:
        """Take the arm of the largest expectation; at random until something is fitted."""
        allowed = self._arms.allowed(request)
        arm = int(self._rng.choice(allowed))
        if self._fitted:
            hopes = self._learner.predict_expectations(flat_context(request)[None])
            arm = max(allowed, key=hopes.__getitem__)
        self._chosen[request.number] = arm
        return plan_of(self._settings, self._arms.plans[arm], request)

    def learn(self, records: Sequence[Record], outcomes: Sequence[Outcome]) -> None:
        """Collect outcomes and fit when there are enough."""
        for outcome in outcomes:
            arm = self._chosen.pop(outcome.request.number)
            self._waiting.append((arm, self._arms.net(outcome), flat_context(outcome.request)))
        if len(self._waiting) < _BATCH:
            return
        arms, rewards, contexts = (list(column) for column in zip(*self._waiting, strict=True))
        fit = self._learner.partial_fit if self._fitted else self._learner.fit
        fit(arms, rewards, np.array(contexts))
        self._fitted, self._waiting = True, []
