"""The catalogue as the ranker needs it: each item cut into words once, when it is written.

The projection `ranker.catalog`. An item becomes a `Card` of a few hundred bytes; what a search
asks of 300 of them is then a handful of NumPy operations on their joined postings.
"""

from __future__ import annotations

import io
import json
import math
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import snowballstemmer
from numpy.typing import NDArray

from forage import wire
from forage.catalog import years
from forage.catalog.item import Item
from forage.catalog.schema import Role, Schema
from forage.errors import StartupError
from forage.log import Record, SavedState, Stream, Topic
from forage.log.checkpoint import CheckpointFile
from forage.text import tokenize
from ranker.digest import digest

POSTING = np.dtype(
    [("term", "<i4"), ("stem", "<i4"), ("field", "<i2"), ("count", "<i2"), ("weight", "<f4")]
)
"""One word of one attribute of an item, or one whole value in words: `stem` and `count` are then
-1 and 0."""
_FORMAT = 2
_NO_STEM = -1
_MAX_COUNT = 1_000
_MAX_LETTERS = 64
_FIRST_STEMS = 1_024
_STEMMERS = {
    "ar": "arabic", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "fi": "finnish", "fr": "french", "hu": "hungarian", "it": "italian",
    "nl": "dutch", "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian",
    "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Card:
    """What the ranker remembers of an item."""

    item_id: str
    key: int
    """The digest of `item_id`, by which statistics know it."""
    kind: int
    """Index into the schema's kinds; -1 for another one."""
    title: str
    """Words of the title joined by one space."""
    popularity: float
    """In [0, 1]; NaN if unknown."""
    time: float
    """The item's date in seconds since the epoch; NaN if unknown."""
    length: int
    """Words in all text fields, repeated ones as often as they occur."""
    postings: bytes
    """An array of `POSTING`."""


class ItemCards:
    """All items as cards, by id; the projection `ranker.catalog`."""

    name = "ranker.catalog"
    topic = Topic.CATALOG
    streams = (Stream.CATALOG,)

    def __init__(self, schema: Schema, data_dir: Path, *, language: str = "en") -> None:
        """Start empty; a checkpoint made with other fields, kinds or stems is not used."""
        self._schema = schema
        self.fields = tuple(
            name
            for name, attribute in schema.attributes.items()
            if attribute.roles & {Role.TEXT, Role.ENTITY, Role.NUMBER}
        )
        """The attributes whose words and values are known, by `POSTING.field`; of numbers, whole
        years and decades."""
        self._lock = threading.Lock()
        self._cards: dict[str, Card] = {}
        self._terms: dict[str, int] = {}
        texts = set(schema.with_role(Role.TEXT))
        self.texts = np.array([name in texts for name in self.fields])
        """Whether each of `fields` is text."""
        self._stemmer = _Stemmer(language)
        self._stems: dict[str, int] = {}
        self._stem_of: dict[str, int] = {}
        self._holders = np.zeros(_FIRST_STEMS, np.int64)
        self._words = 0
        made_of = [
            self.fields,
            schema.kinds,
            schema.title,
            schema.popularity,
            schema.freshness,
            schema.with_role(Role.TEXT),
            language,
        ]
        self._file = CheckpointFile(
            data_dir / self.name / "cards",
            name=f"ranker.catalog/{digest(json.dumps(made_of)):016x}",
            version=_FORMAT,
        )

    def __len__(self) -> int:
        return len(self._cards)

    def find(self, item_ids: Iterable[str]) -> list[Card | None]:
        """Return the items' cards, all of one moment; None for an unknown item."""
        with self._lock:
            cards = self._cards
            return [cards.get(item_id) for item_id in item_ids]

    def term(self, text: str) -> int:
        """Return the number of a word, or of a value in words joined by spaces; -1 if unknown."""
        return self._terms.get(text, -1)

    def stem(self, word: str) -> int:
        """Return the number of a word's stem; -1 if no item has a word of that stem."""
        known = self._stem_of.get(word)
        if known is None:
            known = self._stems.get(self._stemmer.stem(word), _NO_STEM)
        return known

    def idf(self, stems: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how rare stems are in text fields: inverse document frequencies, above 0."""
        items, numbers, holders = len(self._cards), np.asarray(stems, np.int64), self._holders
        # A stem is numbered a moment before the first item that has it is counted.
        counted = (numbers >= 0) & (numbers < len(holders))
        held = np.where(counted, holders[np.where(counted, numbers, 0)], 0)
        rarity: NDArray[np.float64] = np.log1p((items - held + 0.5) / (held + 0.5))
        return rarity

    @property
    def mean_length(self) -> float:
        """Words in the text fields of an item, on average; at least 1."""
        return max(1.0, self._words / max(1, len(self._cards)))

    def restore(self) -> int:
        """Load the checkpoint; see `Projection.restore`."""
        found = self._file.load()
        if found is None:
            return 0
        sequence, payload = found
        with io.BytesIO(payload) as file, np.load(file, allow_pickle=False) as arrays:
            terms, stems, stem_of, rows = json.loads(arrays["strings"].tobytes())
            ends = np.cumsum(arrays["sizes"])
            postings = arrays["postings"].tobytes()
            numbers = arrays["numbers"].tolist()
        self._terms = {term: number for number, term in enumerate(terms)}
        self._stems = {stem: number for number, stem in enumerate(stems)}
        self._stem_of = stem_of
        begin = 0
        for (item_id, kind, title), end, (popularity, time, length) in zip(
            rows, ends.tolist(), numbers, strict=True
        ):
            found = postings[begin:end]
            self._put(
                Card(item_id, digest(item_id), kind, title, popularity, time, int(length), found)
            )
            begin = end
        return sequence

    def apply(self, records: Sequence[Record]) -> None:
        """Take in upserts and deletions; see `Projection.apply`."""
        changes: list[tuple[str, Card | None]] = []
        for record in records:
            item_id, item = wire.catalog_change(record)
            changes.append((item_id, None if item is None else self._card(item)))
        with self._lock:
            for item_id, card in changes:
                if card is None:
                    self._drop(item_id)
                else:
                    self._put(card)

    def _put(self, card: Card) -> None:
        self._drop(card.item_id)
        self._cards[card.item_id] = card
        self._count(card, 1)

    def _drop(self, item_id: str) -> None:
        gone = self._cards.pop(item_id, None)
        if gone is not None:
            self._count(gone, -1)

    def _count(self, card: Card, sign: int) -> None:
        """Add the card to the document frequencies, or take it out."""
        postings = np.frombuffer(card.postings, POSTING)
        stems = postings["stem"][(postings["count"] > 0) & self.texts[postings["field"]]]
        while len(self._holders) < len(self._stems):
            self._holders = np.concatenate([self._holders, np.zeros_like(self._holders)])
        self._holders[np.unique(stems)] += sign
        self._words += sign * card.length

    def checkpoint(self, sequence: int) -> None:
        """Save all cards; see `Projection.checkpoint`. Only the follower's thread changes them."""
        cards = list(self._cards.values())
        rows = [(c.item_id, c.kind, c.title) for c in cards]
        strings = json.dumps([list(self._terms), list(self._stems), self._stem_of, rows])
        with io.BytesIO() as file:
            np.savez(
                file,
                strings=np.frombuffer(strings.encode(), np.uint8),
                sizes=np.fromiter((len(c.postings) for c in cards), np.int64, len(cards)),
                postings=np.frombuffer(b"".join(c.postings for c in cards), np.uint8),
                numbers=np.array([(c.popularity, c.time, c.length) for c in cards]).reshape(-1, 3),
            )
            self._file.save(sequence, file.getvalue())

    def saved(self) -> SavedState:
        """Describe the checkpoint; see `Portable.saved`."""
        return self._file.saved()

    def _card(self, item: Item) -> Card:
        schema = self._schema
        postings: list[tuple[int, int, int, int, float]] = []
        title, length = "", 0
        for field, name in enumerate(self.fields):
            values = [
                (tokenize(text), v.weight)
                for v in item.values(name)
                for text in years.spoken(v.value)
            ]
            if name == schema.title and values:
                title = " ".join(values[0][0])
            weights: dict[str, float] = {}
            counts: Counter[str] = Counter()
            for words, weight in () if schema.attributes[name].numeric else values:
                counts.update(words)
                for word in words:
                    weights[word] = max(weight, weights.get(word, 0.0))
            if self.texts[field]:
                length += counts.total()
            postings += [
                (self._number(w), self._stem_number(w), field, min(counts[w], _MAX_COUNT), weight)
                for w, weight in weights.items()
            ]
            postings += [
                (self._number(" ".join(w)), _NO_STEM, field, 0, weight) for w, weight in values if w
            ]
        return Card(
            item_id=item.item_id,
            key=digest(item.item_id),
            kind=schema.kinds.index(item.kind) if item.kind in schema.kinds else -1,
            title=title,
            popularity=_number(item, schema.popularity),
            time=_number(item, schema.freshness),
            length=length,
            postings=np.array(postings, POSTING).tobytes(),
        )

    def _number(self, term: str) -> int:
        return self._terms.setdefault(term, len(self._terms))

    def _stem_number(self, word: str) -> int:
        known = self._stem_of.get(word)
        if known is None:
            stem = self._stemmer.stem(word)
            known = self._stem_of[word] = self._stems.setdefault(stem, len(self._stems))
        return known


class JoinedPostings:
    """The postings of several cards, one after the other, as plain arrays."""

    def __init__(self, cards: Sequence[Card | None]) -> None:
        """Join the postings; an unknown item has none."""
        parts = [b"" if card is None else card.postings for card in cards]
        postings = np.frombuffer(b"".join(parts), POSTING)
        counts = np.array([len(part) for part in parts], np.int64) // POSTING.itemsize
        self.items = len(cards)
        self.row = np.repeat(np.arange(len(cards)), counts)
        """The place in `cards` that each posting belongs to."""
        self.term = np.ascontiguousarray(postings["term"])
        self.stem = np.ascontiguousarray(postings["stem"])
        """-1 for whole values."""
        self.field = np.ascontiguousarray(postings["field"])
        self.weight = postings["weight"].astype(float)
        self.count = postings["count"]
        """How often a word occurs in the field; 0 for whole values."""
        self.whole = self.stem == _NO_STEM
        """Whether it is a whole value rather than a word."""


class _Stemmer:
    """The Snowball stemmer of one language (Porter, 2001), for several threads."""

    def __init__(self, language: str) -> None:
        if language not in _STEMMERS:
            raise StartupError(
                f"language: there is no stemmer for '{language}'; allowed:"
                f" {', '.join(sorted(_STEMMERS))}"
            )
        self._stemmer = snowballstemmer.stemmer(_STEMMERS[language])
        self._lock = threading.Lock()

    def stem(self, word: str) -> str:
        with self._lock:
            return str(self._stemmer.stemWord(word[:_MAX_LETTERS]))


def _number(item: Item, attribute: str | None) -> float:
    value = None if attribute is None else item.number(attribute)
    return math.nan if value is None else value
