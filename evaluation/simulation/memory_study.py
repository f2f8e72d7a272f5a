"""How the memory index learns: predicted before anything is seen, then displaced by what is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.collections.collection import Topic
from evaluation.simulation.clicks import PositionBased
from evaluation.simulation.warm_up import NOW, Scene, feedback_event, understand
from evaluation.simulation.world import World
from forage import wire
from forage.log import Event, Stream
from forage.retrieval import Query
from forage.v1 import decision_pb2

_LOOKUPS = ("title", "misspelt", "partial")
_DECOY, _WANTED = 0.15, 0.6


@dataclass(frozen=True, slots=True)
class Predicted:
    """What predicted queries alone find; an empty index finds nothing at all."""

    needs: int
    found: float
    """Share of look-ups whose item is among the first ten."""
    reciprocal_rank: float


@dataclass(frozen=True, slots=True)
class Learned:
    """How soon memory puts the clicked item first although it was always shown last."""

    queries: int
    first: float
    """Share of queries where it got there within the searches allowed."""
    searches: tuple[float, ...]
    """Searches until it was first, of those that got there."""
    clicks: tuple[float, ...]
    """Clicks on it until then."""
    displaced: float
    """Share of queries with a prediction at the top where the observed item replaced it."""


def predicted(world: World, topics: Sequence[Topic], wanted: dict[str, set[str]]) -> Predicted:
    """Look every title up in a memory that nobody has used."""
    ranks = []
    for topic in topics:
        if topic.kind in _LOOKUPS:
            hits = world.retrieve(understand(world, topic, NOW), {"memory": 100})["memory"].hits
            found = [r for r, h in enumerate(hits, 1) if h.item_id in wanted[topic.query_id]]
            ranks.append(found[0] if found else np.inf)
    placed = np.array(ranks)
    return Predicted(len(placed), float((placed <= 10).mean()), float((1 / placed).mean()))


def learn(
    world: World, scene: Scene, *, queries: int, most_searches: int, start: float, seed: int
) -> Learned:
    """Let position-biased users repeat queries whose wanted item is shown at the tenth place.

    All queries advance together, so that feeding the log is done once per round.
    """
    rng = np.random.default_rng(seed)
    able = [q for q in scene.questions if q.query.normalized and len(q.item_ids) >= 20]
    chosen = [able[i] for i in rng.permutation(len(able))[:queries]]
    users = PositionBased()
    pages: list[list[str]] = []
    predictions = []
    for question in chosen:
        hits = world.retrieve(replace(question.query, time=start), {"memory": 100})["memory"].hits
        top = [hit.item_id for hit in hits][:1]
        others = [i for i in question.item_ids if i not in top]
        drawn = [others[i] for i in rng.permutation(len(others))[:9]]
        pages.append([*top, *drawn][:10])
        predictions.append(bool(top))
    clicks = np.zeros(len(chosen), np.int64)
    searches = np.full(len(chosen), np.inf)
    for number in range(1, most_searches + 1):
        time = start + number * 60.0
        events: list[Event] = []
        open_ = np.flatnonzero(np.isinf(searches)).tolist()
        for place in open_:
            chance = np.full(len(pages[place]), _DECOY)
            chance[-1] = _WANTED
            clicked = users.draw(chance, rng).tolist()
            clicks[place] += len(pages[place]) - 1 in clicked
            query = replace(chosen[place].query, time=time)
            name = f"memory-{seed}-{place}-{number}"
            events += search_events(name, query, pages[place], clicked, time)
        world.append(events)
        for place in open_:
            query = replace(chosen[place].query, time=time + 1)
            hits = world.retrieve(query, {"memory": 10})["memory"].hits
            if hits and hits[0].item_id == pages[place][-1]:
                searches[place] = number
        if not np.isinf(searches).any():
            break
    done = np.isfinite(searches)
    known = np.array(predictions)
    return Learned(
        queries=len(chosen),
        first=float(done.mean()),
        searches=tuple(searches[done].tolist()),
        clicks=tuple(clicks[done].astype(float).tolist()),
        displaced=float(done[known].mean()) if known.any() else 0.0,
    )


def search_events(
    name: str, query: Query, page: Sequence[str], clicked: Sequence[int], time: float
) -> list[Event]:
    """Return the log events of a search and of plays at some places (from 0) of its page."""
    decision = decision_pb2.Decision(
        request_id=name,
        time=wire.timestamp(time),
        query=wire.query_to_proto(query),
        displayed=[
            decision_pb2.DisplayedItem(item_id=item_id, position=position)
            for position, item_id in enumerate(page, 1)
        ],
    )
    shown = Event(Stream.DECISIONS, name, decision.SerializeToString(), time)
    return [shown, *(feedback_event(name, page[place], "play", time) for place in clicked)]
