"""A few songs and the films of the tests, and what understanding reads of them."""

from __future__ import annotations

from forage.catalog import Item, Schema
from forage.catalog.item import Value
from forage.retrieval import Interpretation, Query
from forage.testing import catalog
from orchestrator.understanding import Gazetteer, Understanding, UnderstandingSettings

SONGS = Schema.model_validate(
    {
        "name": "songs",
        "kinds": ["song", "artist", "playlist"],
        "attributes": {
            "title": {"roles": ["text"]},
            "artist": {"roles": ["text", "keyword", "entity"], "kind": "artist"},
            "genre": {"roles": ["keyword"]},
            "year": {"roles": ["number"]},
            "popularity": {"roles": ["popularity"]},
        },
    }
)


def song(item_id: str, title: str, artist: str, genre: str, year: float, popularity: float) -> Item:
    attributes = {
        "title": (Value(title),),
        "artist": (Value(artist.title(), 1.0, f"artist:{artist}"),),
        "genre": (Value(genre),),
        "year": (Value(year),),
        "popularity": (Value(popularity),),
    }
    return Item(item_id, "song", attributes)


def artist(name: str, popularity: float) -> Item:
    attributes = {"title": (Value(name.title()),), "popularity": (Value(popularity),)}
    return Item(f"artist:{name}", "artist", attributes)


MUSIC = (
    artist("taylor swift", 0.95),
    artist("taylor dayne", 0.2),
    artist("courtney love", 0.3),
    artist("adele", 0.9),
    song("song:love-story", "Love Story", "taylor swift", "Country", 2008.0, 0.9),
    song("song:love", "Love", "courtney love", "Rock", 1994.0, 0.4),
    song("song:hello", "Hello", "adele", "Soul", 2015.0, 0.9),
    song("song:tailor", "The Tailor", "taylor dayne", "Love", 1988.0, 0.1),
    Item("playlist:love", "playlist", {"title": (Value("Love"),), "popularity": (Value(0.6),)}),
)


def reader(items=MUSIC, schema=SONGS) -> Understanding:
    gazetteer = Gazetteer(schema)
    for item in items:
        gazetteer.upsert(item)
    return Understanding(schema, gazetteer, UnderstandingSettings())


MUSICAL = reader()
FILMS = reader(catalog.items(), catalog.SCHEMA)


def understood(text: str, by: Understanding = MUSICAL, **fields) -> Query:
    return by.understand(text, time=0.0, request_id="r", seed=1, **fields)


def slots(reading: Interpretation) -> set[tuple[str, str]]:
    return {(slot.attribute, slot.value) for slot in reading.slots}
