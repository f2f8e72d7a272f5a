"""MovieLens users over the demo catalogue: what does a person who liked these watch next?"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from evaluation.collections.collection import Collection, Topic
from evaluation.collections.files import first_of, rows_of, schema
from evaluation.collections.films import film_ids
from forage.catalog.demo import demo_items

LIKED = 4.0
"""Ratings from here, of 5, count as engagement."""


def load(data: Path, *, per_user: int = 5, least_history: int = 5) -> Collection:
    """Return up to `per_user` topics of each user: their last liked films, one by one.

    A topic has no words: only the user, the films liked before it, latest first, and its time.
    The film liked next is the one relevant item. Users with too little history are left out.
    """
    items = tuple(demo_items())
    films = film_ids(data, items, "movieId")
    liked: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for row in rows_of(first_of(data / "movielens_small", "ratings.csv")):
        if float(row["rating"]) >= LIKED and row["movieId"] in films:
            liked[row["userId"]].append((float(row["timestamp"]), films[row["movieId"]]))
    topics: list[Topic] = []
    judgments: dict[str, dict[str, int]] = {}
    for user, events in liked.items():
        events.sort()
        for place in range(max(least_history, len(events) - per_user), len(events)):
            time, film = events[place]
            query_id = f"user:{user}:{place}"
            history = tuple(seen for _, seen in reversed(events[:place]))
            topics.append(
                Topic(query_id, "", user_id=user, history=history, time=time, kind="next-item")
            )
            judgments[query_id] = {film: 1}
    users = len({topic.user_id for topic in topics})
    return Collection(
        name="movielens",
        schema=schema("films"),
        items=items,
        topics=tuple(topics),
        judgments=judgments,
        note=f"{users} users with more than {least_history} films liked; ratings made within one"
        " second are ordered by film",
    )
