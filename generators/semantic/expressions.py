"""Filters as Milvus boolean expressions, with the meaning of `forage.catalog.matches`.

No text of a filter ever enters an expression: what is compared are 62-bit hashes of folded
values, so there is nothing to escape. Each keyword attribute is an array of hashes. Milvus Lite
evaluates no NOT, so there it is also a JSON object whose keys are the hashes: `not in` holds for
an absent key. One object per attribute, because every row's is parsed.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forage.catalog.item import Item
from forage.catalog.schema import Role, Schema
from forage.errors import InvalidArgumentError
from forage.retrieval import Filter

NOTHING = "kind in [-1]"
"""An expression that no item satisfies: hashes are not negative."""
_LARGEST = sys.float_info.max


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


def term(attribute: str, sort: str, value: str) -> int:
    """Return the hash, in [0, 2^62), of a value (`sort` v), an item id (i) or a kind (k)."""
    content = f"{attribute}\0{sort}\0{value}".encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()) >> 2


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
        return _join("and", [part for part in parts if part])

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
        found = f"array_contains_any({keyword_field(name)}, {terms})"
        if not wanted.exclude:
            return found
        if self._negation:
            return f"not ({found})"
        return _join("and", [f'{flag_field(name)}["{t:x}"] not in [1]' for t in terms])


def flags(terms: Sequence[int]) -> dict[str, int]:
    """Return an attribute's hashes as the keys of a JSON object."""
    return {f"{t:x}": 1 for t in terms}


def _terms(item: Item, name: str) -> list[int]:
    values = {term(name, "v", str(v.value).casefold()) for v in item.values(name)}
    return sorted(values | {term(name, "i", v.item_id) for v in item.values(name) if v.item_id})


def _range(wanted: Filter, attribute: str, most: int) -> str:
    field, count = number_field(attribute), count_field(attribute)
    low = repr(-_LARGEST if wanted.minimum is None else float(wanted.minimum))
    high = repr(_LARGEST if wanted.maximum is None else float(wanted.maximum))
    if not wanted.exclude:
        inside = [f"({field}[{i}] >= {low}) and ({field}[{i}] <= {high})" for i in range(most)]
        return _join("or", [f"({part})" for part in inside]) or NOTHING
    # A comparison beyond the end of an array is false, hence the counts.
    outside = [
        f"({count} <= {i}) or (({field}[{i}] < {low}) or ({field}[{i}] > {high}))"
        for i in range(most)
    ]
    return _join("and", [f"({part})" for part in outside])


def _join(operator: str, parts: Sequence[str]) -> str:
    """Join by a balanced tree: Milvus Lite refuses expressions that nest some hundred deep."""
    if len(parts) <= 2:
        return f" {operator} ".join(f"({p})" for p in parts) if len(parts) == 2 else "".join(parts)
    half = len(parts) // 2
    return f"({_join(operator, parts[:half])}) {operator} ({_join(operator, parts[half:])})"
