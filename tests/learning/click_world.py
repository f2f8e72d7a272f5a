"""A world of users who click by a known model, and logs of what they did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from forage import wire
from forage.log import Event, EventLog, Stream
from forage.testing import interactions
from forage.v1 import decision_pb2, query_pb2
from ranker.settings import RankerSettings

NAMES = ("fusion.score", "habit", "text", "taste", "noise", "position")
DECAY = 1.0
SHOWN = 10
START = 1.7e9


class World:
    """Users who click by the position-based model; their wishes are `text` and `taste`.

    The production order follows `habit`, which nobody wants, plus noise.
    """

    def __init__(self, seed: int, candidates: int = 24) -> None:
        self.rng = np.random.default_rng(seed)
        self.candidates = candidates

    def features(self) -> np.ndarray:
        rows = self.rng.normal(size=(self.candidates, len(NAMES))).astype(np.float32)
        rows[:, 0] = rows[:, 1] + 0.5 * rows[:, 2] + self.rng.normal(size=len(rows))
        rows[:, 5] = 1.0
        return rows[np.argsort(-rows[:, 0])]

    @staticmethod
    def relevance(rows: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(2.5 - 1.5 * rows[:, 2] - 1.5 * rows[:, 3]))

    def decide(self, request_id: str, time: float, *, exploration: bool = False) -> list[Event]:
        rows = self.features()
        if exploration:
            rows = self.rng.permutation(rows)
        decision = decision_pb2.Decision(
            request_id=request_id,
            time=wire.timestamp(time),
            query=query_pb2.Query(query_class=query_pb2.QUERY_CLASS_TOPICAL),
            feature_names=NAMES,
            feature_version="v1",
        )
        for place, row in enumerate(rows):
            page = decision.displayed if place < SHOWN else decision.later
            page.add(
                item_id=f"item:{place}",
                position=place + 1,
                features=row.tolist(),
                exploration_propensity=0.5 if exploration else 0.0,
            )
        events = [Event(Stream.DECISIONS, request_id, decision.SerializeToString(), time)]
        examined = self.rng.random(SHOWN) < np.arange(1, SHOWN + 1) ** -DECAY
        clicked = examined & (self.rng.random(SHOWN) < self.relevance(rows[:SHOWN]))
        events += [
            feedback(request_id, f"item:{place}", time + 1) for place in np.flatnonzero(clicked)
        ]
        return events

    def ndcg(self, score: Callable[[np.ndarray], np.ndarray], searches: int = 200) -> float:
        """Return the mean nDCG@10 by true relevance on fresh searches."""
        values = []
        discount = 1 / np.log2(2 + np.arange(10))
        for _ in range(searches):
            rows = self.features()
            gains = self.relevance(rows)
            ranked = gains[np.argsort(-score(rows), kind="stable")][:10]
            values.append(ranked @ discount / (np.sort(gains)[::-1][:10] @ discount))
        return float(np.mean(values))


def feedback(request_id: str, item_id: str, time: float, kind: str = "CLICK") -> Event:
    event_id = f"{request_id}/{item_id}/{kind}"
    return interactions.feedback(event_id, request_id, item_id, time=time, kind=kind)


def fill(log: EventLog, searches: int, *, seed: int = 0, exploration: bool = False) -> None:
    world = World(seed)
    events = []
    for index in range(searches):
        request_id = f"{seed}-{index:06d}"
        events += world.decide(request_id, START + 60 * index, exploration=exploration)
    log.append(events)


def settings(**training: object) -> RankerSettings:
    return RankerSettings.model_validate(
        {
            "feedback": {"examination_decay": DECAY},
            "training": {
                "min_decisions": 100,
                "bootstrap_samples": 200,
                "boosting": {"trees": 60, "depth": 4, "threads": 1},
                **training,
            },
        }
    )
