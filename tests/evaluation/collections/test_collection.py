import math
from dataclasses import replace

import pytest

from evaluation.collections import Collection, Topic
from evaluation.collections.files import schema
from forage.catalog import Item, Value
from forage.errors import InvalidArgumentError

ITEMS = tuple(Item(f"d{n}", "document", {"title": (Value(f"Title {n}"),)}) for n in range(3))
TOPICS = (Topic("q1", "first words"), Topic("q2", "other words"))
JUDGMENTS = {"q1": {"d0": 2, "d1": 0}, "q2": {"d2": 1}}


def collection(**changes):
    content = {"items": ITEMS, "topics": TOPICS, "judgments": JUDGMENTS, **changes}
    return Collection("small", schema("documents"), **content)


def test_a_sound_collection_knows_its_relevant_items() -> None:
    found = collection()

    assert found.relevant(TOPICS[0]) == {"d0"}
    assert found.by_id["d2"] is ITEMS[2]


def test_a_part_of_a_collection_has_the_judgments_of_its_topics_only() -> None:
    part = collection().of(TOPICS[1:])

    assert part.topics == TOPICS[1:]
    assert part.judgments == {"q2": {"d2": 1}}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"items": ()}, "items"),
        ({"topics": ()}, "topics"),
        ({"judgments": {}}, "topics[0]"),
        ({"judgments": {**JUDGMENTS, "q2": {"d2": 0}}}, "topics[1]"),
        ({"judgments": {**JUDGMENTS, "q9": {"d2": 1}}}, "judgments['q9']"),
        ({"judgments": {**JUDGMENTS, "q2": {"d9": 1}}}, "judgments['q2']['d9']"),
        ({"judgments": {**JUDGMENTS, "q2": {"d2": -1}}}, "judgments['q2']['d2']"),
        ({"judgments": {**JUDGMENTS, "q2": {"d2": math.nan}}}, "judgments['q2']['d2']"),
        ({"judgments": {**JUDGMENTS, "q2": {"d2": 0.5}}}, "judgments['q2']['d2']"),
        ({"topics": (*TOPICS, Topic("q1", "again"))}, "topics[2].query_id"),
        ({"topics": (Topic("q1", " -- "), TOPICS[1])}, "topics[0].text"),
        ({"topics": (replace(TOPICS[0], time=math.inf), TOPICS[1])}, "topics[0].time"),
        ({"items": (*ITEMS, ITEMS[0])}, "items[3].item_id"),
        ({"items": (*ITEMS, Item("d3", "film"))}, "items[3].kind"),
    ],
)
def test_what_does_not_belong_together_is_refused_naming_the_field(changes, field) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        collection(**changes)

    assert caught.value.field == field


def test_a_user_with_a_history_needs_no_words() -> None:
    topics = (Topic("q1", "", history=("d1",)), TOPICS[1])

    assert collection(topics=topics).topics[0].text == ""
