"""A small invented catalogue that the conformance kits search: 42 items, no real names."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from forage.catalog.item import Item, Value
from forage.catalog.schema import Schema
from forage.log import Event, Stream
from forage.retrieval import Filter
from forage.v1 import item_pb2
from forage.wire import item_to_proto

SCHEMA = Schema.model_validate(
    {
        "name": "fixture",
        "title": "title",
        "kinds": ["film", "person", "genre"],
        "attributes": {
            "title": {"roles": ["text", "embed"], "boost": 3.0},
            "synopsis": {"roles": ["text", "embed"], "boost": 0.5},
            "cast": {
                "roles": ["text", "keyword", "entity", "embed"],
                "boost": 1.5,
                "kind": "person",
            },
            "director": {"roles": ["text", "keyword", "entity"], "kind": "person"},
            "genre": {"roles": ["text", "keyword", "entity", "embed"], "kind": "genre"},
            "language": {"roles": ["keyword"]},
            "mood": {"roles": ["embed"]},
            "year": {"roles": ["number"]},
            "released": {"roles": ["time"]},
            "popularity": {"roles": ["popularity"]},
        },
    }
)

# Title; year; popularity; cast; director; genres with weights; language; synopsis.
_FILMS = (
    ("The Lantern Keeper", 1994, 0.92, "Mara Ellwood, Tobin Achterberg", "Ines Quillfeather",
     "drama", "English", "A lighthouse keeper guards a lantern that remembers every ship"),
    ("Lantern Festival", 2003, 0.41, "Jun Okafor-Lind, Priya Valdane", "Ines Quillfeather",
     "drama, romance:0.6", "Japanese", "Two strangers meet under paper lights"),
    ("Night of the Copper Moon", 1987, 0.77, "Tobin Achterberg, Sefa Morrow", "Dario Velt",
     "horror", "English", "Villagers fear the copper moon and what walks beneath it"),
    ("Copper Moon Rising", 1991, 0.35, "Sefa Morrow", "Dario Velt", "horror, action:0.5",
     "English", "The moon returns, and so do the walkers"),
    ("A Quiet Orbit", 2014, 0.88, "Priya Valdane, Mara Ellwood", "Lena Strand",
     "science fiction", "English", "An astronaut drifts alone and talks to a silent planet"),
    ("Orbit: The Return", 2017, 0.52, "Priya Valdane", "Lena Strand",
     "science fiction, action", "English", "The planet answers"),
    ("Seven Miles of Rain", 1979, 0.64, "Odell Brann", "Hugo Marchetti-Lowe", "western, drama:0.4",
     "English", "A gunslinger crosses a flooded valley to settle a debt"),
    ("Rain Dogs of Valparin", 1999, 0.22, "Odell Brann, Jun Okafor-Lind", "Hugo Marchetti-Lowe",
     "crime", "Spanish", "Smugglers and a stray dog wait for the rain to end"),
    ("The Paper Orchestra", 2008, 0.83, "Mara Ellwood, Jun Okafor-Lind", "Ines Quillfeather",
     "comedy, romance", "French", "Musicians without instruments win a competition"),
    ("Love in the Tin City", 2011, 0.69, "Sefa Morrow, Jun Okafor-Lind", "Amélie Roux",
     "romance", "French", "Two welders in love build a city out of tin"),
    ("Love, Actually Not", 2005, 0.58, "Priya Valdane, Odell Brann", "Amélie Roux",
     "comedy, romance:0.7", "English", "Ten people decide against love"),
    ("The Running Clockmaker", 2001, 0.47, "Tobin Achterberg", "Lena Strand", "action, comedy:0.3",
     "German", "A clockmaker runs against time, which he also repairs"),
    ("Runners", 2016, 0.31, "Kit Sorensen-Hale", "Dario Velt", "action", "English",
     "Couriers race through a city that moves its streets at night"),
    ("Café Nocturne", 1996, 0.55, "Mara Ellwood, Kit Sorensen-Hale", "Amélie Roux",
     "drama, crime:0.5", "French", "Every night the same pianist plays for the same thief"),
    ("The Last Cartographer", 2019, 0.95, "Jun Okafor-Lind, Mara Ellwood", "Lena Strand",
     "adventure, science fiction:0.3", "English", "She maps a country that is not there yet"),
    ("Map of Small Hours", 2010, 0.27, "Kit Sorensen-Hale, Priya Valdane", "Lena Strand",
     "drama", "English", "Insomniacs draw a map of the sleeping town"),
    ("Ghosts Prefer Tuesdays", 2013, 0.61, "Sefa Morrow, Tobin Achterberg", "Ines Quillfeather",
     "comedy, horror:0.6", "English", "A haunted office keeps strict hours"),
    ("Iron Harvest Song", 1983, 0.38, "Odell Brann, Mara Ellwood", "Hugo Marchetti-Lowe",
     "western", "English", "Farmers forge ploughs into rails and sing about it"),
    ("東京の灯", 2012, 0.44, "Jun Okafor-Lind", "Amélie Roux", "romance, drama", "Japanese",
     "Lights of a harbour seen from two windows"),
    ("Winter's Arithmetic", 2020, 0.73, "Kit Sorensen-Hale, Tobin Achterberg", "Dario Velt",
     "crime, drama:0.8", "English", "A teacher counts the days until the thaw, and the suspects"),
)  # fmt: skip


def slug(name: str) -> str:
    """Return a name as part of an item id: lower case, words joined by hyphens."""
    return "-".join(name.lower().replace(",", "").replace(":", "").replace("'", "").split())


def _entities(kind: str, listed: str) -> tuple[Value, ...]:
    values = []
    for entry in listed.split(", "):
        name, _, weight = entry.partition(":")
        values.append(Value(name, float(weight or 1), f"{kind}:{slug(name)}"))
    return tuple(values)


def _film(row: tuple[str, int, float, str, str, str, str, str]) -> Item:
    title, year, popularity, cast, director, genre, language, synopsis = row
    released = datetime(year, 6, 15, tzinfo=UTC).timestamp()
    attributes = {
        "title": (Value(title),),
        "synopsis": (Value(synopsis),),
        "cast": _entities("person", cast),
        "director": _entities("person", director),
        "genre": _entities("genre", genre),
        "language": (Value(language),),
        "year": (Value(float(year)),),
        "released": (Value(released),),
        "popularity": (Value(popularity),),
    }
    return Item(f"film:{slug(title)}", "film", attributes)


def _named(films: Iterable[Item], kind: str, attributes: tuple[str, ...]) -> list[Item]:
    """Return the items that the films name, as popular as the films that name them, on average."""
    popularity: dict[tuple[str, str], list[float]] = {}
    for film in films:
        for attribute in attributes:
            for value in film.values(attribute):
                seen = popularity.setdefault((value.item_id, str(value.value)), [])
                seen.append(film.number("popularity") or 0.0)
    return [
        Item(
            item_id,
            kind,
            {"title": (Value(name),), "popularity": (Value(round(sum(p) / len(p) / 2, 3)),)},
        )
        for (item_id, name), p in sorted(popularity.items())
    ]


def items() -> tuple[Item, ...]:
    """Return the catalogue: 20 films, and the 13 people and 9 genres that they name."""
    films = [_film(row) for row in _FILMS]
    people = _named(films, "person", ("cast", "director"))
    return (*films, *people, *_named(films, "genre", ("genre",)))


def upsert(item: Item, *, time: float = 0.0, schema: Schema = SCHEMA) -> Event:
    """Return the log event that puts an item into the catalogue."""
    record = item_pb2.CatalogRecord(upsert=item_to_proto(item, schema))
    return Event(Stream.CATALOG, item.item_id, record.SerializeToString(), time)


def delete(item_id: str, *, time: float = 0.0) -> Event:
    """Return the log event that takes an item out of the catalogue."""
    record = item_pb2.CatalogRecord(delete_item_id=item_id)
    return Event(Stream.CATALOG, item_id, record.SerializeToString(), time)


FILTERS: dict[str, tuple[Filter, ...]] = {
    "one value": (Filter("genre", ("drama",)),),
    "one of several values, in other case": (Filter("genre", ("COMEDY", "Horror")),),
    "an item id as the value": (Filter("cast", ("person:mara-ellwood",)),),
    "a value that nothing has": (Filter("language", ("Klingon",)),),
    "a kind": (Filter("kind", ("film",)),),
    "several kinds": (Filter("kind", ("person", "genre")),),
    "not a kind": (Filter("kind", ("film",), exclude=True),),
    "not a value": (Filter("language", ("english",), exclude=True),),
    "a closed range": (Filter("year", minimum=1990.0, maximum=2005.0),),
    "a range of one value": (Filter("year", minimum=2014.0, maximum=2014.0),),
    "an open end": (Filter("year", minimum=2010.0),),
    "an open start": (Filter("year", maximum=1999.0),),
    "not in a range": (Filter("year", minimum=1990.0, maximum=2015.0, exclude=True),),
    "a range of times": (Filter("released", minimum=946684800.0, maximum=1420070400.0),),
    "a range of popularity": (Filter("popularity", minimum=0.3),),
    "several at once": (
        Filter("kind", ("film",)),
        Filter("genre", ("drama", "romance", "comedy")),
        Filter("year", minimum=1995.0),
        Filter("language", ("japanese",), exclude=True),
    ),
}
"""Every kind of filter, by what it asks for."""
