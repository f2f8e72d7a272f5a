"""The demo catalogue: real films, and the people, genres, studios and countries behind them.

Read from the file `movies.db` of the package `bokeh-sampledata`, whose rows were rebuilt from
Wikidata in 2026 (CC0). The package is found by path and never imported.
"""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from forage.catalog.demo_entities import ENTITIES, Credits, EntityTable, entity_items, names
from forage.catalog.item import Item, Value
from forage.catalog.popularity import film_popularity
from forage.errors import StartupError

CREDIT = "Wikidata contributors (CC0)"
FILMS = 17_472

_QUERY = """
    SELECT omdb.ID, imdbID, Title, Year, Runtime, Genre, Released, Director, Writer, "Cast",
           Metacritic, Language, Country, Oscars, Reviews, BoxOffice, Production
    FROM omdb LEFT JOIN tomatoes ON tomatoes.ID = omdb.ID
    ORDER BY imdbID, omdb.ID
"""
_COLUMNS = {
    "cast": "Cast",
    "director": "Director",
    "writer": "Writer",
    "genre": "Genre",
    "studio": "Production",
    "country": "Country",
}
_ADVICE = "install it with: pip install 'bokeh-sampledata>=2026.1'"


@dataclass(frozen=True, slots=True)
class Film:
    """One film as the source has it, its lists split."""

    item_id: str
    title: str
    year: int
    runtime: float | None
    metacritic: float | None
    released: float | None
    languages: tuple[str, ...]
    credits: Credits


def demo_items() -> Iterator[Item]:
    """Yield the films, then people, genres, studios and countries, always in the same order.

    Raises `StartupError` if the package is missing or its file is not the expected database.
    """
    films = list(_films())
    tables = {kind: EntityTable(kind, (f.credits for f in films)) for kind in ENTITIES}
    for film in films:
        yield _film_item(film, tables)
    for table in tables.values():
        yield from entity_items(table, tables)


def write_jsonl(items: Iterable[Item], path: Path) -> int:
    """Write items as JSONL that `read_items` reads back equal; return how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for item in items:
            attributes = {name: [_plain(v) for v in vs] for name, vs in item.attributes.items()}
            row = {"item_id": item.item_id, "kind": item.kind, "attributes": attributes}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _plain(value: Value) -> str | float | dict[str, str | float | bool]:
    extra: dict[str, str | float | bool] = {}
    if value.weight != 1:
        extra["weight"] = value.weight
    if value.item_id:
        extra["item_id"] = value.item_id
    if value.predicted:
        extra["predicted"] = True
    return {"value": value.value, **extra} if extra else value.value


def _films() -> Iterator[Film]:
    seen: set[str] = set()
    for row in _rows():
        imdb_id = row["imdbID"]
        # Two cuts of a film may share one IMDb id; the later row gets its own.
        item_id = f"film:{imdb_id}" if imdb_id not in seen else f"film:{imdb_id}-{row['ID']}"
        seen.add(imdb_id)
        yield Film(
            item_id=item_id,
            title=" ".join(row["Title"].split()),
            year=row["Year"],
            runtime=row["Runtime"],
            metacritic=row["Metacritic"],
            released=_seconds(row["Released"]),
            languages=names(row["Language"]),
            credits=Credits(
                {attribute: names(row[column]) for attribute, column in _COLUMNS.items()},
                film_popularity(
                    reviews=row["Reviews"], box_office=row["BoxOffice"], oscars=row["Oscars"]
                ),
            ),
        )


def _rows() -> list[sqlite3.Row]:
    path = _database()
    try:
        database = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            database.row_factory = sqlite3.Row
            rows = database.execute(_QUERY).fetchall()
        finally:
            database.close()
    except sqlite3.Error as error:
        raise StartupError(f"demo catalogue: {path}: {error}; {_ADVICE}") from error
    if len(rows) != FILMS:
        raise StartupError(f"demo catalogue: {path} has {len(rows)} films, not {FILMS}; {_ADVICE}")
    return rows


def _database() -> Path:
    spec = importlib.util.find_spec("bokeh_sampledata")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "_data" / "movies.db"
        if path.is_file():
            return path.resolve()
    raise StartupError(f"demo catalogue: package bokeh-sampledata is missing; {_ADVICE}")


def _seconds(day: str | None) -> float | None:
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() if day else None


def _film_item(film: Film, tables: dict[str, EntityTable]) -> Item:
    attributes: dict[str, tuple[Value, ...]] = {"title": (Value(film.title),)}
    for kind, roles in ENTITIES.items():
        for attribute in roles:
            if values := _weighted(attribute, film.credits.entities[attribute], tables[kind]):
                attributes[attribute] = values
    if film.languages:
        attributes["language"] = tuple(Value(language) for language in film.languages)
    numbers = {
        "year": film.year,
        "runtime": film.runtime,
        "metacritic": film.metacritic,
        "released": film.released,
        "popularity": film.credits.popularity,
    }
    for name, number in numbers.items():
        if number is not None:
            attributes[name] = (Value(float(number)),)
    return Item(film.item_id, "film", attributes)


def _weighted(attribute: str, found: tuple[str, ...], table: EntityTable) -> tuple[Value, ...]:
    """Weigh what the source lists alphabetically, and so without saying what matters most.

    A film that is only a comedy is more of a comedy than one listed under five genres: 1/√n
    each. The best-known of a cast most likely have the leads: from 1 for the best-known to .5
    for the unknown, strongest first. Every other value counts fully.
    """
    if attribute == "genre":
        return tuple(Value(n, round(len(found) ** -0.5, 3), table.item_id(n)) for n in found)
    if attribute != "cast":
        return tuple(Value(n, item_id=table.item_id(n)) for n in found)
    ordered = sorted(found, key=lambda n: (-table.popularity(n), n))
    best = max(map(table.popularity, found), default=0.0) or 1.0
    return tuple(
        Value(n, round(0.5 + 0.5 * table.popularity(n) / best, 1), table.item_id(n))
        for n in ordered
    )
