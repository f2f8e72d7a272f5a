"""What the mesh finds for every topic, once: all that is compared afterwards sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from evaluation.collections.collection import Topic
from evaluation.mesh import GENERATORS, Mesh
from forage.retrieval import Hit, Query

FAN_OUT = 100
"""The depth of the lists, and the largest fan-out of a plan."""
Plan = Mapping[str, int]
"""The fan-out of every generator that is called; others are not."""
EVERYTHING: Plan = dict.fromkeys(GENERATORS, FAN_OUT)


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for one topic, at the largest fan-out."""

    topic: Topic
    query: Query
    hits: Mapping[str, Sequence[Hit]]
    seconds: Mapping[str, float]

    def lists(self, plan: Plan) -> dict[str, Sequence[Hit]]:
        """Return the lists that a plan would have got: a smaller fan-out gives a prefix."""
        return {name: self.hits[name][:fan_out] for name, fan_out in plan.items() if fan_out}

    def candidates(self, plan: Plan) -> int:
        """Return how many hits a plan gets in all, over its lists."""
        return sum(len(found) for found in self.lists(plan).values())

    def milliseconds(self, plan: Plan) -> float:
        """Return what the called generators took, one after the other, at the largest fan-out."""
        return 1_000 * sum(self.seconds[name] for name, fan_out in plan.items() if fan_out)


class Recording:
    """What was found for all topics of a collection, by query id."""

    def __init__(self, found: Sequence[Found]) -> None:
        """Keep what was found, in the order of the topics."""
        self.found: Mapping[str, Found] = {f.topic.query_id: f for f in found}

    def __len__(self) -> int:
        return len(self.found)

    def of(self, topics: Sequence[Topic]) -> Iterator[Found]:
        """Yield what was found for these topics, in their order."""
        for topic in topics:
            yield self.found[topic.query_id]


def record(
    mesh: Mesh,
    topics: Sequence[Topic],
    *,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, wanted: None,
) -> Recording:
    """Ask every generator of the mesh for every topic; `progress` is told how many are done."""
    found = []
    for done, topic in enumerate(topics, 1):
        answer = mesh.answer(topic, FAN_OUT, seed=seed)
        found.append(Found(topic, answer.query, answer.hits, answer.seconds))
        progress(done, len(topics))
    return Recording(found)
