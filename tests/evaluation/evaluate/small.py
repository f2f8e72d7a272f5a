"""A small judged collection over the fixture catalogue, and the mesh over it."""

from evaluation.collections import Collection, Topic
from forage.testing import catalog

TEXTS = (
    "lantern keeper",
    "copper moon",
    "lantern festival",
    "night moon",
    "the keeper",
    "rain",
    "festival night",
    "moon lantern",
)


def collection() -> Collection:
    """Topics whose relevant items have one of the words in their title."""
    items = tuple(catalog.items())
    topics, judgments = [], {}
    for number, text in enumerate(TEXTS):
        words = set(text.split())
        gains = {
            item.item_id: 2 if words <= set(title.split()) else 1
            for item in items
            if (title := " ".join(item.texts("title")).lower()) and words & set(title.split())
        }
        if gains:
            topics.append(Topic(f"q{number}", text))
            judgments[f"q{number}"] = gains
    return Collection("small", catalog.SCHEMA, items, tuple(topics), judgments)
