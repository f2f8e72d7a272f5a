"""Documents and clauses in Milvus's terms: arrays of hashes, boolean expressions, BM25 texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from forage.retrieval import Filter
from generators.lexical.analysis import item_term, value_term, words
from generators.lexical.clauses import (
    Adjacent,
    AnyToken,
    Between,
    Clause,
    Combination,
    HasTitle,
    HasValue,
    Nothing,
    OfKind,
)
from generators.lexical.layout import Document, Layout
from generators.milvus.expressions import (
    any_number_in,
    contains_all,
    contains_any,
    flags,
    join,
    lacks_flag,
    no_number_in,
    term,
)

MOST_TERMS = 4_096
"""The longest array that Milvus takes: distinct words of one field beyond it are not found."""
MOST_NUMBERS = 1_000
MOST_TEXT = 65_535
EVERYTHING = "kind not in [-1]"
NOTHING = "kind in [-1]"
"""Hashes are not negative."""
_COPIES = 2
_MOST_COPIES = 8
_TITLES = "titles"


def arrays(layout: Layout) -> tuple[str, ...]:
    """Return the names of all fields that are arrays of hashes."""
    texts = (name for text in layout.texts for name in (f"tokens_{text}", f"pairs_{text}"))
    return (*texts, *(f"values_{name}" for name in layout.values), _TITLES)


def fields(document: Document, layout: Layout, *, flagged: bool) -> dict[str, object]:
    """Return a document's fields; with `flagged`, also the hashes as JSON objects."""
    hashes: dict[str, list[int]] = {name: [] for name in arrays(layout)}
    text: list[str] = []
    for name, values in document.texts.items():
        cut = [words(value) for value in values]
        tokens = [term("token", name, token) for part in cut for token in part]
        text += [f"{token:x}" for token in tokens]
        hashes[f"tokens_{name}"] = _distinct(tokens)
        hashes[f"pairs_{name}"] = _distinct(
            term("pair", name, first, second) for part in cut for first, second in pairwise(part)
        )
    for name, weights in document.values.items():
        found = [term("value", name, value) for value in weights]
        text += [f"{value:x}" for value in found]
        named = [term("value", name, value) for value in document.named.get(name, ())]
        hashes[f"values_{name}"] = _distinct([*found, *named])
    titles = [term("title", title) for title in document.titles]
    text += [f"{title:x}" for title in titles]
    hashes[_TITLES] = _distinct(titles)
    made: dict[str, object] = {
        "item_id": document.item_id,
        "kind": term("kind", document.kind),
        "text": " ".join(text)[:MOST_TEXT],
        "prior": [document.popularity, document.tie],
        **hashes,
    }
    for name in layout.numbers:
        numbers = list(document.numbers.get(name, ()))[:MOST_NUMBERS]
        made[f"numbers_{name}"], made[f"count_{name}"] = numbers, len(numbers)
    if flagged:
        made.update((f"flags_{name}", flags(terms)) for name, terms in hashes.items())
    return made


def query_text(clause: Clause) -> str:
    """Return the words that a clause scores, each as often as it weighs; empty if there are none.

    Milvus counts a word of the query as often as it occurs, which takes the place of boosts.
    """
    copies: dict[int, float] = {}
    for found, weight in _scored(clause):
        copies[found] = max(weight, copies.get(found, 0.0))
    return " ".join(
        f"{found:x}"
        for found, weight in copies.items()
        for _ in range(min(_MOST_COPIES, max(1, round(weight * _COPIES))))
    )


def _scored(clause: Clause) -> Iterator[tuple[int, float]]:
    match clause:
        case AnyToken():
            for name, token, weight in clause.tokens:
                yield term("token", name, token), weight
        case HasValue() if clause.score > 0:
            for value in clause.terms:
                yield term("value", clause.attribute, value), clause.score
        case HasTitle() if clause.score > 0:
            yield term("title", clause.term), clause.score
        case Combination():
            for part in (*clause.required, *clause.optional):
                yield from _scored(part)


class Expressions:
    """Writes clauses and filters as Milvus expressions, for one layout."""

    def __init__(self, layout: Layout, most_numbers: Mapping[str, int], *, negation: bool) -> None:
        """`negation` says whether the engine evaluates NOT.

        `most_numbers` tells the largest number of values of any item, by numeric attribute.
        """
        self._layout = layout
        self._most = most_numbers
        self._negation = negation

    def write(self, clause: Clause, filters: Sequence[Filter]) -> str:
        """Return the expression of a clause and filters; empty if everything satisfies it."""
        parts = [self._holds(clause), *(self._filter(wanted) for wanted in filters)]
        return join("and", [part for part in parts if part != EVERYTHING])

    def _filter(self, wanted: Filter) -> str:
        clause = self._filter_clause(wanted)
        return self._fails(clause) if wanted.exclude else self._holds(clause)

    def _filter_clause(self, wanted: Filter) -> Clause:
        name = wanted.attribute
        if name == "kind":
            return OfKind(wanted.values)
        if wanted.values and name in self._layout.values:
            terms = {value_term(v) for v in wanted.values} | {item_term(v) for v in wanted.values}
            return HasValue(name, tuple(sorted(terms)))
        if not wanted.values and name in self._layout.numbers:
            return Between(name, wanted.minimum, wanted.maximum)
        return Nothing()

    def _holds(self, clause: Clause) -> str:
        match clause:
            case Combination():
                parts = [self._holds(part) for part in clause.required]
                if clause.optional and not clause.required:
                    parts.append(join("or", [self._holds(part) for part in clause.optional]))
                parts += [self._fails(part) for part in clause.excluded]
                return join("and", parts) or EVERYTHING
            case OfKind():
                return f"kind in {_kinds(clause)}"
            case Between() if clause.low is None and clause.high is None:
                return f"count_{clause.attribute} > 0"
            case Between():
                return self._inside(clause) or NOTHING
            case Nothing():
                return NOTHING
            case _:
                return _any(_wanted(clause)) or NOTHING

    def _fails(self, clause: Clause) -> str:
        match clause:
            case Combination():
                parts = [self._fails(part) for part in clause.required]
                if clause.optional and not clause.required:
                    parts.append(join("and", [self._fails(part) for part in clause.optional]))
                parts += [self._holds(part) for part in clause.excluded]
                return join("or", parts) or NOTHING
            case OfKind():
                return f"kind not in {_kinds(clause)}"
            case Between() if clause.low is None and clause.high is None:
                return f"count_{clause.attribute} == 0"
            case Between():
                return self._outside(clause) or EVERYTHING
            case Nothing():
                return EVERYTHING
            case _ if self._negation:
                return f"not ({self._holds(clause)})"
            case _:
                lacking = [
                    join("or", [lacks_flag(f"flags_{name}", one) for one in terms])
                    for name, terms in _wanted(clause)
                ]
                return join("and", lacking) or EVERYTHING

    def _inside(self, clause: Between) -> str:
        return any_number_in(
            f"numbers_{clause.attribute}",
            self._most.get(clause.attribute, 0),
            clause.low,
            clause.high,
            low_included=clause.low_included,
            high_included=clause.high_included,
        )

    def _outside(self, clause: Between) -> str:
        return no_number_in(
            f"numbers_{clause.attribute}",
            f"count_{clause.attribute}",
            self._most.get(clause.attribute, 0),
            clause.low,
            clause.high,
            low_included=clause.low_included,
            high_included=clause.high_included,
        )


def _wanted(clause: Clause) -> list[tuple[str, list[int]]]:
    """Return which arrays hold which hashes; a clause holds if one array has all of its hashes."""
    match clause:
        case AnyToken():
            return [(f"tokens_{n}", [term("token", n, token)]) for n, token, _ in clause.tokens]
        case Adjacent():
            return [
                (f"pairs_{name}", [term("pair", name, a, b) for a, b in pairwise(clause.tokens)])
                for name in clause.attributes
            ]
        case HasValue():
            name = clause.attribute
            return [(f"values_{name}", [term("value", name, value)]) for value in clause.terms]
        case HasTitle():
            return [(_TITLES, [term("title", clause.term)])]
        case _:
            raise TypeError(f"not a clause on terms: {clause}")


def _any(wanted: Sequence[tuple[str, list[int]]]) -> str:
    single: dict[str, list[int]] = {}
    parts = []
    for name, terms in wanted:
        if len(terms) == 1:
            single.setdefault(name, []).append(terms[0])
        else:
            parts.append(contains_all(name, terms))
    return join("or", [*(contains_any(name, terms) for name, terms in single.items()), *parts])


def _kinds(clause: OfKind) -> list[int]:
    return sorted({term("kind", kind) for kind in clause.kinds}) or [-1]


def _distinct(hashes: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(hashes))[:MOST_TERMS]
