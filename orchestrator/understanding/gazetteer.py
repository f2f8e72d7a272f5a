"""The gazetteer: every name in the catalogue, and which things it may mean."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import TypeVar

from rapidfuzz import process
from rapidfuzz.distance import OSA

from forage.catalog import Item, Role, Schema, years
from forage.text import tokenize

MAX_NAME_TOKENS = 8
_MAX_POSTINGS = 400
_FEW = 10
"""A stretch of words in more names than this tells little of which is meant."""
_KEPT_CORRECTIONS = 4_096
"""Words whose corrections are kept until a name changes."""
_ARTICLES = frozenset({"a", "an", "the"})
_Counted = TypeVar("_Counted", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Meaning:
    """One thing that a name may mean."""

    attribute: str
    """The attribute it is a value of; the schema's title attribute for an item's own name."""
    value: str
    item_id: str
    """Empty for a value that is not an item of its own."""
    prior: float
    """How likely people mean it, in (0, 1]; from popularity."""


@dataclass(frozen=True, slots=True)
class Correction:
    """A vocabulary word that a typed word may stand for."""

    word: str
    edits: int


@dataclass(frozen=True, slots=True)
class _Bucket:
    """The vocabulary words with one first letter."""

    words: list[str]
    """In alphabetical order."""
    by_length: Mapping[int, list[str]]

    @classmethod
    def of(cls, words: Iterable[str]) -> _Bucket:
        ordered = sorted(words)
        by_length: dict[int, list[str]] = {}
        for word in ordered:
            by_length.setdefault(len(word), []).append(word)
        return cls(ordered, by_length)


class Gazetteer:
    """Looks names up exactly, by some of their words, by prefix, and in spite of typos.

    One writer applies changes while many readers look up; a lock guards both, since a look-up is
    a few dictionary reads.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self.title = schema.title
        """The attribute of items' own names."""
        self._keywords = tuple(
            n for n, a in schema.attributes.items() if Role.KEYWORD in a.roles and not a.kind
        )
        self._names: dict[str, dict[str, Meaning]] = {}
        self._by_token: dict[str, dict[str, None]] = defaultdict(dict)
        self._by_item: dict[str, tuple[str, ...]] = {}
        self._links: dict[str, Counter[str]] = defaultdict(Counter)
        self._linked: dict[str, tuple[tuple[str, str], ...]] = {}
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._years: dict[str, Counter[float]] = defaultdict(Counter)
        self._valued: dict[str, tuple[tuple[str, str | float], ...]] = {}
        self._initials: dict[str, set[str]] = defaultdict(set)
        self._buckets: dict[str, _Bucket] = {}
        self._corrections: dict[tuple[str, int], list[Correction]] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Return the number of distinct names."""
        return len(self._names)

    def upsert(self, item: Item) -> None:
        """Add an item's names, in place of those it had."""
        with self._lock:
            self.delete(item.item_id)
            self._corrections.clear()
            prior = self._prior(item)
            attribute = self._schema.title
            keys = []
            for title in item.texts(attribute):
                meaning = Meaning(attribute, title, item.item_id, prior)
                keys.extend(self._add(item.item_id, meaning))
            self._by_item[item.item_id] = tuple(keys)
            references = tuple((a, v.item_id) for a, v in item.references())
            for link, target in references:
                self._links[target][link] += 1
            self._linked[item.item_id] = references
            self._add_values(item)

    def delete(self, item_id: str) -> None:
        """Remove an item's names; unknown ids are ignored."""
        with self._lock:
            self._corrections.clear()
            self._discard(self._by_item.pop(item_id, ()), item_id)
            for link, target in self._linked.pop(item_id, ()):
                _subtract(self._links, target, link)
            for attribute, value in self._valued.pop(item_id, ()):
                if not isinstance(value, str):
                    _subtract(self._years, attribute, value)
                elif _subtract(self._counts, attribute, value):
                    self._discard(_keys(value), _owner(attribute, value))

    def meanings(self, words: tuple[str, ...]) -> list[Meaning]:
        """Return what exactly these words name, most likely first."""
        with self._lock:
            found = self._names.get(" ".join(words))
            if found is None:
                return []
            return sorted(
                (self._attributed(m) for m in found.values()),
                key=lambda m: (-m.prior, m.item_id, m.value),
            )

    def partial(self, words: tuple[str, ...], limit: int) -> list[tuple[Meaning, float]]:
        """Return (meaning, coverage) for names that hold all the words, best first.

        Coverage is the share of the name's words, in (0, 1]; a name that begins with two or more
        of the words counts for more, and words that many names hold, such as `films`, for less.
        """
        with self._lock:
            postings = sorted((self._by_token.get(w, {}) for w in set(words)), key=len)
            if not postings or not postings[0] or len(postings[0]) > _MAX_POSTINGS:
                return []
            keys: Set[str] = postings[0].keys()
            for others in postings[1:]:
                keys &= others.keys()
            telling = min(1.0, _FEW / max(1, len(keys)))
            scored: list[tuple[Meaning, float]] = []
            beginning = " ".join(words) + " "
            for key in keys:
                coverage = len(words) / (key.count(" ") + 1)
                if len(words) > 1 and key.startswith(beginning):
                    # People type the beginning of a long title, not a part of it.
                    coverage = (1 + coverage) / 2
                if coverage < 1:
                    coverage *= telling
                scored.extend(
                    (self._attributed(m), coverage) for m in self._names.get(key, {}).values()
                )
        scored.sort(key=lambda s: (-s[0].prior * s[1], s[0].item_id, s[0].value))
        return scored[:limit]

    def knows(self, word: str) -> bool:
        """Return whether some name holds the word."""
        return bool(self._by_token.get(word))

    def corrections(self, word: str, limit: int) -> list[Correction]:
        """Return vocabulary words within 1 edit (4 to 7 letters) or 2 (8 and more), nearest first.

        Edits are insertions, deletions, substitutions and swaps of neighbours; the first letter
        may be missing or swapped, but not wrong, which keeps the search small.
        """
        if len(word) < 4 or word.isdigit():
            return []
        with self._lock:
            # People use the same words again and again, most of all in sentences.
            found = self._corrections.get((word, limit))
            if found is None:
                if len(self._corrections) >= _KEPT_CORRECTIONS:
                    self._corrections.clear()
                found = self._corrections[word, limit] = self._corrected(word, limit)
            return found

    def _corrected(self, word: str, limit: int) -> list[Correction]:
        most = 1 if len(word) < 8 else 2
        choices: list[str] = []
        for first in dict.fromkeys((word[0], word[1])):
            bucket = self._bucket(first)
            for length in range(len(word) - most, len(word) + most + 1):
                choices.extend(bucket.by_length.get(length, ()))
        found = process.extract(
            word, choices, scorer=OSA.distance, score_cutoff=most, limit=limit * 4
        )
        ranked = sorted(
            {(int(edits), -len(self._by_token[w]), w) for w, edits, _ in found if w != word}
        )
        return [Correction(w, edits) for edits, _, w in ranked[:limit]]

    def completions(self, prefix: str, limit: int) -> list[str]:
        """Return vocabulary words that begin with `prefix`, those in most names first."""
        if len(prefix) < 3:
            return []
        with self._lock:
            words = self._bucket(prefix[0]).words
            start = bisect_left(words, prefix)
            found = []
            for word in words[start : start + 200]:
                if not word.startswith(prefix):
                    break
                if word != prefix:
                    found.append(word)
            found.sort(key=lambda w: (-len(self._by_token[w]), w))
        return found[:limit]

    def years(self) -> dict[str, tuple[float, float]]:
        """Return, for each number attribute whose values look like years, the range seen."""
        with self._lock:
            return {a: (min(counts), max(counts)) for a, counts in self._years.items()}

    def _prior(self, item: Item) -> float:
        name = self._schema.popularity
        popularity = item.number(name) if name else None
        return min(1.0, max(0.02, popularity if popularity is not None else 0.1))

    def _add(self, owner: str, meaning: Meaning) -> list[str]:
        keys = _keys(meaning.value)
        for key in keys:
            self._names.setdefault(key, {})[owner] = meaning
            for word in key.split(" "):
                if word not in self._by_token:
                    self._initials[word[0]].add(word)
                    self._buckets.pop(word[0], None)
                self._by_token[word][key] = None
        return keys

    def _add_values(self, item: Item) -> None:
        valued: list[tuple[str, str | float]] = []
        for attribute in self._keywords:
            for value in item.texts(attribute):
                if value not in self._counts[attribute]:
                    self._add(_owner(attribute, value), Meaning(attribute, value, "", 0.5))
                self._counts[attribute][value] += 1
                valued.append((attribute, value))
        for attribute in self._schema.with_role(Role.NUMBER):
            number = item.number(attribute)
            if number is not None and years.is_year(number):
                self._years[attribute][number] += 1
                valued.append((attribute, number))
        if valued:
            self._valued[item.item_id] = tuple(valued)

    def _discard(self, keys: Iterable[str], owner: str) -> None:
        for key in keys:
            meanings = self._names.get(key)
            if meanings is not None:
                meanings.pop(owner, None)
                if not meanings:
                    self._forget(key)

    def _forget(self, key: str) -> None:
        del self._names[key]
        for word in key.split(" "):
            postings = self._by_token.get(word)
            if postings is not None:
                postings.pop(key, None)
                if not postings:
                    del self._by_token[word]
                    self._initials[word[0]].discard(word)
                    self._buckets.pop(word[0], None)

    def _attributed(self, meaning: Meaning) -> Meaning:
        links = self._links.get(meaning.item_id)
        if not links:
            return meaning
        attribute, _ = min(links.items(), key=lambda link: (-link[1], link[0]))
        return Meaning(attribute, meaning.value, meaning.item_id, meaning.prior)

    def _bucket(self, first: str) -> _Bucket:
        bucket = self._buckets.get(first)
        if bucket is None:
            bucket = self._buckets[first] = _Bucket.of(self._initials.get(first, ()))
        return bucket


def _keys(name: str) -> list[str]:
    """Return the keys that a name is looked up by; none if it has no words."""
    words = tokenize(name)[:MAX_NAME_TOKENS]
    keys = [" ".join(words)] if words else []
    if len(words) > 1 and words[0] in _ARTICLES:
        keys.append(" ".join(words[1:]))
    return keys


def _owner(attribute: str, value: str) -> str:
    """Return what stands in an item's place for a value that is no item."""
    return f"{attribute}={value}"


def _subtract(counts: dict[str, Counter[_Counted]], key: str, value: _Counted) -> bool:
    """Count one less, keeping no zeros; return whether that was the last."""
    counts[key][value] -= 1
    last = not counts[key][value]
    if last:
        del counts[key][value]
        if not counts[key]:
            del counts[key]
    return last
