"""A small invented film catalogue with needs of every kind: the simulation without real data.

Everything is drawn from word lists with a seed, so a default test can run the whole simulation
anywhere in seconds. Nothing measured on it says how good Forage is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from evaluation.collections.collection import Collection, Topic
from evaluation.simulation.films import film_schema
from evaluation.simulation.needs import Need, misspell
from forage.catalog.item import Item, Value

_NOUNS = (
    "lantern",
    "orchard",
    "harbor",
    "comet",
    "river",
    "mirror",
    "winter",
    "garden",
    "engine",
    "falcon",
    "island",
    "letter",
)
_ADJECTIVES = (
    "silent",
    "copper",
    "hidden",
    "broken",
    "golden",
    "distant",
    "crimson",
    "hollow",
    "paper",
    "electric",
)
_FIRST = (
    "mara",
    "tobin",
    "ines",
    "dario",
    "priya",
    "lena",
    "hugo",
    "sefa",
    "odell",
    "jun",
)
_LAST = (
    "ellwood",
    "velt",
    "strand",
    "morrow",
    "valdane",
    "brann",
    "marchetti",
    "lind",
    "quill",
    "achter",
)
_GENRES = (
    "drama",
    "comedy",
    "horror",
    "western",
    "thriller",
    "romance",
)
_THEMES = {
    "a heist goes wrong": "thieves plan to rob a bank and everything fails",
    "lost in space": "astronauts drift far from the planet with little air",
    "growing up": "a teenager spends a summer between school and first love",
    "courtroom battle": "a young lawyer defends an innocent man before a judge",
    "haunted house": "a family moves into a mansion where ghosts walk at night",
    "road trip": "two strangers drive across the country in an old car",
}


def invented_collection(*, films: int = 240, needs: int = 30, seed: int = 1) -> Collection:
    """Return `films` films with their people and genres, and `needs` needs of each kind."""
    rng = np.random.default_rng(seed)
    made = [_film(number, rng) for number in range(films)]
    entities = [*_entities(made, "cast", "person"), *_entities(made, "genre", "genre")]
    topics = list(_needs(made, needs, rng))
    unique = {(t.text, t.user_id, t.kind): (t, wanted) for t, wanted in topics}
    return Collection(
        name="invented_films",
        schema=film_schema(),
        items=(*made, *entities),
        topics=tuple(t for t, _ in unique.values()),
        judgments={t.query_id: wanted for t, wanted in unique.values()},
        note="invented",
    )


def _pick(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _film(number: int, rng: np.random.Generator) -> Item:
    title = f"{_pick(_ADJECTIVES, rng)} {_pick(_NOUNS, rng)} {_pick(_NOUNS, rng)}".title()
    cast = sorted({f"{_pick(_FIRST, rng)} {_pick(_LAST, rng)}".title() for _ in range(2)})
    genre = _pick(_GENRES, rng)
    return Item(
        f"film:{number:04d}",
        "film",
        {
            "title": (Value(title),),
            "overview": (Value(_THEMES[_pick(list(_THEMES), rng)]),),
            "cast": tuple(Value(name, item_id=_slug("person", name)) for name in cast),
            "genre": (Value(genre.title(), item_id=_slug("genre", genre)),),
            "year": (Value(float(rng.integers(1950, 2020))),),
            "popularity": (Value(round(float(rng.random()), 3)),),
        },
    )


def _slug(kind: str, name: str) -> str:
    return f"{kind}:{name.lower().replace(' ', '-')}"


def _entities(films: list[Item], attribute: str, kind: str) -> list[Item]:
    found = {str(v.value): v.item_id for film in films for v in film.values(attribute)}
    return [Item(item_id, kind, {"title": (Value(name),)}) for name, item_id in found.items()]


def _needs(films: list[Item], number: int, rng: np.random.Generator) -> Iterator[Need]:
    for at in range(number):
        film = films[int(rng.integers(len(films)))]
        title, wanted = film.texts("title")[0].lower(), {film.item_id: 4}
        name = film.texts("cast")[0]
        texts = {
            "title": title,
            "misspelt": misspell(title, rng),
            "partial": " ".join(title.split()[:2]),
            "people": f"a film with {name.lower()}",
        }
        for kind, text in texts.items():
            grades = wanted if kind != "people" else _with(films, "cast", name)
            yield Topic(f"{kind}-{at}", text, group=film.item_id, kind=kind), grades
        theme = film.texts("overview")[0]
        words = next(name for name, text in _THEMES.items() if text == theme)
        genre = film.texts("genre")[0]
        both = _with(films, "overview", theme).keys() & _with(films, "genre", genre).keys()
        yield (
            Topic(f"theme-{at}", f"{genre.lower()} {words}", group=f"theme-{at}", kind="theme"),
            dict.fromkeys(sorted(both), 3),
        )
        yield from _user(films, at, rng)


def _user(films: list[Item], number: int, rng: np.random.Generator) -> Iterator[Need]:
    """Yield the needs of a user who likes one genre."""
    genre = _pick(_GENRES, rng).title()
    liked = sorted(_with(films, "genre", genre))
    order = [liked[i] for i in rng.permutation(len(liked))]
    history, ahead = tuple(order[: len(order) // 2][:10]), order[len(order) // 2 :][:10]
    user = f"user-{number}"
    for kind in ("browse", "next"):
        yield (
            Topic(f"{kind}-{user}", "", user, history, user, 0.0, kind),
            dict.fromkeys(ahead, 3),
        )


def _with(films: list[Item], attribute: str, value: str) -> dict[str, int]:
    return {film.item_id: 3 for film in films if value in film.texts(attribute)}
