"""Why an item was found: the fields and values that the words of the query met."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from forage.retrieval import Reason
from generators.lexical.corpus import Statistics
from generators.lexical.rows import ShownValue
from generators.lexical.scoring import Scored

_MOST_REASONS = 3
_IN_FULL = 25
"""Hits whose values are looked up; whoever is further down gets the word that counted most."""


class Reasons:
    """Explains the hits of one answer.

    Kinds: `field`, such as `cast: Tom Hanks`, with its share of the score before the popularity
    prior; `popularity`, where no word was asked for.
    """

    def __init__(self, rows: npt.NDArray[np.int64], scored: Scored, known: Statistics) -> None:
        """Explain rows by what they scored."""
        self._rows = rows
        self._scored = scored
        self._known = known
        self._brief: dict[int, tuple[Reason, ...]] = {}

    def of(self, chosen: npt.NDArray[np.intp]) -> list[tuple[Reason, ...]]:
        """Return the reasons of chosen places among the rows, best hits first."""
        starts = np.searchsorted(self._scored.owners, chosen, side="left").tolist()
        ends = np.searchsorted(self._scored.owners, chosen, side="right").tolist()
        found: list[tuple[Reason, ...]] = []
        for rank, (start, end) in enumerate(zip(starts, ends, strict=True)):
            row = int(self._rows[chosen[rank]])
            if start == end:
                popularity = float(self._known.rows.popularity[row])
                reason = Reason("popularity", f"popularity {popularity:.2f}", popularity)
                found.append((reason,))
            elif rank < _IN_FULL:
                found.append(self._in_full(row, start, end))
            else:
                found.append(self._in_brief(start, end))
        return found

    def _in_full(self, row: int, start: int, end: int) -> tuple[Reason, ...]:
        """Return the weightiest values of a row, at most three."""
        keys = self._scored.keys[start:end].tolist()
        worths = self._scored.worths[start:end].tolist()
        shares: dict[str, float] = {}
        for key, worth in zip(keys, worths, strict=True):
            detail = self._detail(self._known.rows.shown[row], key)
            shares[detail] = shares.get(detail, 0.0) + worth
        total = sum(worths)
        ranked = sorted(shares.items(), key=lambda share: (-share[1], share[0]))
        return tuple(Reason("field", text, worth / total) for text, worth in ranked[:_MOST_REASONS])

    def _in_brief(self, start: int, end: int) -> tuple[Reason, ...]:
        best = start if end == start + 1 else start + int(self._scored.worths[start:end].argmax())
        key = int(self._scored.keys[best])
        if key not in self._brief:
            self._brief[key] = (Reason("field", self._detail((), key)),)
        return self._brief[key]

    def _detail(self, shown: Sequence[ShownValue], key: int) -> str:
        """Return the first of the values that the key is found in, with the name of its field."""
        layout = self._known.layout
        token, field = divmod(key, layout.fields)
        text = self._known.vocabulary.terms[token]
        if field < len(layout.texts):
            text = next((v.text for v in shown if v.field == field and key in v.keys), text)
        else:
            # Terms of whole values and titles bear a mark in front, and are folded.
            text = text[1:]
            name = layout.field_name(field)
            if name in layout.texts:
                place = layout.texts.index(name)
                same = (v.text for v in shown if v.field == place)
                text = next(
                    (t for t in same if field == layout.title_field or t.casefold() == text), text
                )
        return f"{layout.field_name(field)}: {text}"
