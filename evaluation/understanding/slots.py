"""Slots: does the best interpretation mark the words that people marked, as the same thing?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation.bootstrap import Interval, mean_interval
from evaluation.understanding.utterances import GoldSlot, Utterance
from forage.retrieval import Interpretation, Slot
from forage.text import tokenize
from orchestrator.understanding import Gazetteer, Understanding

_MISSES = 15


@dataclass(frozen=True, slots=True)
class SlotScores:
    """How one kind of annotation was read."""

    kind: str
    gold: int
    """How many stretches people marked."""
    known: int
    """How many of them are, word for word, names or values in the catalogue."""
    recall: Interval
    """Share of the known that the best interpretation marks as this kind."""
    recall_any: Interval
    """The same over all interpretations of the query."""
    precision: Interval
    """Share of the best interpretations' slots of this kind that people marked so."""


@dataclass(frozen=True, slots=True)
class SlotReport:
    """Scores by kind, what was missed, and how much was read into words that mean nothing."""

    collection: str
    utterances: int
    scores: tuple[SlotScores, ...]
    misses: tuple[str, ...]
    """Known slots that were missed, with the reading made instead."""
    spurious_titles: Interval | None
    """Share of queries without a marked title whose best reading claims one."""


def score_slots(
    collection: str,
    utterances: Sequence[Utterance],
    understanding: Understanding,
    gazetteer: Gazetteer,
    *,
    attributes: Mapping[str, frozenset[str]],
    title: str,
    titles: frozenset[str] = frozenset(),
    seed: int = 0,
) -> SlotReport:
    """Return how well slots of the kinds in `attributes` are read.

    `attributes` says as which attributes of the catalogue a kind may be read. A slot is right if
    it covers exactly the words that were marked and is read as one of its kind's attributes.
    `title` is the schema's title attribute, and `titles` are the kinds that mark titles.
    """
    rng = np.random.default_rng(seed)
    found = {u.query_id: understanding.interpret(tokenize(u.text)) for u in utterances}
    scores, misses = [], list[str]()
    for kind, allowed in attributes.items():
        reading = _read(kind, allowed, utterances, found, gazetteer)
        misses += reading.misses
        shares = (reading.best, reading.anywhere, reading.precise)
        recall, recall_any, precision = (mean_interval(one or [0.0], rng) for one in shares)
        known = len(reading.best)
        scores.append(SlotScores(kind, reading.gold, known, recall, recall_any, precision))
    untitled = [u for u in utterances if not any(s.kind in titles for s in u.slots)]
    claimed = [float(any(s.attribute == title for s in _best(found[u.query_id]))) for u in untitled]
    picked = rng.permutation(len(misses))[:_MISSES]
    return SlotReport(
        collection,
        len(utterances),
        tuple(scores),
        tuple(misses[i] for i in sorted(picked)),
        mean_interval(claimed, rng) if claimed else None,
    )


@dataclass(slots=True)
class _Reading:
    """How the slots of one kind were read, one by one."""

    gold: int = 0
    best: list[float] = field(default_factory=list)
    anywhere: list[float] = field(default_factory=list)
    precise: list[float] = field(default_factory=list)
    misses: list[str] = field(default_factory=list)


def _read(
    kind: str,
    allowed: frozenset[str],
    utterances: Sequence[Utterance],
    found: Mapping[str, Sequence[Interpretation]],
    gazetteer: Gazetteer,
) -> _Reading:
    reading = _Reading()
    for utterance in utterances:
        readings = found[utterance.query_id]
        tokens = tokenize(utterance.text)
        wanted = [s for s in utterance.slots if s.kind == kind and s.tokens]
        reading.gold += len(wanted)
        for slot in wanted:
            if not _known(gazetteer, slot, allowed):
                continue
            right = _marks(readings[:1], tokens, slot, allowed)
            reading.best.append(float(right))
            reading.anywhere.append(float(_marks(readings, tokens, slot, allowed)))
            if not right:
                reading.misses.append(_miss(utterance, slot, readings))
        marked = {s.tokens for s in wanted}
        reading.precise.extend(
            float(tokens[s.start : s.end] in marked)
            for s in _best(readings)
            if s.attribute in allowed
        )
    return reading


def _known(gazetteer: Gazetteer, slot: GoldSlot, allowed: frozenset[str]) -> bool:
    if any(m.attribute in allowed for m in gazetteer.meanings(slot.tokens)):
        return True
    years = [gazetteer.years()[a] for a in allowed if a in gazetteer.years()]
    word = slot.tokens[0]
    return len(slot.tokens) == 1 and any(
        word.isdecimal() and low <= int(word) <= high for low, high in years
    )


def _best(readings: Sequence[Interpretation]) -> tuple[Slot, ...]:
    return readings[0].slots if readings else ()


def _marks(
    readings: Iterable[Interpretation],
    tokens: tuple[str, ...],
    slot: GoldSlot,
    allowed: frozenset[str],
) -> bool:
    return any(
        s.attribute in allowed and tokens[s.start : s.end] == slot.tokens for s in _all(readings)
    )


def _all(readings: Iterable[Interpretation]) -> Iterator[Slot]:
    for reading in readings:
        yield from reading.slots


def _miss(utterance: Utterance, slot: GoldSlot, readings: Sequence[Interpretation]) -> str:
    made = ", ".join(f"{s.attribute}={s.value}" for s in _best(readings)) or "nothing"
    return f"{utterance.text!r}: {slot.kind} {' '.join(slot.tokens)!r} was read as {made}"
