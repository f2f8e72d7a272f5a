"""The film catalogue of the simulation: the demo's films with descriptions where they are known.

The demo's films have no plots, and a theme can only be looked for where something describes it.
Leads of Wikipedia articles (CC BY-SA, read at run time from the judged data) fill the gap for
about half of the films, as an extra attribute `overview`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import yaml

from evaluation.collections.files import first_of, objects_of
from forage.catalog.demo import demo_items
from forage.catalog.item import Item, Value
from forage.catalog.schema import Schema

_SCHEMA = Path(__file__).resolve().parents[2] / "config" / "films.schema.yaml"
_OVERVIEW = {"roles": ["text", "embed"], "boost": 0.5}


def film_schema() -> Schema:
    """Return the demo's schema with the attribute `overview`."""
    content = yaml.safe_load(_SCHEMA.read_text(encoding="utf-8"))
    content["attributes"]["overview"] = _OVERVIEW
    return Schema.model_validate(content)


def film_items(data: Path) -> list[Item]:
    """Return films, people, genres, studios and countries; raises `StartupError` without data."""
    extracts = _extracts(first_of(data / "wikipedia_movie_extracts", "movies.jsonl"))
    return [_described(item, extracts) if item.kind == "film" else item for item in demo_items()]


def _extracts(path: Path) -> dict[tuple[str, int], str]:
    return {
        (_key(str(row["title"])), int(row["year"])): str(row["extract"])
        for _, row in objects_of(path)
        if row["extract"]
    }


def _described(film: Item, extracts: dict[tuple[str, int], str]) -> Item:
    key, year = _key(film.texts("title")[0]), int(film.number("year") or 0)
    for known in (year, year - 1, year + 1):
        if (key, known) in extracts:
            overview = (Value(extracts[key, known]),)
            return replace(film, attributes={**film.attributes, "overview": overview})
    return film


def _key(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", title.casefold())
