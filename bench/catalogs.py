"""Catalogues of any size for measuring: invented films, people and studios with real proportions.

The shares of kinds, values per film and the laws of words and names were fitted to the demo's
17,472 films; every name is put together from syllables, so nothing is copied. A catalogue is a
function of its size and a seed, and any part of it can be made without the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from forage.demo.users import Intent

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

CHUNK = 4_096
"""Films that are drawn together."""
_GENRES = (
    "Drama", "Comedy", "Action", "Romance", "Thriller", "Crime", "Adventure", "Horror", "Family",
    "Fantasy", "Mystery", "History", "War", "Music", "Western", "Sport", "Animation", "Biography",
    "Documentary", "Musical", "Noir",
)  # fmt: skip
_COMMON = (
    "the", "of", "a", "and", "in", "to", "man", "love", "on", "my", "i", "2", "for", "life",
    "with", "night", "me", "is", "from", "last", "you", "day", "house", "world", "girl", "black",
    "no", "dead", "at", "big", "blue", "city", "great", "who", "one", "way", "time", "out", "red",
    "story", "dark", "little", "war", "good", "king", "home", "lost", "boy", "three", "new",
)  # fmt: skip
_SYLLABLES = tuple(c + v + e for c in "bdfgklmnprstvz" for v in "aeiou" for e in ("", "n", "r"))
_TITLE_LENGTHS = (0.19, 0.32, 0.23, 0.13, 0.07, 0.03, 0.02, 0.01)
_KINDS_OF_INTENT = ("title", "typo", "person", "two people", "theme", "browse")
_SHARES_OF_INTENT = (0.3, 0.1, 0.25, 0.1, 0.15, 0.1)
_YEAR_S = 31_556_952.0


@dataclass(frozen=True, slots=True)
class Zipf:
    """Ranks from 0 with probability about (rank + offset)^-exponent (Zipf–Mandelbrot)."""

    exponent: float
    offset: float
    size: float
    """Number of ranks; may be beyond anything that is ever drawn."""

    def ranks(self, uniform: Floats) -> Integers:
        """Return the ranks of numbers in [0, 1), by inverting the law as a continuous one."""
        power = 1.0 - self.exponent
        low, high = self.offset**power, (self.offset + self.size) ** power
        drawn = (low + uniform * (high - low)) ** (1.0 / power) - self.offset
        ranks: Integers = np.clip(drawn, 0, self.size - 1).astype(np.int64)
        return ranks


# Together these give 12,000 words in 17,000 titles, as the demo has them.
_WORDS = Zipf(1.22, 2.0, 9e6)
_GIVEN = Zipf(1.2, 15.0, 1e6)
_SURNAMES = Zipf(1.15, 60.0, 4e6)


@lru_cache(maxsize=200_000)
def word(rank: int) -> str:
    """Return the word of a rank: a common one of English, or an invented one."""
    return _COMMON[rank] if rank < len(_COMMON) else _invented(rank)


def _invented(rank: int) -> str:
    """Return a word of two syllables, or of three if there is no such word left."""
    pairs = len(_SYLLABLES) ** 2
    length, total = (2, pairs) if rank < pairs else (3, pairs * len(_SYLLABLES))
    # A stride that shares no factor with the total gives every rank a word of its own.
    rest = (rank * 1_000_003 + 41) % total
    letters = []
    for _ in range(length):
        rest, digit = divmod(rest, len(_SYLLABLES))
        letters.append(_SYLLABLES[digit])
    return "".join(letters)


def uniform(number: int, salt: int) -> float:
    """Return a number in [0, 1) that looks drawn: SplitMix64's finaliser (Steele et al., 2014)."""
    mask = 0xFFFF_FFFF_FFFF_FFFF
    mixed = (number + salt * 0x9E3779B97F4A7C15) & mask
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & mask
    return float((mixed ^ (mixed >> 31)) >> 11) * 2.0**-53


@lru_cache(maxsize=200_000)
def name(person: int, seed: int) -> str:
    """Return a person's name. As among people, two may share one."""
    first = int(_GIVEN.ranks(np.array(uniform(person, seed + 1))))
    last = int(_SURNAMES.ranks(np.array(uniform(person, seed + 2))))
    # Given names and surnames are different words.
    return f"{_invented(2 * first).capitalize()} {_invented(2 * last + 1).capitalize()}"


class Catalog:
    """A catalogue of about `items` items: 54 % films, 42 % people, 3 % studios, and a few more."""

    def __init__(self, items: int, seed: int = 1) -> None:
        """Describe it; nothing is made yet. Raises `ValueError` for fewer than 100 items."""
        if items < 100:
            raise ValueError(f"items: {items} is too few; allowed: at least 100")
        self.items = items
        self.seed = seed
        self.countries = min(136, items // 20)
        self.studios = items // 30
        self.people = int(0.425 * items)
        self.films = items - self.people - self.studios - self.countries - len(_GENRES)
        """Of the people that films name, about 3.65 per film, only the foremost are items."""
        self._cast = Zipf(0.7, 60.0, 3.65 * self.films)
        self._studio = Zipf(0.9, 3.0, 2.2 * self.studios)
        self._country = Zipf(1.3, 1.0, self.countries)

    def rows(self) -> Iterator[Row]:
        """Yield all rows, as `forage import` reads them: what films name first."""
        for genre in _GENRES:
            yield _named("genre", genre.lower(), genre, 1.0)
        for country in range(self.countries):
            yield _named("country", str(country), self.country(country), 1 / (1 + country))
        for studio in range(self.studios):
            yield self._studio_row(studio)
        for person in range(self.people):
            yield self._person_row(person)
        for chunk in range(self.chunks):
            yield from self.films_of(chunk)

    @property
    def chunks(self) -> int:
        """How many parts of `CHUNK` films there are; the last may be shorter."""
        return -(-self.films // CHUNK)

    def country(self, country: int) -> str:
        """Return a country's name."""
        return f"{_invented(7_000 + 31 * country).capitalize()}ia"

    def films_of(self, chunk: int) -> list[Row]:
        """Return the films of one part, the same ones every time."""
        rng = np.random.default_rng((self.seed, chunk))
        count = min(CHUNK, self.films - chunk * CHUNK)
        return [self._film(chunk * CHUNK + place, rng) for place in range(count)]

    def _film(self, film: int, rng: np.random.Generator) -> Row:
        words = 1 + int(rng.choice(len(_TITLE_LENGTHS), p=_TITLE_LENGTHS))
        ranks = _WORDS.ranks(rng.random(words))
        # Hardly any title is made of the commonest words alone.
        ranks[-1] += len(_COMMON)
        title = " ".join(map(word, ranks.tolist()))
        year = 2026 - int(min(105.0, rng.exponential(25.0)))
        cast = self._cast.ranks(rng.random(min(50, int(rng.gamma(1.6, 7.0))))).tolist()
        crew = self._cast.ranks(rng.random(2)).tolist()
        row: Row = {
            "item_id": f"film:{film:07d}",
            "kind": "film",
            "title": title[0].upper() + title[1:],
            "cast": [
                self._person(person, max(0.5, 1 - 0.1 * place))
                for place, person in enumerate(dict.fromkeys(cast))
            ],
            "director": [self._person(crew[0])],
            "writer": [self._person(crew[int(rng.random() < 0.4)])],
            "genre": _some_genres(rng),
            "country": [self._country_value(int(self._country.ranks(rng.random(1))[0]))],
            "language": [f"{self.country(int(self._country.ranks(rng.random(1))[0]))}n"],
            "year": year,
            "runtime": int(np.clip(rng.normal(100, 20), 20, 300)),
            "released": (year - 1970 + float(rng.random())) * _YEAR_S // 86_400 * 86_400,
            "popularity": round(float(rng.beta(1.4, 3.0)), 4),
        }
        if rng.random() < 0.8:
            row["studio"] = [self._studio_value(int(self._studio.ranks(rng.random(1))[0]))]
        if rng.random() < 0.15:
            row["metacritic"] = int(np.clip(rng.normal(60, 17), 5, 100))
        return {key: value for key, value in row.items() if value != []}

    def _person(self, person: int, weight: float = 1.0) -> Row:
        value: Row = {"value": name(person, self.seed), "weight": round(weight, 1)}
        if person < self.people:
            value["item_id"] = self.person_id(person)
        return value

    def person_id(self, person: int) -> str:
        """Return a person's item id."""
        return f"person:{name(person, self.seed).replace(' ', '-').lower()}-{person:x}"

    def _person_row(self, person: int) -> Row:
        rng = np.random.default_rng((self.seed, 1_000_000_007, person))
        fame = 1.0 - np.log1p(person) / np.log1p(self.people)
        row = _named(
            "person", self.person_id(person)[7:], name(person, self.seed), max(0.01, float(fame))
        )
        row["genre"] = _some_genres(rng, most=5)
        row["country"] = [self._country_value(int(self._country.ranks(rng.random(1))[0]))]
        return row

    def _studio_value(self, studio: int) -> Row:
        value: Row = {"value": self._studio_name(studio)}
        if studio < self.studios:
            value["item_id"] = f"studio:{studio}"
        return value

    def _studio_name(self, studio: int) -> str:
        return f"{_invented(11 * studio + 300_000).capitalize()} Pictures"

    def _studio_row(self, studio: int) -> Row:
        rng = np.random.default_rng((self.seed, 1_000_000_009, studio))
        row = _named("studio", str(studio), self._studio_name(studio), 1 / (1 + studio) ** 0.5)
        row["genre"] = _some_genres(rng, most=5)
        return row

    def _country_value(self, country: int) -> Row:
        return {"value": self.country(country), "item_id": f"country:{country}"}

    @cached_property
    def _sample(self) -> list[Row]:
        """Up to 16 parts of films that people look for, spread over the catalogue."""
        parts = sorted({int(c) for c in np.linspace(0, self.chunks - 1, 16)})
        return [film for part in parts for film in self.films_of(part) if film.get("cast")]

    def intents(self, number: int, seed: int = 11) -> list[Intent]:
        """Return what `number` users want and type, in the proportions of the demo's users."""
        rng = np.random.default_rng(seed)
        popularity = np.array([film["popularity"] for film in self._sample]) ** 4
        chosen = rng.choice(len(self._sample), size=number, p=popularity / popularity.sum())
        return [_intent(self._sample[place], rng) for place in chosen.tolist()]


def _named(kind: str, key: str, title: str, popularity: float) -> Row:
    item_id = f"{kind}:{key}"
    return {"item_id": item_id, "kind": kind, "title": title, "popularity": round(popularity, 4)}


def _some_genres(rng: np.random.Generator, most: int = 3) -> list[Row]:
    ranks = (len(_GENRES) * rng.random(1 + int(rng.random() * most)) ** 2.5).astype(int)
    chosen = dict.fromkeys(ranks.tolist())
    weight = round(len(chosen) ** -0.5, 3)
    return [
        {"value": _GENRES[g], "weight": weight, "item_id": f"genre:{_GENRES[g].lower()}"}
        for g in chosen
    ]


def _intent(film: Row, rng: np.random.Generator) -> Intent:
    user = f"user-{int(rng.integers(10_000))}"
    kind = str(rng.choice(_KINDS_OF_INTENT, p=_SHARES_OF_INTENT))
    wanted = {film["item_id"]}
    title, cast = film["title"], film["cast"]
    if kind == "browse":
        return Intent(kind, "", frozenset(wanted), user)
    if kind == "theme":
        genre = film["genre"][0]["value"].lower()
        return Intent(kind, f"{genre} {film['year'] // 10 * 10}s", frozenset(wanted), user)
    if kind in ("person", "two people"):
        people = cast[: 2 if kind == "two people" else 1]
        wanted |= {person["item_id"] for person in people if "item_id" in person}
        return Intent(kind, " ".join(p["value"] for p in people), frozenset(wanted), user)
    if kind == "typo" and len(title) > 5:
        at = int(rng.integers(1, len(title) - 1))
        return Intent(kind, title[:at] + title[at + 1 :], frozenset(wanted), user)
    return Intent("title", title, frozenset(wanted), user)
