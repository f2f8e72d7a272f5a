"""What a query says, once parsed: a tree that knows nothing of engines or of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Words:
    """Plain text: any of its words."""

    text: str
    field: str = ""
    """A text attribute; empty for all of them."""
    boost: float = 1.0
    unfinished: bool = False
    """Whether the last word may still be being typed."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words next to each other, in order, within one value of a field."""

    text: str
    field: str = ""
    boost: float = 1.0


@dataclass(frozen=True, slots=True)
class Prefix:
    """Any word that begins so."""

    text: str
    field: str = ""
    boost: float = 1.0


@dataclass(frozen=True, slots=True)
class Fuzzy:
    """Any word at most `edits` (0 to 2) edits away."""

    text: str
    edits: int
    field: str = ""
    boost: float = 1.0


@dataclass(frozen=True, slots=True)
class Exactly:
    """The whole value of an attribute that has no text role, or the item's kind."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Range:
    """A number or time between two bounds; None is open."""

    field: str
    low: float | None
    high: float | None
    low_included: bool = True
    high_included: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """All of `required`, none of `excluded`; if nothing is required, at least one `optional`."""

    required: tuple[Node, ...] = ()
    optional: tuple[Node, ...] = ()
    excluded: tuple[Node, ...] = ()


Node: TypeAlias = "Words | Phrase | Prefix | Fuzzy | Exactly | Range | Group"
