"""What the engines are asked to find, and what an engine is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from forage.retrieval import Filter
from generators.lexical.layout import Document


@dataclass(frozen=True, slots=True)
class AnyToken:
    """Any of these tokens in these text fields, each (attribute, token, weight of its score)."""

    tokens: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True, slots=True)
class Adjacent:
    """Two or more tokens next to each other in any of these text attributes. Not scored."""

    attributes: tuple[str, ...]
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HasValue:
    """Any of these terms among an attribute's whole values; `score` is added where it holds."""

    attribute: str
    terms: tuple[str, ...]
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class HasTitle:
    """A whole title; `score` is added where it holds."""

    term: str
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class OfKind:
    """Any of these kinds. Not scored."""

    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """A number between two bounds; None is open. Not scored."""

    attribute: str
    low: float | None
    high: float | None
    low_included: bool = True
    high_included: bool = True


@dataclass(frozen=True, slots=True)
class Combination:
    """All of `required`, none of `excluded`; if nothing is required, at least one `optional`.

    Without any required or optional clause it holds for everything not excluded.
    """

    required: tuple[Clause, ...] = ()
    optional: tuple[Clause, ...] = ()
    excluded: tuple[Clause, ...] = ()


@dataclass(frozen=True, slots=True)
class Nothing:
    """Holds for no item."""


Clause: TypeAlias = (
    "AnyToken | Adjacent | HasValue | HasTitle | OfKind | Between | Combination | Nothing"
)


class Searcher(Protocol):
    """One state of an engine's index. Safe to use from several threads."""

    def best(self, clause: Clause, filters: Sequence[Filter], depth: int) -> list[int]:
        """Return rows that satisfy clause and filters.

        If there are more than `depth`, an engine may leave out those it scores below that many
        others; its score is near enough to the exact one not to lose any of the best half.
        """
        ...

    def popular(self, clause: Clause, filters: Sequence[Filter], depth: int) -> list[int]:
        """Return the `depth` rows that satisfy clause and filters with the greatest popularity.

        Ties are broken by `layout.tie`, greater first.
        """
        ...


class Engine(Protocol):
    """An inverted index in a folder. One thread writes; searchers see the last commit."""

    def write(self, removed: Iterable[str], added: Sequence[Document]) -> None:
        """Remove items by id, add documents, and make all of it durable.

        Raises `StorageError` if that is impossible.
        """
        ...

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """Yield the row of every document, and what it was when packed."""
        ...

    def searcher(self) -> Searcher:
        """Return the state after the last `write`."""
        ...

    def close(self) -> None:
        """Release files."""
        ...
