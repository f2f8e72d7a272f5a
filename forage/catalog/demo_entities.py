"""People, genres, studios and countries of the demo catalogue, gathered from its films."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from forage.catalog.item import Item, Value
from forage.catalog.popularity import attention, relative_popularity

ENTITIES: Mapping[str, tuple[str, ...]] = {
    "person": ("cast", "director", "writer"),
    "genre": ("genre",),
    "studio": ("studio",),
    "country": ("country",),
}
"""The attributes of a film that name entities of each kind."""

_FEWEST_FILMS = {"person": 5, "genre": 1, "studio": 2, "country": 1}
_FEWEST_DIRECTED = 2
_STRONGEST = 5
_SMALLEST_SHARE = 0.15
_SUFFIX = re.compile(r"(?:Jr|Sr|II|III|IV|Inc|Ltd|LLC)\.?", re.IGNORECASE)
_DEGREE = re.compile(r"(?:Ph\.?D|M\.?D|Esq|geshe)\.?", re.IGNORECASE)
_NO_NAME = re.compile(r"list of |art director$|dialogue writer$|[\W\d_]*$")
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ß": "ss", "æ": "ae", "œ": "oe", "ı": "i"})


def names(text: str | None) -> tuple[str, ...]:
    """Split a comma-separated list into names, each once, in the source's order.

    `Ed Begley, Jr.` is one person, degrees are dropped, and so is what is no name at all
    (`list of ... characters`, numbers).
    """
    found: list[str] = []
    for raw in unicodedata.normalize("NFC", text or "").split(","):
        part = " ".join(raw.split())
        if _SUFFIX.fullmatch(part):
            if found:
                found[-1] = f"{found[-1]} {part}"
        elif not _DEGREE.fullmatch(part) and not _NO_NAME.match(part):
            found.append(part)
    return tuple(dict.fromkeys(found))


def slug(name: str) -> str:
    """Return the name as lower-case ASCII words joined by hyphens; empty if it has no letters."""
    folded = unicodedata.normalize("NFKD", name.casefold().translate(_LETTERS))
    plain = "".join(c for c in folded if not unicodedata.combining(c)).replace("'", "")
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


@dataclass(frozen=True, slots=True)
class Credits:
    """What the demo knows of a film that matters to the entities it names."""

    entities: Mapping[str, tuple[str, ...]]
    """Names by attribute of the film."""
    popularity: float


class EntityTable:
    """The entities of one kind that become items, with their ids.

    Rare people and studios stay plain values of their films: an item of its own pays off only
    where it connects films. Genres and countries all become items.
    """

    def __init__(self, kind: str, films: Iterable[Credits]) -> None:
        self.kind = kind
        found: dict[str, list[Credits]] = {}
        for film in films:
            for name in dict.fromkeys(n for a in ENTITIES[kind] for n in film.entities[a]):
                found.setdefault(name, []).append(film)
        kept = [(name, of) for name, of in found.items() if _worth_an_item(kind, name, of)]
        kept.sort(key=lambda pair: (-len(pair[1]), pair[0]))
        self.films: dict[str, list[Credits]] = dict(kept)
        """The films of every name that is an item, names in most films first."""
        attentions = {name: attention(f.popularity for f in of) for name, of in kept}
        greatest = max(attentions.values(), default=0.0)
        self._popularity = {n: relative_popularity(a, greatest) for n, a in attentions.items()}
        self._ids: dict[str, str] = {}
        taken: set[str] = set()
        for name in self.films:
            digest = hashlib.sha256(name.encode()).hexdigest()[:6]
            plain = slug(name) or digest
            # The name with the most films keeps the plain slug, others add a hash of the name.
            unique = plain if plain not in taken else f"{plain}-{digest}"
            taken.add(unique)
            self._ids[name] = f"{kind}:{unique}"

    def item_id(self, name: str) -> str:
        """Return the id of the item that the name stands for; empty if it has none."""
        return self._ids.get(name, "")

    def popularity(self, name: str) -> float:
        """Return how wanted the name is within its kind, in [0, 1]; 0 if it is no item."""
        return self._popularity.get(name, 0.0)


def entity_items(table: EntityTable, tables: Mapping[str, EntityTable]) -> Iterator[Item]:
    """Yield the table's items, those in most films first.

    People and studios carry the genres and countries of their films, weighted by the share of
    the films that have them.
    """
    for name, films in table.films.items():
        attributes: dict[str, tuple[Value, ...]] = {"title": (Value(name),)}
        if table.kind in ("person", "studio"):
            for attribute in ("genre", "country"):
                if values := _shares(attribute, films, tables[attribute]):
                    attributes[attribute] = values
        attributes["popularity"] = (Value(table.popularity(name)),)
        yield Item(table.item_id(name), table.kind, attributes)


def _worth_an_item(kind: str, name: str, films: Sequence[Credits]) -> bool:
    if len(films) >= _FEWEST_FILMS[kind]:
        return True
    return kind == "person" and (
        sum(name in film.entities["director"] for film in films) >= _FEWEST_DIRECTED
    )


def _shares(attribute: str, films: Sequence[Credits], table: EntityTable) -> tuple[Value, ...]:
    counts = Counter(value for film in films for value in film.entities[attribute])
    strongest = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_STRONGEST]
    return tuple(
        Value(name, round(count / len(films), 3), table.item_id(name))
        for name, count in strongest
        if count >= _SMALLEST_SHARE * len(films)
    )
