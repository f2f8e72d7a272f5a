"""What a user's history is worth, of MovieLens users whom nothing was learned from.

Against the same needs without a history, and against popularity. The users are those held out of
the training traffic, and those who take no part in the traffic at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.collections.collection import Collection, Topic
from evaluation.simulation.pages import PAGE, Question, dcg
from evaluation.simulation.warm_up import Scene, question, understand
from evaluation.simulation.world import World

KINDS = ("browse", "next")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Personal:
    """nDCG@10 of what each user likes next, one value per user; arrays are aligned."""

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
    strangers: Collection | None,
    *,
    time: float,
) -> Personal:
    """Answer the same needs with the history, without it, and by popularity.

    `strangers` are users who took no part in the traffic; their needs are looked up here.
    """
    pages = scene.pages(world.settings)
    full = (world.settings.plan.fan_outs[-1],) * len(world.settings.generators)
    held_out = [q for q in scene.questions if q.held_out and q.topic.kind in KINDS]
    liked = _likes(collection.topics, {q.topic.user_id for q in held_out})
    nobody = Topic("anonymous", "", kind="browse")
    query = understand(world, nobody, time)
    found = world.retrieve(query, dict.fromkeys(world.settings.generators, full[0]))
    figures: dict[str, list[float]] = {name: [] for name in (*KINDS, "without", "popular")}

    def judge(asked: Question, judgments: Mapping[str, int]) -> None:
        figures[asked.topic.kind].append(pages.page(asked, full).ndcg)
        if asked.topic.kind == "browse":
            blank = question(world, nobody, query, found, judgments, held_out=True)
            figures["without"].append(pages.page(blank, full).ndcg)
            unseen = [i for i in liked if i not in asked.topic.history][:PAGE]
            grades = np.array([judgments.get(item_id, 0) for item_id in unseen], np.int64)
            figures["popular"].append(dcg(grades) / asked.ideal)

    # A user's two needs come one after the other, here and there, so that figures are aligned.
    for asked in held_out:
        judge(asked, collection.judgments[asked.topic.query_id])
    if strangers is not None:
        for topic in strangers.topics:
            own = understand(world, topic, time)
            lists = world.retrieve(own, dict.fromkeys(world.settings.generators, full[0]))
            wanted = strangers.judgments[topic.query_id]
            judge(question(world, topic, own, lists, wanted, held_out=True), wanted)
    return Personal(
        users=len(figures["browse"]),
        with_history={kind: np.array(figures[kind]) for kind in KINDS},
        without_history=np.array(figures["without"]),
        popular=np.array(figures["popular"]),
    )


def _likes(topics: Sequence[Topic], held_out: set[str]) -> list[str]:
    """Return films by how many training users liked them, most first."""
    counts: Counter[str] = Counter()
    for topic in topics:
        if topic.kind == "browse" and topic.user_id not in held_out:
            counts.update(topic.history)
    return [item_id for item_id, _ in sorted(counts.items(), key=lambda e: (-e[1], e[0]))]
