"""What a user's history is worth: held-out MovieLens users against no history and popularity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluation.collections.collection import Collection, Topic
from evaluation.simulation.pages import PAGE, dcg
from evaluation.simulation.warm_up import Scene, question, understand
from evaluation.simulation.world import World

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Personal:
    """nDCG@10 of what each user likes next, one value per held-out user; arrays are aligned."""

    users: int
    with_history: Mapping[str, Floats]
    """By kind of need: browsing, and wanting more like the last film."""
    without_history: Floats
    popular: Floats
    """The films that the training users liked most, less those the user has seen."""


def personalise(
    world: World,
    scene: Scene,
    collection: Collection,
    *,
    time: float,
) -> Personal:
    """Answer the same needs with the history, without it, and by popularity."""
    pages = scene.pages(world.settings)
    full = (world.settings.plan.fan_outs[-1],) * len(world.settings.generators)
    browse = [q for q in scene.questions if q.held_out and q.topic.kind == "browse"]
    following = {q.topic.user_id: q for q in scene.questions if q.topic.kind == "next"}
    liked = _likes(collection.topics, {q.topic.user_id for q in browse})
    without, popular = [], []
    nobody = Topic("anonymous", "", kind="browse")
    query = understand(world, nobody, time)
    found = world.retrieve(query, dict.fromkeys(world.settings.generators, full[0]))
    for asked in browse:
        judgments = collection.judgments[asked.topic.query_id]
        blank = question(world, nobody, query, found, judgments, held_out=True)
        without.append(pages.page(replace(blank, pages={}), full).ndcg)
        unseen = [i for i in liked if i not in asked.topic.history][:PAGE]
        grades = np.array([judgments.get(item_id, 0) for item_id in unseen], np.int64)
        popular.append(dcg(grades) / asked.ideal)
    return Personal(
        users=len(browse),
        with_history={
            "browse": np.array([pages.page(q, full).ndcg for q in browse]),
            "next": np.array([pages.page(following[q.topic.user_id], full).ndcg for q in browse]),
        },
        without_history=np.array(without),
        popular=np.array(popular),
    )


def _likes(topics: Sequence[Topic], held_out: set[str]) -> list[str]:
    """Return films by how many training users liked them, most first."""
    counts: Counter[str] = Counter()
    for topic in topics:
        if topic.kind == "browse" and topic.user_id not in held_out:
            counts.update(topic.history)
    return [item_id for item_id, _ in sorted(counts.items(), key=lambda e: (-e[1], e[0]))]
