"""The gazetteer: what its items make it, whatever came before, and no dearer than it must be."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from forage.catalog import Item
from forage.catalog.item import Value
from forage.text import tokenize
from orchestrator.understanding import Gazetteer, Understanding, UnderstandingSettings
from tests.unit.music_world import MUSIC, SONGS, artist, understood


def test_an_item_that_is_deleted_is_no_longer_read():
    gazetteer = Gazetteer(SONGS)
    by = Understanding(SONGS, gazetteer, UnderstandingSettings())
    for item in MUSIC:
        gazetteer.upsert(item)
    before = understood("hello", by)
    gazetteer.delete("song:hello")
    gazetteer.delete("song:hello")
    gazetteer.delete("song:never-was")

    assert before.interpretations[0].slots[0].item_id == "song:hello"
    assert not understood("hello", by).interpretations


def test_a_renamed_item_is_read_by_its_new_name_only():
    gazetteer = Gazetteer(SONGS)
    by = Understanding(SONGS, gazetteer, UnderstandingSettings())
    gazetteer.upsert(artist("prince", 0.9))
    gazetteer.upsert(
        Item("artist:prince", "artist", {"title": (Value("Symbol"),), "popularity": (Value(0.9),)})
    )

    assert not understood("prince", by).interpretations
    assert understood("symbol", by).interpretations[0].slots[0].item_id == "artist:prince"


def test_corrections_follow_the_names_that_there_are():
    gazetteer = Gazetteer(SONGS)
    gazetteer.upsert(artist("adele", 0.9))

    def corrected(word: str) -> list[str]:
        return [c.word for c in gazetteer.corrections(word, 6)]

    assert corrected("adelle") == corrected("adelle") == ["adele"]
    assert corrected("adel") == ["adele"]
    gazetteer.upsert(artist("odelle", 0.9))
    assert corrected("adelle") == ["adele"], "the first letter may not be wrong"
    gazetteer.upsert(artist("adella", 0.1))
    assert corrected("adelle") == ["adele", "adella"]
    gazetteer.delete("artist:adele")
    assert corrected("adelle") == ["adella"]


QUERIES = ("love", "tayler love", "country", "1994", "1980s", "adele hello", "the tailor", "soul")


@given(st.permutations(range(len(MUSIC))), st.sets(st.integers(0, len(MUSIC) - 1)), st.data())
@settings(max_examples=40)
def test_a_gazetteer_is_what_its_items_make_it_whatever_came_before(order, removed, data):
    rebuilt, lived = Gazetteer(SONGS), Gazetteer(SONGS)
    kept = [item for i, item in enumerate(MUSIC) if i not in removed]
    for item in kept:
        rebuilt.upsert(item)
    for i in order:
        if data.draw(st.booleans()):
            lived.upsert(replace(MUSIC[i], attributes=dict(MUSIC[i - 1].attributes)))
        lived.upsert(MUSIC[i])
    for i in removed:
        lived.delete(MUSIC[i].item_id)

    assert len(lived) == len(rebuilt)
    assert lived.years() == rebuilt.years()
    for text in QUERIES:
        one, other = (
            Understanding(SONGS, g, UnderstandingSettings()).interpret(tokenize(text))
            for g in (lived, rebuilt)
        )
        assert one == other


def test_many_misspelt_words_take_no_longer_than_a_few_corrections():
    rng = random.Random(4)
    middles, ends = ("ara", "onu", "eli"), ("tor", "vin", "dex", "mun")
    names = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in middles for c in ends]
    items = [artist(name, rng.random()) for name in names]
    counted = CountingGazetteer(SONGS)
    for item in items:
        counted.upsert(item)
    by = Understanding(SONGS, counted, UnderstandingSettings())

    understood(" ".join(name[:-2] + name[-1] + name[-2] for name in names), by)

    assert counted.corrected <= 12
    assert counted.looked_up < 10_000


class CountingGazetteer(Gazetteer):
    """Counts what it is asked."""

    def __init__(self, schema):
        super().__init__(schema)
        self.corrected = 0
        self.looked_up = 0

    def corrections(self, word, limit):
        self.corrected += 1
        return super().corrections(word, limit)

    def meanings(self, words):
        self.looked_up += 1
        return super().meanings(words)
