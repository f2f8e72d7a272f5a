"""Laws of near keys and of predicted queries."""

from __future__ import annotations

import random
import string

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rapidfuzz.distance import OSA

from forage.catalog.item import Item, Value
from forage.testing.catalog import SCHEMA, items
from forage.text import normalize, tokenize
from generators.memory.key_index import KeyIndex
from generators.memory.predicted import Predictions
from generators.memory.variants import Variant, variants

WORDS = st.text("ab ", min_size=1, max_size=8)


@given(batches=st.lists(st.tuples(st.sets(WORDS), st.sets(WORDS)), max_size=5), prefix=WORDS)
def test_the_index_holds_what_was_added_and_not_removed(
    batches: list[tuple[set[str], set[str]]], prefix: str
) -> None:
    index, held = KeyIndex(), set[str]()
    for added, removed in batches:
        new, gone = added - held, (removed & held) - added
        index.update(added=new, removed=gone)
        held = (held | new) - gone

    assert len(index) == len(held)
    wanted = sorted(k for k in held if k.startswith(prefix) and k != prefix)
    assert index.completions(prefix, 100) == wanted


def test_many_changes_at_once_are_as_good_as_one_by_one() -> None:
    rng = random.Random(3)
    keys = {"".join(rng.choices(string.ascii_lowercase, k=6)) for _ in range(600)}
    gone = set(sorted(keys)[:300])
    at_once, singly = KeyIndex(), KeyIndex()

    at_once.update(added=keys, removed=())
    at_once.update(added=(), removed=gone)
    for key in keys:
        singly.update(added=[key], removed=[])
    for key in gone:
        singly.update(added=[], removed=[key])

    for key in sorted(keys)[290:310]:
        assert at_once.misspelt(key, 5) == singly.misspelt(key, 5)
        assert at_once.completions(key[:2], 50) == singly.completions(key[:2], 50)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tom hnaks", "tom hanks"),
        ("tm hanks", "tom hanks"),
        ("tomm hanks", "tom hanks"),
        ("forest gump", "forrest gump"),
        ("heet", "heat"),
        ("schindlers lst", "schindlers list"),
    ],
)
def test_one_typing_error_is_forgiven(typed: str, meant: str) -> None:
    index = KeyIndex()
    index.update(
        added=["tom hanks", "tom hardy", "forrest gump", "heat", "schindlers list"], removed=()
    )

    assert index.misspelt(typed, 3)[0] == (meant, OSA.distance(typed, meant))


@pytest.mark.parametrize("typed", ["rocky 3", "cat", "xylophone"])
def test_other_things_are_not_misspellings(typed: str) -> None:
    index = KeyIndex()
    index.update(added=["rocky 2", "car", "telephone"], removed=())

    assert index.misspelt(typed, 3) == []


@given(st.text(max_size=30))
@example("ŉ")
@example("＇n™ don’t")
def test_normalizing_twice_changes_nothing(text: str) -> None:
    once = normalize(text)

    assert normalize(once) == once
    assert once == " ".join(tokenize(text))


def predicted(predictions: Predictions, key: str) -> dict[tuple[int, str], float]:
    indices, fields, chances = predictions.find([key])
    return {
        (int(i), predictions.fields[f]): float(c)
        for i, f, c in zip(indices, fields, chances, strict=True)
    }


def test_a_title_predicts_itself_and_its_short_forms() -> None:
    predictions = Predictions(SCHEMA)
    predictions.add(Item("a", "film", {"title": (Value("The Lantern: A Tale (1990)"),)}), 7)

    found = {k: predicted(predictions, k) for k in ("the lantern a tale 1990", "lantern")}

    assert found["the lantern a tale 1990"] == {(7, "title"): pytest.approx(0.6, abs=0.01)}
    assert found["lantern"] == {(7, "title"): pytest.approx(0.5, abs=0.01)}
    assert "the lantern" in predictions
    assert "tale" not in predictions


def test_a_weak_or_predicted_value_predicts_less() -> None:
    predictions = Predictions(SCHEMA)
    genres = (Value("Drama"), Value("Comedy", 0.4), Value("Crime", predicted=True))
    predictions.add(Item("a", "film", {"genre": genres}), 0)

    chances = [predicted(predictions, k)[0, "genre"] for k in ("drama", "comedy", "crime")]

    assert chances == pytest.approx([0.25, 0.1, 0.15], abs=0.005)


def test_an_item_taken_back_leaves_nothing() -> None:
    predictions = Predictions(SCHEMA)
    catalog = items()
    new = [key for index, item in enumerate(catalog) for key in predictions.add(item, index)]

    gone = [key for index, item in enumerate(catalog) for key in predictions.discard(item, index)]

    assert len(predictions) == 0
    assert sorted(new) == sorted(gone)
    assert len(set(new)) == len(new)
    assert predictions.find(new)[0].size == 0


def test_one_key_can_name_an_item_in_two_roles() -> None:
    predictions = Predictions(SCHEMA)
    item = Item("a", "film", {"cast": (Value("Jo Fox"),), "director": (Value("Jo Fox"),)})
    predictions.add(item, 3)

    assert set(predicted(predictions, "jo fox")) == {(3, "cast"), (3, "director")}


def test_kind_words_order_and_misspellings_make_variants() -> None:
    index = KeyIndex()
    index.update(added=["tom hanks", "the heat", "heat"], removed=())
    known = {"tom hanks", "the heat", "heat"}.__contains__

    def made(text: str) -> list[Variant]:
        return list(variants(text.split(), known=known, indexes=[index], kinds=["film", "country"]))

    assert made("tom hanks films")[0] == Variant(("tom hanks",), 0.95, ("film",))
    assert made("hanks tom") == [Variant(("tom hanks",), 0.9)]
    assert made("the heat") == [Variant(("heat",), 0.9)]
    assert made("tom hnaks") == [Variant(("tom hanks",), 0.8)]
    assert made("tom h") == [Variant(("tom hanks",), 0.5)]
    assert made("tom hanks") == []
    assert made("x" * 1000) == made("") == []


def test_chances_survive_packing() -> None:
    predictions = Predictions(SCHEMA)
    for index in range(300):
        predictions.add(Item(f"i{index}", "film", {"genre": (Value("Drama", 0.5),)}), index)

    indices, fields, chances = predictions.find(["drama"])

    assert sorted(indices.tolist()) == list(range(300))
    assert {predictions.fields[f] for f in fields.tolist()} == {"genre"}
    assert np.all(np.abs(chances - 0.125) < 1 / 255)
