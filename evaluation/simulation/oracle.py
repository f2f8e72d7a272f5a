"""The contextual oracle: for each need the plan of the largest true expected net reward.

Nobody who plans can do better on any request, whatever the model, the features or the luck: the
oracle sees the needs' true attraction. Most plans are never ranked, because what they could show
at best is worth less than what another one does show.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluation.simulation.clicks import attraction
from evaluation.simulation.contenders import cost_of, plan_of
from evaluation.simulation.pages import PAGE, Pages, Question
from evaluation.simulation.replay import (
    Choice,
    FanOuts,
    Outcome,
    Replay,
    Request,
    Trace,
)
from forage.log import Record
from orchestrator.settings import OrchestratorSettings

Floats = NDArray[np.float64]
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class _Best:
    net: float
    plan: FanOuts
    proven: bool
    """Whether no other plan can be better, ranked or not."""


class ContextualOracle:
    """Finds the best plan of each need, by branch and bound over every plan there is."""

    def __init__(
        self, pages: Pages, settings: OrchestratorSettings, replay: Replay, *, most_pages: int
    ) -> None:
        """Rank at most `most_pages` plans per need, those that promise most."""
        self._pages = pages
        self._settings = settings
        self._replay = replay
        self._most = most_pages
        levels = settings.plan.fan_outs
        grid = itertools.product(range(len(levels)), repeat=len(settings.generators))
        self._levels = np.array([plan for plan in grid if any(plan)])
        self._plans: list[FanOuts] = [tuple(row) for row in np.array(levels)[self._levels].tolist()]
        self._costs = np.array([cost_of(settings, plan) for plan in self._plans], float)
        self._found: dict[str, _Best] = {}

    @property
    def exact(self) -> float:
        """Share of the needs asked for so far whose plan is proven to be the best of all."""
        return float(np.mean([found.proven for found in self._found.values()]))

    def best(self, question: Question, played: Iterable[FanOuts] = ()) -> FanOuts:
        """Return the need's best plan.

        `played` are plans to be considered in any case: with those that the contenders chose,
        none of them is above the oracle even where not all plans were ranked.
        """
        name = question.topic.query_id
        found = self._found.get(name) or self._search(question)
        for plan in played:
            net = self.net(question, plan)
            if net > found.net:
                found = _Best(net, plan, found.proven)
        self._found[name] = found
        return found.plan

    def net(self, question: Question, plan: FanOuts) -> float:
        """Return the expected reward of a plan, net of what it costs."""
        reward = self._replay.expected(question, self._pages.page(question, plan))
        return reward - self._settings.plan.price * cost_of(self._settings, plan)

    def _search(self, question: Question) -> _Best:
        promised = self.promises(question)
        best, ranked = _Best(-np.inf, self._plans[0], proven=False), 0
        seen: dict[tuple[bytes, tuple[bool, ...]], float] = {}
        for number in np.argsort(-promised, kind="stable").tolist():
            if promised[number] <= best.net + _TOLERANCE:
                return replace(best, proven=True)
            plan = self._plans[number]
            # Plans that find the same and have asked the same generators show the same.
            key = (question.fan_out_ranks(plan).tobytes(), tuple(k > 0 for k in plan))
            if key not in seen:
                if ranked == self._most:
                    return best
                ranked += 1
                seen[key] = self._replay.expected(question, self._pages.page(question, plan))
            net = seen[key] - self._settings.plan.price * self._costs[number]
            if net > best.net:
                best = _Best(net, plan, proven=False)
        return replace(best, proven=True)

    def promises(self, question: Question) -> Floats:
        """Return, per plan, what no order of the items it finds can exceed, net of its cost."""
        chance = attraction(question.grades, noise=self._replay.users.noise)
        order = np.argsort(-chance, kind="stable")
        ranks = question.ranks[:, order]
        bounds = np.array(self._settings.plan.fan_outs)
        # The first level that reaches the rank; beyond the last one if nothing does.
        needed = np.where(ranks > 0, np.searchsorted(bounds, ranks), len(bounds))
        found = np.zeros((len(self._plans), len(order)), bool)
        for generator, row in enumerate(needed):
            found |= self._levels[:, generator, None] >= row
        place = np.cumsum(found, axis=1)
        rows, columns = np.nonzero(found & (place <= PAGE))
        top = np.zeros((len(self._plans), PAGE))
        top[rows, place[rows, columns] - 1] = chance[order[columns]]
        most = np.minimum(1.0, self._replay.most(top))
        promised: Floats = most - self._settings.plan.price * self._costs
        return promised


class OracleContender:
    """Plays the oracle's plan for every need."""

    def __init__(
        self,
        oracle: ContextualOracle,
        settings: OrchestratorSettings,
        others: Mapping[str, Sequence[Trace]],
        questions: Sequence[Question],
        *,
        name: str,
    ) -> None:
        """Consider what the `others` played for the needs that they were asked."""
        self.name = name
        self._settings = settings
        self._plans = {
            questions[index].topic.query_id: oracle.best(questions[index], sorted(plans))
            for index, plans in sorted(played(others).items())
        }

    def choose(self, request: Request) -> Choice:
        """Return the best plan of the need."""
        return plan_of(self._settings, self._plans[request.question.topic.query_id], request)

    def learn(self, records: Sequence[Record], outcomes: Sequence[Outcome]) -> None:
        """Learn nothing: the oracle knows."""


def played(traces: Mapping[str, Sequence[Trace]]) -> dict[int, set[FanOuts]]:
    """Return the plans that anybody chose, by need."""
    found: dict[int, set[FanOuts]] = {}
    for trace in itertools.chain.from_iterable(traces.values()):
        for index, plan in zip(trace.questions.tolist(), trace.fan_outs.tolist(), strict=True):
            found.setdefault(index, set()).add(tuple(plan))
    return found
