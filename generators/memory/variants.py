"""Other ways to write a query, made when it is asked instead of stored for every item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from generators.memory.key_index import KeyIndex
from generators.memory.predicted import without_article

_LONGEST = 80
_MOST_PERMUTED = 4
_MISSPELT = 3
_COMPLETIONS = 20
_SHORTEST_PREFIX = 3
_SAME_WORDS, _KIND_WORDS, _COMPLETION = 0.9, 0.95, 0.5
_MISSPELLING = {1: 0.8, 2: 0.7}


@dataclass(frozen=True, slots=True)
class Variant:
    """Keys that may have been meant, and how much that is believed."""

    keys: tuple[str, ...]
    confidence: float
    kinds: tuple[str, ...] = ()
    """The kinds of items that the query named, such as `film` in `tom hanks films`."""


def variants(
    tokens: Sequence[str],
    *,
    known: Callable[[str], bool],
    indexes: Sequence[KeyIndex],
    kinds: Iterable[str],
) -> Iterator[Variant]:
    """Yield the variants of a query that are known, the surest first.

    Misspellings and completions are looked for only if the query itself is not known.
    """
    key = " ".join(tokens)
    if not key or len(key) > _LONGEST:
        return
    named = _kinds_named(tokens, kinds)
    rest = " ".join(token for token in tokens if token not in named)
    if named and rest:
        wanted = tuple(dict.fromkeys(named.values()))
        meant = iter((Variant((rest,), 1.0),)) if known(rest) else _misspellings(rest, indexes)
        for variant in meant:
            yield Variant(variant.keys, _KIND_WORDS * variant.confidence, wanted)
    same_words = [" ".join(without_article(tuple(tokens)))]
    if len(tokens) <= _MOST_PERMUTED:
        same_words += sorted({" ".join(p) for p in permutations(tokens)})
    found = tuple(k for k in dict.fromkeys(same_words) if k != key and known(k))
    if found:
        yield Variant(found, _SAME_WORDS)
    if not known(key):
        yield from _misspellings(" ".join(without_article(tuple(tokens))), indexes)
        yield from _completions(key, indexes)


def _misspellings(key: str, indexes: Sequence[KeyIndex]) -> Iterator[Variant]:
    distances: dict[str, int] = {}
    for index in indexes:
        distances.update(index.misspelt(key, _MISSPELT))
    for distance, confidence in _MISSPELLING.items():
        keys = tuple(sorted(k for k, d in distances.items() if d == distance))
        if keys:
            yield Variant(keys, confidence)


def _completions(key: str, indexes: Sequence[KeyIndex]) -> Iterator[Variant]:
    if len(key) >= _SHORTEST_PREFIX:
        completed = [k for index in indexes for k in index.completions(key, _COMPLETIONS)]
        if completed:
            yield Variant(tuple(dict.fromkeys(completed)), _COMPLETION)


def _kinds_named(tokens: Sequence[str], kinds: Iterable[str]) -> dict[str, str]:
    """Return the tokens that name a kind, in singular or plural, with that kind."""
    names = {form: kind for kind in kinds for form in _forms(kind)}
    return {token: names[token] for token in tokens if token in names}


def _forms(kind: str) -> tuple[str, ...]:
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    return kind, plural
