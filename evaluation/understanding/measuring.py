"""All that is measured of query understanding, over the film and the music catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.collections import catalogue
from evaluation.collections.collection import Collection
from evaluation.understanding.slots import SlotReport, score_slots
from evaluation.understanding.spelling import SpellingReport, score_spelling
from evaluation.understanding.utterances import GoldSlot, Utterance, snips, trivia
from forage.catalog import Item, Schema
from orchestrator.settings import OrchestratorSettings
from orchestrator.understanding import Gazetteer, Understanding

_TRIVIA = {
    "Actor": frozenset({"cast"}),
    "Director": frozenset({"director"}),
    "Genre": frozenset({"genre"}),
    "Year": frozenset({"year"}),
}
_PEOPLE = frozenset({"cast", "director", "writer", "title"})


@dataclass(frozen=True, slots=True)
class UnderstandingReport:
    """Slots and spelling, collection by collection."""

    slots: tuple[SlotReport, ...]
    spelling: tuple[SpellingReport, ...]


def read(items: Iterable[Item], schema: Schema) -> tuple[Understanding, Gazetteer]:
    """Return the orchestrator's understanding of this catalogue, with its default settings."""
    gazetteer = Gazetteer(schema)
    for item in items:
        gazetteer.upsert(item)
    settings = OrchestratorSettings.model_fields["understanding"].get_default(
        call_default_factory=True
    )
    return Understanding(schema, gazetteer, settings), gazetteer


def measure(data: Path, *, most: int = 2_000, seed: int = 0) -> UnderstandingReport:
    """Measure on at most `most` utterances of each source, the first ones of its file."""
    films = catalogue.load("titles")
    music = catalogue.load("music")
    return UnderstandingReport(
        slots=(*_films(films, data, most, seed), _music(music, data, most, seed)),
        spelling=(
            _spelling(films, "person", "film people", seed),
            _spelling(films, "film", "film titles", seed),
            _spelling(music, "artist", "music artists", seed),
        ),
    )


def _films(films: Collection, data: Path, most: int, seed: int) -> list[SlotReport]:
    understanding, gazetteer = read(films.items, films.schema)
    asked = trivia(data)[:most]
    people = [_as(u, {"Actor": "Person", "Director": "Person"}) for u in asked]
    movies = [
        u
        for u in snips(data, "SearchScreeningEvent")
        if any(s.kind == "movie_name" for s in u.slots)
    ][:most]
    title = films.schema.title
    return [
        score_slots(
            "MIT trivia, as the role asked for",
            asked,
            understanding,
            gazetteer,
            attributes=_TRIVIA,
            title=title,
            seed=seed,
        ),
        score_slots(
            "MIT trivia, people in any role",
            people,
            understanding,
            gazetteer,
            attributes={"Person": _PEOPLE},
            title=title,
            seed=seed,
        ),
        score_slots(
            "SNIPS screening events",
            movies,
            understanding,
            gazetteer,
            attributes={"movie_name": frozenset({title})},
            title=title,
            titles=frozenset({"movie_name"}),
            seed=seed,
        ),
    ]


def _music(music: Collection, data: Path, most: int, seed: int) -> SlotReport:
    understanding, gazetteer = read(music.items, music.schema)
    asked = [u for u in snips(data, "PlayMusic") if any(s.kind == "artist" for s in u.slots)]
    title = music.schema.title
    return score_slots(
        "SNIPS play music",
        asked[:most],
        understanding,
        gazetteer,
        attributes={"artist": frozenset({title})},
        title=title,
        titles=frozenset({"artist"}),
        seed=seed,
    )


def _as(utterance: Utterance, kinds: dict[str, str]) -> Utterance:
    slots: Sequence[GoldSlot] = [
        GoldSlot(kinds.get(s.kind, s.kind), s.tokens) for s in utterance.slots
    ]
    return Utterance(utterance.query_id, utterance.text, tuple(slots))


def _spelling(collection: Collection, kind: str, what: str, seed: int) -> SpellingReport:
    understanding, _ = read(collection.items, collection.schema)
    title = collection.schema.title
    names = [n for item in collection.items if item.kind == kind for n in item.texts(title)]
    return score_spelling(what, names, understanding, seed=seed)
