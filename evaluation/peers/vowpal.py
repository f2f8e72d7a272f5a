"""Vowpal Wabbit's contextual bandits as a contender (`--cb_explore_adf`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from vowpalwabbit import Workspace

from evaluation.peers.presets import PlanArms, flat_context
from evaluation.simulation.contenders import plan_of
from evaluation.simulation.replay import Choice, FanOuts, Outcome, Request
from forage.log import Record
from orchestrator.settings import OrchestratorSettings


class VowpalContender:
    """Chooses among plans described by their fan-outs, interacting with the context.

    `exploration` is the library's own option, such as `--squarecb` or `--epsilon 0.05`.
    """

    def __init__(
        self,
        settings: OrchestratorSettings,
        plans: Sequence[FanOuts],
        *,
        exploration: str,
        name: str,
        seed: int,
    ) -> None:
        self.name = name
        self._settings = settings
        self._arms = PlanArms(settings, plans)
        self._rng = np.random.default_rng(seed)
        self._actions = [self._describe(number) for number in range(len(plans))]
        self._chosen: dict[int, tuple[str, int, float, list[int]]] = {}
        self._workspace = Workspace(
            f"--cb_explore_adf --cb_type mtr {exploration} -q CA --quiet --random_seed {seed}"
        )

    def _describe(self, number: int) -> str:
        plan = self._arms.plans[number]
        parts = [f"{name}_{k}" for name, k in zip(self._arms.generators, plan, strict=True)]
        return f"|A plan_{number} {' '.join(parts)}"

    def choose(self, request: Request) -> Choice:
        """Sample an arm from the library's distribution."""
        context = flat_context(request)
        shared = " ".join(f"f{i}:{value:.5g}" for i, value in enumerate(context) if value)
        allowed = self._arms.allowed(request)
        lines = [f"shared |C {shared}", *(self._actions[arm] for arm in allowed)]
        chances = np.array(self._workspace.predict(lines), float)
        chances /= chances.sum()
        place = int(self._rng.choice(len(allowed), p=chances))
        self._chosen[request.number] = (lines[0], place, float(chances[place]), allowed)
        return plan_of(self._settings, self._arms.plans[allowed[place]], request)

    def learn(self, records: Sequence[Record], outcomes: Sequence[Outcome]) -> None:
        """Tell the cost (the negative net reward) and the chance of what was chosen."""
        for outcome in outcomes:
            shared, place, chance, allowed = self._chosen.pop(outcome.request.number)
            label = f"0:{-self._arms.net(outcome):.5g}:{chance:.6g} "
            actions = [
                (label if number == place else "") + self._actions[arm]
                for number, arm in enumerate(allowed)
            ]
            self._workspace.learn([shared, *actions])
