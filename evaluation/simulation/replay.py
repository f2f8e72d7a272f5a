"""Replays a stream of requests for one contender: context, plan, page, clicks, learning.

The context comes from the real search history, plans from the real planner, learning happens in
the real policy projection, each fed with real records of decisions and feedback; only the wire,
the disk and the generators' work are left out. Contenders that bring their own method (peers)
get the same context and the same reward.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.simulation.arrivals import Arrivals, MemoryLog
from evaluation.simulation.clicks import ClickModel, PositionBased, attraction
from evaluation.simulation.pages import Page, Pages, Question
from evaluation.simulation.traffic import Stream
from evaluation.simulation.warm_up import CLICK, PLAY, feedback_event
from forage import wire
from forage.log import Event, Record
from forage.log import Stream as LogStream
from forage.retrieval import Query
from forage.v1 import candidate_pb2, decision_pb2, plan_pb2, query_pb2
from orchestrator import context
from orchestrator.bandit import derive_rng
from orchestrator.bandit.arrays import FloatArray
from orchestrator.history import HistoryProjection
from orchestrator.planner import Planned, to_message
from orchestrator.settings import OrchestratorSettings

FanOuts = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Users:
    """How the simulated users behave."""

    clicks: ClickModel = field(default_factory=PositionBased)
    noise: float = 0.02
    """Chance that an unwanted result is clicked when it is looked at."""
    delay_s: float = 0.0
    """Mean of the exponential time until feedback arrives."""


@dataclass(frozen=True, slots=True)
class Request:
    """One search of the stream."""

    number: int
    request_id: str
    time: float
    question: Question
    query: Query
    phi: FloatArray
    """The context features, [G, d]."""
    masked: dict[str, str]
    """Generators that cannot be called, and why."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a contender chose."""

    fan_outs: FanOuts
    cost: int
    planned: Planned | None = None
    """The planner's decision, if the contender is a policy of the product."""


@dataclass(frozen=True, slots=True)
class Click:
    """One act of a user."""

    item_id: str
    kind: str
    reward: float
    position: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one search."""

    request: Request
    choice: Choice
    page: Page
    clicks: tuple[Click, ...]

    @property
    def reward(self) -> float:
        """The position-discounted reward, at most 1, as the bandit is credited."""
        total = sum(max(0.0, c.reward) / np.log2(c.position + 1) for c in self.clicks)
        return float(min(1.0, total))


class Contender(Protocol):
    """Something that plans."""

    @property
    def name(self) -> str:
        """The name in tables and pictures."""
        ...

    def choose(self, request: Request) -> Choice:
        """Return the fan-out of every generator."""
        ...

    def learn(self, records: Sequence[Record], outcomes: Sequence[Outcome]) -> None:
        """Take in what has become known: log records, and the same as outcomes."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """An abrupt change of the world before request `at`."""

    at: int
    questions: Sequence[Question]
    """The needs with what the generators find from now on."""
    masked: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trace:
    """What a contender did and got, per request; arrays are aligned."""

    contender: str
    questions: NDArray[np.int64]
    fan_outs: NDArray[np.int64]
    """[T, G]."""
    costs: NDArray[np.float64]
    rewards: NDArray[np.float64]
    """Expected credited reward of the page shown, in [0, 1]."""
    ndcg: NDArray[np.float64]
    covered: NDArray[np.float64]
    """Share of the wanted gain among the candidates."""
    engaged: NDArray[np.float64]
    """Of what users would engage with if everybody was called, the share the plan found."""

    def net(self, price: float) -> NDArray[np.float64]:
        """Return expected reward net of what the plan cost."""
        result: NDArray[np.float64] = self.rewards - price * self.costs
        return result


class Replay:
    """Serves streams over a scene."""

    def __init__(
        self, pages: Pages, settings: OrchestratorSettings, users: Users, *, seed: int
    ) -> None:
        self.users = users
        self._pages = pages
        self._settings = settings
        self._seed = seed
        self._rewards = np.array([settings.feedback.click, settings.feedback.play])

    def run(self, contender: Contender, stream: Stream, changes: Sequence[Change]) -> Trace:
        """Serve the whole stream; `changes` are in order, the first before request 0.

        A search is in the log at once, its feedback when it arrives: the learner sees both in the
        order in which a real log would have them.
        """
        log = MemoryLog()
        arrivals = Arrivals(log)
        history = HistoryProjection(Path("unused"), log, self._settings.feedback)
        waiting: list[tuple[float, int, Outcome]] = []
        rows: list[tuple[Outcome, float]] = []
        upcoming = deque(changes)
        for number, (index, time) in enumerate(
            zip(stream.questions.tolist(), stream.times.tolist(), strict=True)
        ):
            while upcoming and upcoming[0].at <= number:
                world = upcoming.popleft()
            if records := arrivals.until(time):
                history.apply(records)
                known = []
                while waiting and waiting[0][0] <= time:
                    known.append(heapq.heappop(waiting)[2])
                contender.learn(records, known)
            request = self._request(number, time, world, index, history)
            outcome = self._serve(request, contender.choose(request))
            later = time + self._delay(request)
            arrivals.add(time, _decision_event(outcome, self._pages))
            arrivals.add(later, *_feedback_events(outcome, later))
            heapq.heappush(waiting, (later, number, outcome))
            rows.append((outcome, self.expected(request.question, outcome.page)))
        return self._trace(contender.name, stream, rows)

    def _request(
        self, number: int, time: float, world: Change, index: int, history: HistoryProjection
    ) -> Request:
        asked = world.questions[index]
        request_id = f"r-{self._seed}-{number}"
        query = replace(asked.query, time=time)
        phi = context.features(query, self._pages.generators, history, title=self._pages.title)
        return Request(number, request_id, time, asked, query, phi, world.masked)

    def _delay(self, request: Request) -> float:
        mean = self.users.delay_s
        rng = derive_rng(self._seed, request.request_id, "delay")
        return float(rng.exponential(mean)) if mean else 0.0

    def _serve(self, request: Request, choice: Choice) -> Outcome:
        asked = request.question
        page = self._pages.page(asked, choice.fan_outs)
        rng = derive_rng(self._seed, request.request_id, "user")
        chance = attraction(asked.grades[page.shown], noise=self.users.noise)
        satisfied = rng.random(len(chance)) < chance
        clicks = tuple(
            Click(
                item_id=asked.item_ids[page.shown[place]],
                kind=PLAY if satisfied[place] else CLICK,
                reward=float(self._rewards[int(satisfied[place])]),
                position=place + 1,
            )
            for place in self.users.clicks.draw(chance, rng).tolist()
        )
        return Outcome(request, choice, page, clicks)

    def expected(self, asked: Question, page: Page) -> float:
        """Return the expected reward of a page, the sum capped at 1."""
        chance = attraction(asked.grades[page.shown], noise=self.users.noise)
        clicked = self.users.clicks.probabilities(chance)
        return float(np.minimum(1.0, self._credited(chance, clicked)))

    def most(self, chance: FloatArray) -> FloatArray:
        """Return a bound on the credit of pages, [pages, 10], whose items may yet be reordered.

        Items are sorted by attraction, best first; the bound is not capped at 1.
        """
        return self._credited(chance, self.users.clicks.most(chance))

    def _credited(self, chance: FloatArray, clicked: FloatArray) -> FloatArray:
        worth = (1 - chance) * self._rewards[0] + chance * self._rewards[1]
        discount = np.log2(np.arange(2, 2 + chance.shape[-1]))
        credited: FloatArray = (clicked * worth / discount).sum(axis=-1)
        return credited

    def engaged(self, outcome: Outcome) -> float:
        """Return the share of the full pull's expected engagement that the plan's lists hold.

        Only wanted items count; 1 if calling everybody would show none of them either.
        """
        asked = outcome.request.question
        top = self._settings.plan.fan_outs[-1]
        shown = self._pages.page(asked, (top,) * len(self._pages.generators)).shown
        chance = attraction(asked.grades[shown], noise=self.users.noise)
        worth = self.users.clicks.probabilities(chance) * (asked.grades[shown] > 0)
        if not worth.any():
            return 1.0
        found = asked.fan_out_ranks(outcome.choice.fan_outs)[:, shown].any(axis=0)
        return float(worth[found].sum() / worth.sum())

    def _trace(self, name: str, stream: Stream, rows: Sequence[tuple[Outcome, float]]) -> Trace:
        return Trace(
            contender=name,
            questions=stream.questions,
            fan_outs=np.array([o.choice.fan_outs for o, _ in rows], np.int64),
            costs=np.array([o.choice.cost for o, _ in rows], float),
            rewards=np.array([reward for _, reward in rows]),
            ndcg=np.array([o.page.ndcg for o, _ in rows]),
            covered=np.array([o.page.covered for o, _ in rows]),
            engaged=np.array([self.engaged(o) for o, _ in rows]),
        )


def _decision_event(outcome: Outcome, pages: Pages) -> Event:
    request = outcome.request
    payload = _decision(outcome, pages).SerializeToString()
    return Event(LogStream.DECISIONS, request.request_id, payload, request.time)


def _feedback_events(outcome: Outcome, time: float) -> list[Event]:
    name = outcome.request.request_id
    return [feedback_event(name, click.item_id, click.kind, time) for click in outcome.clicks]


def _decision(outcome: Outcome, pages: Pages) -> decision_pb2.Decision:
    """Return the record without the parts that nobody reads here: features and later results."""
    request, choice = outcome.request, outcome.choice
    asked = request.question
    ranks = asked.fan_out_ranks(choice.fan_outs)
    place_of = {asked.item_ids[place]: place for place in outcome.page.shown.tolist()}
    return decision_pb2.Decision(
        request_id=request.request_id,
        time=wire.timestamp(request.time),
        query=_slim_query(request.query),
        plan=to_message(choice.planned, 0) if choice.planned else None,
        outcomes=[
            plan_pb2.GeneratorOutcome(
                generator=name,
                fan_out=k,
                returned=int((ranks[g] > 0).sum()),
                status=plan_pb2.OUTCOME_STATUS_ANSWERED,
            )
            for g, (name, k) in enumerate(zip(pages.generators, choice.fan_outs, strict=True))
            if k
        ],
        displayed=[
            decision_pb2.DisplayedItem(
                item_id=click.item_id,
                position=click.position,
                provenance=[
                    candidate_pb2.Provenance(
                        generator=name, rank=int(ranks[g, place_of[click.item_id]])
                    )
                    for g, name in enumerate(pages.generators)
                    if ranks[g, place_of[click.item_id]]
                ],
            )
            for click in outcome.clicks
        ],
    )


def _slim_query(query: Query) -> query_pb2.Query:
    message = wire.query_to_proto(query)
    del message.interpretations[:]
    return message
