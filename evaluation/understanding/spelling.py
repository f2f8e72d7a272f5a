"""Spelling: is a name found again after one or two slips of the finger?"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.bootstrap import Interval, mean_interval
from forage.errors import InvalidArgumentError
from forage.retrieval import Interpretation
from forage.text import normalize, tokenize
from orchestrator.understanding import Understanding

_LEAST_LETTERS = 4
"""Shorter words are left alone: a slip there makes another word."""
_MISSES = 15


@dataclass(frozen=True, slots=True)
class SpellingScores:
    """How names with one number of slips were read."""

    slips: int
    best: Interval
    """Share of names that the best interpretation names."""
    anywhere: Interval
    """Share of names among all interpretations."""


@dataclass(frozen=True, slots=True)
class SpellingReport:
    """Scores by number of slips, and names that were not found again."""

    collection: str
    names: int
    scores: tuple[SpellingScores, ...]
    misses: tuple[str, ...]


def slip(text: str, slips: int, rng: np.random.Generator) -> str:
    """Return the text with so many slips: a letter left out, doubled, swapped or mistaken.

    Slips fall into different words of at least four letters where there are enough, never on a
    word's first letter. The text comes back as it is if no word is long enough.
    """
    words = text.split()
    long = [i for i, word in enumerate(words) if len(word) >= _LEAST_LETTERS]
    for turn in range(slips if long else 0):
        if turn % len(long) == 0:
            order = rng.permutation(long)
        at = int(order[turn % len(long)])
        words[at] = _slipped(words[at], rng)
    return " ".join(words)


def _slipped(word: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, len(word)))
    kind = int(rng.integers(4))
    if kind == 0 and len(word) > 2:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    if kind == 2 and at + 1 < len(word) and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    others = [c for c in string.ascii_lowercase if c != word[at]]
    return word[:at] + others[int(rng.integers(len(others)))] + word[at + 1 :]


def score_spelling(
    collection: str,
    names: Sequence[str],
    understanding: Understanding,
    *,
    sample: int = 500,
    slips: Sequence[int] = (0, 1, 2),
    seed: int = 0,
) -> SpellingReport:
    """Return how often names are read right, by the number of slips in them.

    Raises `InvalidArgumentError` if there are no names with a word that is long enough.
    """
    usable = sorted({n for n in map(normalize, names) if _typable(n)})
    if not usable:
        raise InvalidArgumentError("names", "none", allowed="a name with a word of four letters")
    rng = np.random.default_rng(seed)
    chosen = [usable[i] for i in rng.permutation(len(usable))[:sample]]
    scores, misses = [], list[str]()
    for count in slips:
        best, anywhere = list[float](), list[float]()
        for name in chosen:
            typed = slip(name, count, rng)
            readings = understanding.interpret(tokenize(typed))
            best.append(float(_names(readings[:1], name)))
            anywhere.append(float(_names(readings, name)))
            if not anywhere[-1]:
                misses.append(f"{typed!r} for {name!r}")
        scores.append(SpellingScores(count, mean_interval(best, rng), mean_interval(anywhere, rng)))
    picked = rng.permutation(len(misses))[:_MISSES]
    return SpellingReport(
        collection, len(chosen), tuple(scores), tuple(misses[i] for i in sorted(picked))
    )


def _typable(name: str) -> bool:
    return name.isascii() and any(len(word) >= _LEAST_LETTERS for word in name.split())


def _names(readings: Sequence[Interpretation], name: str) -> bool:
    return any(normalize(slot.value) == name for reading in readings for slot in reading.slots)
