"""Readings: which names each stretch of a query's words may stand for, and how surely."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import Field

from forage.catalog import years
from forage.retrieval import Slot
from forage.settings import Settings
from orchestrator.understanding.gazetteer import MAX_NAME_TOKENS, Correction, Gazetteer, Meaning
from orchestrator.understanding.periods import period

_PLURALS = (("ies", "y"), ("es", ""), ("s", ""))
_SURE = 0.5
"""A reading above this needs no correction of its words."""
_CORRECTED_WORDS = 4
"""Longer stretches are not corrected: the combinations would be too many."""
_CORRECTIONS = 6
_MOST_EDITS = 2
"""In one stretch of words."""
_MOST_CORRECTED = 12
"""How many different words of one query are corrected: each look-up takes part of a millisecond."""


class ReadingSettings(Settings):
    """How surely imperfect matches count."""

    meanings: int = Field(default=4, ge=1, le=20)
    """How many meanings of one stretch of words are considered."""
    edit_factor: float = Field(default=0.7, gt=0, le=1)
    """Confidence is multiplied by this for every edit of a corrected word."""
    plural_factor: float = Field(default=0.8, gt=0, le=1)
    """Confidence is multiplied by this for a plural of a value; titles have none."""
    prefix_factor: float = Field(default=0.6, gt=0, le=1)
    """Confidence is multiplied by this for a word that was completed."""


class Reader:
    """Reads one query. Exact names first, for what they explain needs no correction."""

    def __init__(
        self,
        gazetteer: Gazetteer,
        settings: ReadingSettings,
        tokens: tuple[str, ...],
        function_words: Collection[str],
    ) -> None:
        self._gazetteer = gazetteer
        self._settings = settings
        self._tokens = tokens
        self._function_words = function_words
        self._known = {t: gazetteer.knows(t) for t in tokens}
        self._corrections: dict[str, list[Correction]] = {}

    def readings(self) -> dict[int, list[Slot]]:
        """Return, by first token, the slots that a stretch beginning there may be."""
        spans = [
            (start, end)
            for start in range(len(self._tokens))
            for end in range(start + 1, min(len(self._tokens), start + MAX_NAME_TOKENS) + 1)
        ]
        exact = {span: self._exact(self._tokens[span[0] : span[1]], *span) for span in spans}
        periods = self._periods(spans)
        explained = {
            index
            for (start, end), slots in exact.items()
            if end - start > 1 and any(s.confidence > _SURE for s in slots)
            for index in range(start, end)
        }
        readings: dict[int, list[Slot]] = {}
        for span in spans:
            said = periods.get(span, [])
            slots = [*exact[span], *said, *self._inexact(span, [*exact[span], *said], explained)]
            if slots:
                readings.setdefault(span[0], []).extend(self._best(slots))
        return readings

    def _inexact(self, span: tuple[int, int], exact: list[Slot], explained: set[int]) -> list[Slot]:
        start, end = span
        words = self._tokens[start:end]
        if explained.intersection(range(start, end)):
            return []
        slots: list[Slot] = []
        if not any(s.confidence > _SURE for s in exact):
            slots.extend(self._one_of_many(words, start, end))
            slots.extend(self._corrected(words, start, end))
        if not exact or len(words) <= 3:
            slots.extend(self._partial(words, start, end))
        return slots

    def _best(self, slots: list[Slot]) -> list[Slot]:
        best: dict[tuple[str, str, str], Slot] = {}
        for slot in slots:
            key = (slot.attribute, slot.value, slot.item_id)
            if key not in best or slot.confidence > best[key].confidence:
                best[key] = slot
        ranked = sorted(best.values(), key=lambda s: (-s.confidence, s.value, s.item_id))
        return ranked[: self._settings.meanings]

    def _exact(
        self, words: tuple[str, ...], start: int, end: int, factor: float = 1.0
    ) -> list[Slot]:
        found = self._gazetteer.meanings(words)[: self._settings.meanings * 2]
        if not found:
            return []
        total = sum(m.prior for m in found)
        sure = factor * (1.0 if len(words) > 1 else 0.85)
        return [_slot(m, sure * (0.5 + 0.5 * m.prior / total), start, end) for m in found]

    def _one_of_many(self, words: tuple[str, ...], start: int, end: int) -> list[Slot]:
        """Read an English plural, such as `comedies`, as the value it is a plural of."""
        return [
            slot
            for ending, singular in _PLURALS
            if words[-1].endswith(ending) and len(words[-1]) > len(ending) + 2
            for slot in self._exact(
                (*words[:-1], words[-1].removesuffix(ending) + singular),
                start,
                end,
                self._settings.plural_factor,
            )
            if slot.attribute != self._gazetteer.title
        ]

    def _corrected(self, words: tuple[str, ...], start: int, end: int) -> list[Slot]:
        """Read misspelt names; a word that is in some name is corrected only beside others.

        Function words do not count as others: "the main" is not `The Man`.
        """
        known = all(self._known[word] for word in words)
        if len(words) > _CORRECTED_WORDS or (known and self._content(words) < 2):
            return []
        choices: list[tuple[tuple[str, ...], int]] = [((), 0)]
        for word in words:
            choices = [
                ((*before, spelling.word), edits + spelling.edits)
                for before, edits in choices
                for spelling in self._spellings(word)
                if edits + spelling.edits <= _MOST_EDITS
            ]
        slots: list[Slot] = []
        for corrected, edits in choices:
            if edits:
                factor = self._settings.edit_factor**edits
                slots.extend(self._exact(corrected, start, end, factor))
        return slots

    def _content(self, words: tuple[str, ...]) -> int:
        """Return how many of the words mean something by themselves."""
        return sum(word not in self._function_words for word in words)

    def _spellings(self, word: str) -> list[Correction]:
        found = self._corrections.get(word)
        if found is None:
            found = [Correction(word, 0)]
            if len(self._corrections) < _MOST_CORRECTED:
                found.extend(self._gazetteer.corrections(word, _CORRECTIONS))
                self._corrections[word] = found
        return found

    def _partial(self, words: tuple[str, ...], start: int, end: int) -> list[Slot]:
        """Read words as part of a longer name; the last unknown word may be unfinished."""
        if not self._content(words):
            return []
        slots = []
        for attempt, factor in self._attempts(words, last=end == len(self._tokens)):
            for meaning, coverage in self._gazetteer.partial(attempt, self._settings.meanings):
                confidence = factor * coverage * (0.3 + 0.7 * meaning.prior)
                slots.append(_slot(meaning, min(confidence, 0.95), start, end))
        return slots

    def _attempts(
        self, words: tuple[str, ...], *, last: bool
    ) -> list[tuple[tuple[str, ...], float]]:
        unknown = [i for i, w in enumerate(words) if not self._known[w]]
        if not unknown:
            return [(words, 1.0)]
        if len(unknown) > 1:
            return []
        at = unknown[0]
        attempts = [
            ((*words[:at], s.word, *words[at + 1 :]), self._settings.edit_factor**s.edits)
            for s in self._spellings(words[at])[1:4]
        ]
        if last and at == len(words) - 1:
            attempts.extend(
                ((*words[:-1], word), self._settings.prefix_factor)
                for word in self._gazetteer.completions(words[-1], 3)
            )
        return attempts

    def _periods(self, spans: list[tuple[int, int]]) -> dict[tuple[int, int], list[Slot]]:
        """Read stretches as years; what is part of a longer one names no years by itself."""
        known = self._gazetteer.years()
        if not known:
            return {}
        found = {s: p for s in spans if (p := period(self._tokens[s[0] : s[1]])) is not None}
        widest = [
            (start, end)
            for start, end in found
            if not any(
                first <= start and end <= last and (first, last) != (start, end)
                for first, last in found
            )
        ]
        return {
            (start, end): [
                Slot(attribute, years.value(*bounds), found[start, end].confidence, "", start, end)
                for attribute, (low, high) in known.items()
                if (bounds := found[start, end].within(low, high)) is not None
            ]
            for start, end in widest
        }


def _slot(meaning: Meaning, confidence: float, start: int, end: int) -> Slot:
    return Slot(meaning.attribute, meaning.value, confidence, meaning.item_id, start, end)
