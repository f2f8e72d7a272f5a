"""The catalogue as the ranker needs it: each item cut into words once, when it is written.

The projection `ranker.catalog`. An item becomes a `Card` of a few hundred bytes; what a search
asks of 300 of them is then a handful of NumPy operations on their joined postings.
"""

from __future__ import annotations

import io
import json
import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from forage import wire
from forage.catalog.item import Item
from forage.catalog.schema import Role, Schema
from forage.log import Record, Stream, Topic
from forage.log.checkpoint import CheckpointFile
from forage.text import tokenize
from ranker.digest import digest

POSTING = np.dtype([("term", "<i4"), ("field", "<i2"), ("whole", "<i2"), ("weight", "<f4")])
"""One word, or one whole value in words (`whole` 1), of one attribute of an item."""
_FORMAT = 1


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
    postings: bytes
    """An array of `POSTING`."""


class ItemCards:
    """All items as cards, by id; the projection `ranker.catalog`."""

    name = "ranker.catalog"
    topic = Topic.CATALOG
    streams = (Stream.CATALOG,)

    def __init__(self, schema: Schema, data_dir: Path) -> None:
        """Start empty; a checkpoint made with other fields or kinds is not used."""
        self._schema = schema
        self.fields = tuple(
            name
            for name, attribute in schema.attributes.items()
            if attribute.roles & {Role.TEXT, Role.ENTITY}
        )
        """The attributes whose words and values are known, by `POSTING.field`."""
        self._lock = threading.Lock()
        self._cards: dict[str, Card] = {}
        self._terms: dict[str, int] = {}
        made_of = [self.fields, schema.kinds, schema.title, schema.popularity, schema.freshness]
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

    def restore(self) -> int:
        """Load the checkpoint; see `Projection.restore`."""
        found = self._file.load()
        if found is None:
            return 0
        sequence, payload = found
        with io.BytesIO(payload) as file, np.load(file, allow_pickle=False) as arrays:
            terms, rows = json.loads(arrays["strings"].tobytes())
            ends = np.cumsum(arrays["sizes"])
            postings = arrays["postings"].tobytes()
            numbers = arrays["numbers"].tolist()
        self._terms = {term: number for number, term in enumerate(terms)}
        begin = 0
        for (item_id, kind, title), end, (popularity, time) in zip(
            rows, ends.tolist(), numbers, strict=True
        ):
            self._cards[item_id] = Card(
                item_id, digest(item_id), kind, title, popularity, time, postings[begin:end]
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
                    self._cards.pop(item_id, None)
                else:
                    self._cards[item_id] = card

    def checkpoint(self, sequence: int) -> None:
        """Save all cards; see `Projection.checkpoint`. Only the follower's thread changes them."""
        cards = list(self._cards.values())
        strings = json.dumps([list(self._terms), [(c.item_id, c.kind, c.title) for c in cards]])
        with io.BytesIO() as file:
            np.savez(
                file,
                strings=np.frombuffer(strings.encode(), np.uint8),
                sizes=np.fromiter((len(c.postings) for c in cards), np.int64, len(cards)),
                postings=np.frombuffer(b"".join(c.postings for c in cards), np.uint8),
                numbers=np.array([(c.popularity, c.time) for c in cards]).reshape(-1, 2),
            )
            self._file.save(sequence, file.getvalue())

    def _card(self, item: Item) -> Card:
        schema = self._schema
        postings: list[tuple[int, int, int, float]] = []
        title = ""
        for field, name in enumerate(self.fields):
            values = [(tokenize(str(v.value)), v.weight) for v in item.values(name)]
            if name == schema.title and values:
                title = " ".join(values[0][0])
            weights: dict[str, float] = {}
            for words, weight in values:
                for word in words:
                    weights[word] = max(weight, weights.get(word, 0.0))
            postings += [(self._number(w), field, 0, weight) for w, weight in weights.items()]
            postings += [(self._number(" ".join(w)), field, 1, weight) for w, weight in values if w]
        return Card(
            item_id=item.item_id,
            key=digest(item.item_id),
            kind=schema.kinds.index(item.kind) if item.kind in schema.kinds else -1,
            title=title,
            popularity=_number(item, schema.popularity),
            time=_number(item, schema.freshness),
            postings=np.array(postings, POSTING).tobytes(),
        )

    def _number(self, term: str) -> int:
        return self._terms.setdefault(term, len(self._terms))


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
        self.field = np.ascontiguousarray(postings["field"])
        self.weight = postings["weight"].astype(float)
        self.whole = postings["whole"].astype(bool)
        """Whether it is a whole value rather than a word."""


def _number(item: Item, attribute: str | None) -> float:
    value = None if attribute is None else item.number(attribute)
    return math.nan if value is None else value
