"""Exact scores of the matches that an engine found: the same numbers whichever engine it was.

A match of an item scores the sum, over the query's tokens and the fields they are found in, of

    boost * weight * idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average length))

with k1 = 1.2 and b = 0.75 (BM25: Robertson & Zaragoza, 2009), summed per field rather than
pooled (not BM25F). The tokens that stand for one word of the query (its stem mates, corrections,
completions) are counted together, each as much as it is worth next to the best of them: having a
word in three forms is no better than having it thrice. Whole values add
`boost * confidence * idf * weight of the value`. The sum is multiplied by the popularity prior,
`log2(2 + w * popularity)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from generators.lexical.binding import K1, B, Plan
from generators.lexical.corpus import Statistics
from generators.lexical.rows import COUNT_BITS, gather

Floats = npt.NDArray[np.float64]
_BUCKETS = 4_096


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of some rows, and what they are made of, in the order of the rows."""

    scores: Floats
    owners: npt.NDArray[np.intp]
    """For every match, the place of its row among the rows."""
    keys: npt.NDArray[np.int64]
    worths: Floats
    """What each match adds, before the popularity prior."""


def score(
    rows: npt.NDArray[np.int64],
    plan: Plan,
    known: Statistics,
    popularity_weight: float,
) -> Scored:
    """Return the scores of rows, in their order; without weights, the popularity prior alone."""
    weights = plan.weights
    prior: Floats = np.log2(2.0 + popularity_weight * known.rows.popularity[rows])
    if not weights or not len(rows):
        nothing = np.empty(0, np.int64)
        return Scored(prior, nothing.astype(np.intp), nothing, np.empty(0))
    wanted = np.array(sorted(weights), np.uint64)
    worth = np.array([weights[int(key)] for key in wanted])
    packed, ends = gather(known.rows, rows)
    matched = _positions(packed >> COUNT_BITS, wanted)
    owners = np.searchsorted(ends, matched, side="right")
    postings = packed[matched]
    keys = postings >> COUNT_BITS
    counts = (postings & np.uint64(255)).astype(np.float64)

    places = np.searchsorted(wanted, keys)
    texts = len(known.layout.texts)
    fields = (keys % np.uint64(known.layout.fields)).astype(np.intp)
    in_text = fields < texts
    text_fields = np.where(in_text, fields, 0)
    average = np.maximum(known.lengths / max(1, known.items), 1e-9)
    lengths = known.rows.lengths[rows[owners], text_fields]
    norm = K1 * (1.0 - B + B * lengths / average[text_fields])
    words = _words(wanted, plan.words, known.layout.fields)
    share, most = _shares(worth, words)
    counts *= np.where(in_text, share[places], 1.0)
    together = _together(owners, words[places], counts, len(rows))
    saturation = np.where(in_text, counts * (K1 + 1) / (together + norm), counts / 255.0)
    worths = np.where(in_text, most[places], worth[places]) * saturation
    sums = np.bincount(owners, worths, len(rows))
    return Scored(sums * prior, owners, keys.astype(np.int64), worths)


def _words(
    keys: npt.NDArray[np.uint64], meant: Mapping[int, int], fields: int
) -> npt.NDArray[np.intp]:
    """Return by key a number that keys share if they stand for one word in one field."""
    numbers: dict[tuple[int, int], int] = {}
    found = np.empty(len(keys), np.intp)
    for place, key in enumerate(keys.tolist()):
        # A key that stands for no word, such as that of a title, stands alone.
        word = (meant[key], key % fields) if key in meant else (-1, key)
        found[place] = numbers.setdefault(word, len(numbers))
    return found


def _shares(worth: Floats, words: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Return what each key is worth next to the best key of its word, and what that is worth."""
    best = np.zeros(int(words.max()) + 1)
    np.maximum.at(best, words, worth)
    most: Floats = best[words]
    return worth / most, most


def _together(
    owners: npt.NDArray[np.intp], words: npt.NDArray[np.intp], counts: Floats, rows: int
) -> Floats:
    """Return, for every match, the count of all matches of its word in its row."""
    if not len(words):
        return counts
    columns = int(words.max()) + 1
    cells = owners * columns + words
    pooled: Floats = np.bincount(cells, counts, rows * columns)[cells]
    return pooled


def _positions(
    keys: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64]
) -> npt.NDArray[np.intp]:
    """Return where `keys` holds one of `wanted`, which is sorted."""
    # Nearly all keys are not wanted, and a look at their low bits tells so.
    low_bits = np.uint64(_BUCKETS - 1)
    maybe = np.zeros(_BUCKETS, np.bool_)
    maybe[wanted & low_bits] = True
    candidates = np.flatnonzero(maybe[keys & low_bits])
    found = keys[candidates]
    places = np.minimum(np.searchsorted(wanted, found), len(wanted) - 1)
    positions: npt.NDArray[np.intp] = candidates[wanted[places] == found]
    return positions
