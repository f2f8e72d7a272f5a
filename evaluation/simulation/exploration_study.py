"""How fast new items get their first impressions, and what that costs everybody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluation.collections.collection import Collection
from evaluation.simulation import traffic
from evaluation.simulation.memory_study import search_events
from evaluation.simulation.pages import Question, dcg
from evaluation.simulation.warm_up import Scene, WarmUp
from evaluation.simulation.world import World
from forage.catalog.item import Item, Value
from forage.log import Event
from orchestrator.bandit import derive_rng
from orchestrator.fusion import Candidate, Evidence
from orchestrator.slots import EXPLORATION, SLOTS, Placed, given_away, reserve

Floats = NDArray[np.float64]

_FLUSH = 20
_WANTED = 10


@dataclass(frozen=True, slots=True)
class Explored:
    """What reserved slots did for items that nobody had seen."""

    impressions: tuple[int, ...]
    """Per new item, in order of their ids, after all searches."""
    ten: tuple[float, ...]
    """Search at which each got its tenth impression; infinite if it did not."""
    slots: float
    """Slots given away per search."""
    ndcg: Floats
    """nDCG@10 of every search."""
    without: Floats
    """The same searches without reserved slots."""

    @property
    def searches(self) -> int:
        """How many searches there were: all that were allowed, or until every item had ten."""
        return len(self.ndcg)

    @property
    def share(self) -> float:
        """Share of the slots that went to new items."""
        return sum(self.impressions) / max(1.0, self.slots * self.searches)

    @property
    def expected(self) -> float:
        """Searches that S new items need for ten impressions each, if all get equally many.

        10 S / (slots per search x share of the slots that new items get): what arrives last, or is
        relevant to little that is asked, takes longer.
        """
        return _WANTED * len(self.ten) / max(1e-9, self.slots * self.share)


def new_items(collection: Collection, number: int, *, time: float, seed: int) -> list[Item]:
    """Return films like wanted ones (same people and genres), new at `time` and never seen."""
    rng = np.random.default_rng(seed)
    wanted = sorted(
        item_id
        for topic in collection.topics
        if topic.text
        for item_id in collection.judgments[topic.query_id]
    )
    made: dict[str, Item] = {}
    for index in rng.permutation(len(wanted)).tolist():
        film = collection.by_id[wanted[index]]
        if len(made) == number:
            break
        attributes = {
            name: values
            for name, values in film.attributes.items()
            if name not in (collection.schema.popularity, "overview")
        }
        attributes["title"] = (Value(f"{film.texts('title')[0]} Returns"),)
        if collection.schema.freshness:
            attributes[collection.schema.freshness] = (Value(time),)
        item_id = f"film:new-{film.item_id.partition(':')[2]}"
        made[item_id] = Item(item_id, "film", attributes)
    return list(made.values())


def explore(
    world: World,
    scene: Scene,
    warm_up: WarmUp,
    *,
    fresh: Sequence[str],
    searches: int,
    start: float,
    seed: int,
) -> Explored:
    """Serve traffic with the real exploration generator and slots until all have ten impressions.

    At most `searches` are served. Every page is what the static plan shows; as in the planner, a
    search with a slot asks exploration for its smallest list.
    """
    pages = scene.pages(world.settings)
    plan = tuple(world.settings.plan.static.get(g, 0) for g in world.settings.generators)
    arriving = traffic.stream(
        scene.topics(),
        np.ones(len(scene.questions), bool),
        searches,
        start=start,
        mix=warm_up.mix,
        seed=seed,
        order_seed=warm_up.seed,
    )
    shown = dict.fromkeys(fresh, 0)
    tenth = dict.fromkeys(shown, np.inf)
    events: list[Event] = []
    quality: list[tuple[float, float]] = []
    moved = 0
    for number, (index, time) in enumerate(
        zip(arriving.questions.tolist(), arriving.times.tolist(), strict=True)
    ):
        question = scene.questions[index]
        name = f"explore-{seed}-{number}"
        page = [question.item_ids[p] for p in pages.page(question, plan).shown.tolist()]
        mixed = _with_slots(world, question, page, name, time)
        moved += len(set(mixed) - set(page))
        quality.append((_ndcg(question, mixed), _ndcg(question, page)))
        for item_id in set(mixed) & shown.keys():
            shown[item_id] += 1
            if shown[item_id] == _WANTED:
                tenth[item_id] = number + 1
        events += search_events(name, replace(question.query, time=time), mixed, (), time)
        if len(events) >= _FLUSH:
            world.append(events)
            events = []
        if min(shown.values(), default=0) >= _WANTED:
            break
    world.append(events)
    ndcg = np.array(quality)
    return Explored(
        impressions=tuple(shown.values()),
        ten=tuple(tenth.values()),
        slots=moved / len(quality),
        ndcg=ndcg[:, 0],
        without=ndcg[:, 1],
    )


def _with_slots(
    world: World, question: Question, page: list[str], name: str, time: float
) -> list[str]:
    """Return the page after the orchestrator has reserved its slots on it."""
    plan, settings = world.settings.plan, world.settings.slots
    if not given_away(settings, name, plan.seed):
        return page
    rng = derive_rng(plan.seed, name, "generators")
    query = replace(question.query, time=time, request_id=name, seed=int(rng.integers(2**63)))
    hits = world.retrieve(query, {EXPLORATION: plan.fan_outs[1]})[EXPLORATION].hits
    ranked = [Placed(Candidate(item_id), 1.0) for item_id in page]
    for rank, hit in enumerate(hits, 1):
        if hit.item_id not in page:
            proposal = Evidence(rank, EXPLORATION, hit.score)
            ranked.append(Placed(Candidate(hit.item_id, 0.0, [proposal]), 0.0))
    placed = reserve(
        ranked,
        settings,
        page_size=len(page),
        allowed=len(settings.positions),
        rng=derive_rng(plan.seed, name, SLOTS),
    )
    return [p.candidate.item_id for p in placed[: len(page)]]


def _ndcg(question: Question, page: list[str]) -> float:
    places = {item_id: place for place, item_id in enumerate(question.item_ids)}
    grades = [int(question.grades[places[i]]) if i in places else 0 for i in page]
    return dcg(np.array(grades, np.int64)) / question.ideal
