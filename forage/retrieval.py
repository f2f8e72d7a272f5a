"""What a search is made of, in process: the query, what was understood of it, and what was found.

These types know nothing of gRPC; `forage.wire` converts them to and from `forage.v1` messages.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from forage.errors import DeadlineExceededError


class QueryClass(StrEnum):
    """What kind of need a query expresses (Broder, 2002, extended with browse and empty)."""

    NAVIGATIONAL = "navigational"
    """One particular item is wanted: its title or name was (nearly) typed."""
    TOPICAL = "topical"
    """Items about something: free words, none or few of them known entities."""
    BROWSE = "browse"
    """Only entities or filters: a genre, a person's work, a year."""
    EMPTY = "empty"
    """No words, filters, or example items at all."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One reading of a stretch of query tokens as an attribute value."""

    attribute: str
    """The attribute the words were read as, such as `cast`; `title` for an item's own name."""
    value: str
    """The canonical value, such as `Tom Hanks`; of a year, `1994`, or a span, `1990..1995`."""
    confidence: float
    """In (0, 1]: 1 for an exact, unambiguous match; less for typos, prefixes, ambiguity."""
    item_id: str = ""
    """The item that the value names; empty for a plain value."""
    start: int = 0
    """Index of the first token read."""
    end: int = 0
    """Index after the last token read."""


@dataclass(frozen=True, slots=True)
class Interpretation:
    """One consistent reading of the whole query: slots that do not overlap, and the rest."""

    slots: tuple[Slot, ...]
    residual: str
    """The words no slot explains, in query order."""
    confidence: float
    """In (0, 1]; the interpretations of a query sum to at most 1."""


@dataclass(frozen=True, slots=True)
class UserContext:
    """What is known of the person who searches. All of it optional."""

    user_id: str = ""
    recent_item_ids: tuple[str, ...] = ()
    """Items engaged with, latest first."""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Filter:
    """A hard constraint: items that do not satisfy it must not be returned.

    Exactly one of `values` and a range is set. `values` match if any equals one of the item's
    values of the attribute (case-folded); a range is inclusive and either end may be open. The
    attribute `kind` filters by item kind. `exclude` negates the whole.
    """

    attribute: str
    values: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    exclude: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A search as the generators and the ranker see it."""

    text: str = ""
    """As typed, NFC, without control characters; may use the query language. May be empty."""
    normalized: str = ""
    """Lower-cased, accent-folded tokens joined by one space: the key of the memory index."""
    tokens: tuple[str, ...] = ()
    language: str = "en"
    """ISO 639-1 code, best guess."""
    query_class: QueryClass = QueryClass.EMPTY
    interpretations: tuple[Interpretation, ...] = ()
    """Most likely first."""
    filters: tuple[Filter, ...] = ()
    user: UserContext = UserContext()
    like_item_ids: tuple[str, ...] = ()
    """`More like these`: example items given by the caller."""
    locale: str = ""
    """BCP 47 tag such as `en-GB`; empty if unknown."""
    device: str = ""
    time: float = 0.0
    """When the search was made, seconds since the epoch."""
    request_id: str = ""
    seed: int = 0
    """64-bit seed of this request's randomness: same seed, same answer."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a generator returned an item, for a person and for a program.

    `kind` is one word of the generator's own closed set (`field`, `neighbour`, `path`,
    `query`, `novelty`, ...); `detail` is short text such as `cast: Tom Hanks`.
    """

    kind: str
    detail: str
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Hit:
    """One item found, scored on its generator's own scale."""

    item_id: str
    score: float
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What one generator found: hits best first, no item twice."""

    hits: tuple[Hit, ...]
    scanned: int = 0
    """How many items or postings were considered; a measure of work, not of quality."""


class Deadline:
    """A point in monotonic time by which an answer must exist."""

    __slots__ = ("_at",)

    def __init__(self, at: float) -> None:
        self._at = at

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline `seconds` from now; `math.inf` never expires."""
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Return the seconds left; negative once the deadline has passed."""
        return self._at - time.monotonic()

    def earlier(self, seconds: float) -> Deadline:
        """Return a deadline `seconds` before this one: time kept back for what comes after."""
        return Deadline(self._at - seconds)

    def check(self) -> None:
        """Raise `DeadlineExceededError` if the deadline has passed."""
        if self.remaining() <= 0:
            raise DeadlineExceededError("the deadline passed before the work was done")


class Retriever(Protocol):
    """Finds items for one query, in process and without knowing about gRPC.

    Calls run on worker threads, several at a time and alongside index updates. Finding nothing
    is an empty `Retrieval`; being unable to look is an `UnavailableError`.
    """

    @property
    def name(self) -> str:
        """The name the bandit, the traces and the configuration know this generator by."""
        ...

    def retrieve(
        self, query: Query, limit: int, deadline: Deadline, *, explain: bool = False
    ) -> Retrieval:
        """Return at most `limit` hits that satisfy every filter, best first.

        Hits have reasons if `explain` is set; otherwise reasons that cost time may be left out.
        Raises `DeadlineExceededError` if the deadline passes first, `UnavailableError` if the
        index cannot be searched, and `InvalidArgumentError` for a query it cannot read.
        """
        ...
