"""Abrupt changes of the world, and how long a contender takes to get over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.simulation.comparison import LEARNED, ORACLE, Comparer
from evaluation.simulation.pages import Question
from evaluation.simulation.replay import Change, Contender, Trace

_WINDOW = 250
SCENARIOS: Mapping[str, str] = {
    "swap": "memory finds nothing, then memory is back and lexical finds nothing",
    "break": "lexical answers with nothing from the change on",
    "appear": "graph cannot be called until the change",
}


@dataclass(frozen=True, slots=True)
class Recovery:
    """What an abrupt change did."""

    scenario: str
    at: int
    price: float
    traces: Mapping[str, Sequence[Trace]]
    oracle: Sequence[Trace]
    """Before and after the change each the oracle of its own world."""

    def level(self, contender: str, start: int, end: int) -> list[float]:
        """Return the net reward of requests [start, end) as a share of the oracle's, per seed."""
        return [
            float(t.net(self.price)[start:end].mean() / o.net(self.price)[start:end].mean())
            for t, o in zip(self.traces[contender], self.oracle, strict=True)
        ]

    def recovered(self, contender: str, within: int) -> list[float]:
        """Return the level at the end of `within` requests as a share of that before, per seed."""
        before = self.level(contender, self.at - 2 * _WINDOW, self.at)
        end = self.at + within
        after = self.level(contender, end - 2 * _WINDOW, end)
        return [now / then for now, then in zip(after, before, strict=True)]


def without(questions: Sequence[Question], generators: Sequence[int]) -> list[Question]:
    """Return the needs as they are when some generators answer with nothing."""
    changed = []
    for question in questions:
        ranks = question.ranks.copy()
        ranks[list(generators)] = 0
        changed.append(replace(question, ranks=ranks, pages={}))
    return changed


def scenario(comparer: Comparer, name: str, at: int) -> list[Change]:
    """Return the worlds before and after the change."""
    questions = comparer.scene.questions
    place = {g: i for i, g in enumerate(comparer.settings.generators)}
    if name == "swap":
        return [
            Change(0, without(questions, [place["memory"]])),
            Change(at, without(questions, [place["lexical"]])),
        ]
    if name == "break":
        return [Change(0, questions), Change(at, without(questions, [place["lexical"]]))]
    return [Change(0, questions, {"graph": "DISABLED"}), Change(at, questions)]


def recover(
    comparer: Comparer,
    name: str,
    *,
    at: int,
    after: int,
    contenders: Callable[[int], Sequence[Contender]],
) -> Recovery:
    """Run a scenario on every seed; the contenders are made anew for each."""
    traces: dict[str, list[Trace]] = {}
    oracles = []
    changes = scenario(comparer, name, at)
    worlds = [replace(world, at=0) for world in changes]
    taught = [comparer.oracle([world], seed=0, passes=1) for world in worlds]
    for seed in comparer.options.seeds:
        stream = comparer.stream(seed, at + after)
        replay = comparer.replay(seed)
        for contender in (comparer.policy(LEARNED), *contenders(seed)):
            trace = replay.run(contender, stream, changes)
            traces.setdefault(contender.name, []).append(trace)
        parts = [
            replay.run(comparer.greedy(snapshot), stream, [world])
            for snapshot, world in zip(taught, worlds, strict=True)
        ]
        oracles.append(_spliced(parts, at))
    return Recovery(name, at, comparer.settings.plan.price, traces, oracles)


def _spliced(parts: Sequence[Trace], at: int) -> Trace:
    before, later = parts

    def join(name: str) -> np.ndarray:
        return np.concatenate([getattr(before, name)[:at], getattr(later, name)[at:]])

    return Trace(
        contender=ORACLE,
        questions=before.questions,
        fan_outs=join("fan_outs"),
        costs=join("costs"),
        rewards=join("rewards"),
        ndcg=join("ndcg"),
        covered=join("covered"),
        engaged=join("engaged"),
    )
