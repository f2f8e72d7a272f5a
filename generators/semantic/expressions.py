"""Filters as Milvus boolean expressions, with the meaning of `forage.catalog.matches`.

Each keyword attribute is an array of the hashes of its folded values, and on Milvus Lite, which
evaluates no NOT, also a JSON object. One object per attribute, because every row's is parsed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forage.catalog.item import Item
from forage.catalog.schema import Role, Schema
from forage.errors import InvalidArgumentError
from forage.retrieval import Filter
from generators.milvus.expressions import (
    any_number_in,
    contains_any,
    join,
    lacks_flag,
    no_number_in,
    term,
)

NOTHING = "kind in [-1]"
"""An expression that no item satisfies: hashes are not negative."""


def keyword_field(attribute: str) -> str:
    """Return the field that holds the attribute's hashes."""
    return f"keyword_{attribute}"


def flag_field(attribute: str) -> str:
    """Return the field that holds the attribute's hashes as the keys of a JSON object."""
    return f"flag_{attribute}"


def number_field(attribute: str) -> str:
    """Return the field that holds the attribute's numbers."""
    return f"number_{attribute}"


def count_field(attribute: str) -> str:
    """Return the field that holds how many numbers the attribute has."""
    return f"count_{attribute}"


@dataclass(frozen=True, slots=True)
class FilterFields:
    """The filterable part of an item."""

    kind: int
    keywords: dict[str, list[int]]
    numbers: dict[str, list[float]]


class FilterLanguage:
    """Writes items' filter fields, and filters over them, for one schema."""

    def __init__(self, schema: Schema, *, negation: bool) -> None:
        """`negation` says whether the engine evaluates NOT."""
        self.keywords = schema.with_role(Role.KEYWORD)
        self.numbers = tuple(n for n, a in schema.attributes.items() if a.numeric)
        self._negation = negation

    def fields(self, item: Item) -> FilterFields:
        """Return what the item is filtered by."""
        return FilterFields(
            kind=term("kind", "k", item.kind),
            keywords={name: _terms(item, name) for name in self.keywords},
            numbers={n: [float(v.value) for v in item.values(n)] for n in self.numbers},
        )

    def expression(self, filters: Sequence[Filter], most_numbers: Mapping[str, int]) -> str:
        """Return the expression that all filters together are; empty for no filter.

        `most_numbers` tells, per numeric attribute, the largest number of values of any item.
        Raises `InvalidArgumentError` for an attribute that cannot be filtered so.
        """
        parts = [self._one(f, most_numbers.get(f.attribute, 0)) for f in filters]
        return join("and", [part for part in parts if part])

    def _one(self, wanted: Filter, most: int) -> str:
        name = wanted.attribute
        if name == "kind":
            kinds = sorted({term("kind", "k", v) for v in wanted.values}) or [-1]
            return f"kind {'not in' if wanted.exclude else 'in'} {kinds}"
        if wanted.values and name in self.keywords:
            return self._keyword(wanted)
        if not wanted.values and name in self.numbers:
            return _range(wanted, name, most)
        raise InvalidArgumentError(
            "filters",
            f"'{name}' cannot be filtered like this",
            allowed="values of a keyword attribute, or a range of a numeric one",
        )

    def _keyword(self, wanted: Filter) -> str:
        name = wanted.attribute
        folded = {term(name, "v", v.casefold()) for v in wanted.values}
        terms = sorted(folded | {term(name, "i", v) for v in wanted.values})
        found = contains_any(keyword_field(name), terms)
        if not wanted.exclude:
            return found
        if self._negation:
            return f"not ({found})"
        return join("and", [lacks_flag(flag_field(name), t) for t in terms])


def _terms(item: Item, name: str) -> list[int]:
    values = {term(name, "v", str(v.value).casefold()) for v in item.values(name)}
    return sorted(values | {term(name, "i", v.item_id) for v in item.values(name) if v.item_id})


def _range(wanted: Filter, attribute: str, most: int) -> str:
    field, count = number_field(attribute), count_field(attribute)
    if wanted.exclude:
        return no_number_in(field, count, most, wanted.minimum, wanted.maximum)
    return any_number_in(field, most, wanted.minimum, wanted.maximum) or NOTHING
