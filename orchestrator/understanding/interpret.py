"""Query understanding: words to weighted interpretations, never a single one.

Every stretch of words is read as the names it may stand for: exactly, with typos corrected, as
part of a name, or, for the last word, as its beginning. A beam search then combines readings that
do not overlap into interpretations of the whole query, and normalises their confidences.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

from pydantic import Field

from forage.catalog import Schema
from forage.retrieval import Filter, Interpretation, Query, QueryClass, Slot, UserContext
from forage.settings import Settings
from orchestrator.understanding.gazetteer import MAX_NAME_TOKENS, Gazetteer, Meaning
from orchestrator.understanding.text import clean, language, plain_words, tokenize

_DECADE = re.compile(r"^(?:(\d{3})0s|(\d)0s)$")
_YEAR = re.compile(r"^[12]\d{3}$")


class UnderstandingSettings(Settings):
    """How queries are read."""

    interpretations: int = Field(default=5, ge=1, le=20)
    """How many readings of the whole query are kept."""
    meanings: int = Field(default=4, ge=1, le=20)
    """How many meanings of one stretch of words are considered."""
    edit_factor: float = Field(default=0.7, gt=0, le=1)
    """Confidence is multiplied by this for every edit of a corrected word."""
    prefix_factor: float = Field(default=0.6, gt=0, le=1)
    """Confidence is multiplied by this for a word that was completed."""
    residual_factor: float = Field(default=0.35, gt=0, le=1)
    """An interpretation is multiplied by this for every word it leaves unexplained."""


@dataclass(frozen=True, slots=True)
class _Spelling:
    word: str
    factor: float


class Understanding:
    """Turns what was typed into a `Query`."""

    def __init__(
        self, schema: Schema, gazetteer: Gazetteer, settings: UnderstandingSettings
    ) -> None:
        self._schema = schema
        self._fields = frozenset(schema.attributes) | {"kind"}
        self._gazetteer = gazetteer
        self._settings = settings

    def understand(
        self,
        text: str,
        *,
        filters: tuple[Filter, ...] = (),
        user: UserContext | None = None,
        like_item_ids: tuple[str, ...] = (),
        locale: str = "",
        device: str = "",
        time: float,
        request_id: str,
        seed: int,
    ) -> Query:
        """Return the understood query; raises `InvalidArgumentError` for text it cannot take."""
        cleaned = clean(text)
        words = plain_words(cleaned, self._fields)
        tokens = tokenize(words)
        interpretations = self.interpret(tokens)
        constrained = bool(filters or like_item_ids or (cleaned and not tokens))
        return Query(
            text=cleaned,
            normalized=" ".join(tokens),
            tokens=tokens,
            language=language(cleaned, locale),
            query_class=self._classify(tokens, interpretations, constrained),
            interpretations=interpretations,
            filters=filters,
            user=user or UserContext(),
            like_item_ids=like_item_ids,
            locale=locale,
            device=device,
            time=time,
            request_id=request_id,
            seed=seed,
        )

    def interpret(self, tokens: tuple[str, ...]) -> tuple[Interpretation, ...]:
        """Return readings of the whole query, most likely first, confidences summing to 1."""
        readings = self._readings(tokens[:32])
        residual_factor = self._settings.residual_factor
        beams: list[list[tuple[float, tuple[Slot, ...]]]] = [[] for _ in range(len(tokens) + 1)]
        beams[0] = [(1.0, ())]
        width = self._settings.interpretations * 2
        for start in range(len(tokens)):
            here = sorted(beams[start], key=_rank)[:width]
            beams[start + 1].extend((score * residual_factor, slots) for score, slots in here)
            for slot in readings.get(start, ()):
                beams[slot.end].extend(
                    (score * slot.confidence, (*slots, slot)) for score, slots in here
                )
        best = sorted(beams[len(tokens)], key=_rank)
        kept = [(score, slots) for score, slots in best if slots][: self._settings.interpretations]
        if not kept:
            return ()
        plain = residual_factor ** len(tokens)
        total = plain + sum(score for score, _ in kept)
        return tuple(
            Interpretation(slots, _residual(tokens, slots), score / total) for score, slots in kept
        )

    def _readings(self, tokens: tuple[str, ...]) -> dict[int, list[Slot]]:
        readings: dict[int, list[Slot]] = {}
        for start in range(len(tokens)):
            for end in range(start + 1, min(len(tokens), start + MAX_NAME_TOKENS) + 1):
                last = end == len(tokens)
                slots = self._read(tokens[start:end], start, end, last=last)
                if slots:
                    readings.setdefault(start, []).extend(slots)
        return readings

    def _read(self, words: tuple[str, ...], start: int, end: int, *, last: bool) -> list[Slot]:
        slots = self._exact(words, start, end)
        if len(words) == 1:
            slots.extend(self._years(words[0], start, end))
        if not any(s.confidence > 0.5 for s in slots):
            slots.extend(self._corrected(words, start, end))
        if not slots or len(words) <= 3:
            slots.extend(self._partial(words, start, end, last=last))
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
        total = sum(m.prior for m in found)
        sure = factor * (1.0 if len(words) > 1 else 0.85)
        return [_slot(m, sure * (0.5 + 0.5 * m.prior / total), start, end) for m in found]

    def _corrected(self, words: tuple[str, ...], start: int, end: int) -> list[Slot]:
        spellings = [self._spellings(w) for w in words]
        slots: list[Slot] = []
        if len(words) <= 4:
            for choice in product(*spellings):
                corrected = tuple(s.word for s in choice)
                factor = 1.0
                for spelling in choice:
                    factor *= spelling.factor
                if corrected != words:
                    slots.extend(self._exact(corrected, start, end, factor))
        return slots

    def _spellings(self, word: str) -> list[_Spelling]:
        corrected = [
            _Spelling(c.word, self._settings.edit_factor**c.edits)
            for c in self._gazetteer.corrections(word, 3)
        ]
        return [_Spelling(word, 1.0), *corrected]

    def _partial(self, words: tuple[str, ...], start: int, end: int, *, last: bool) -> list[Slot]:
        candidates = [(words, 1.0)]
        if last and not self._gazetteer.knows(words[-1]):
            candidates = [
                ((*words[:-1], word), self._settings.prefix_factor)
                for word in self._gazetteer.completions(words[-1], 3)
            ]
            candidates.extend(
                ((*words[:-1], s.word), s.factor) for s in self._spellings(words[-1])[1:]
            )
        slots = []
        for attempt, factor in candidates:
            for meaning, coverage in self._gazetteer.partial(attempt, self._settings.meanings):
                confidence = factor * coverage * (0.3 + 0.7 * meaning.prior)
                slots.append(_slot(meaning, min(confidence, 0.95), start, end))
        return slots

    def _years(self, word: str, start: int, end: int) -> list[Slot]:
        slots = []
        for attribute, (low, high) in self._gazetteer.years().items():
            if _YEAR.match(word) and low <= int(word) <= high:
                slots.append(Slot(attribute, word, 0.9, "", start, end))
            decade = _DECADE.match(word)
            if decade:
                first = int(decade[1]) * 10 if decade[1] else 1900 + int(decade[2]) * 10
                if low <= first + 9 and first <= high:
                    slots.append(Slot(attribute, f"{first}..{first + 9}", 0.9, "", start, end))
        return slots

    def _classify(
        self,
        tokens: tuple[str, ...],
        interpretations: tuple[Interpretation, ...],
        constrained: bool,
    ) -> QueryClass:
        if not tokens:
            return QueryClass.BROWSE if constrained else QueryClass.EMPTY
        best = interpretations[0] if interpretations else None
        if best is None or best.residual or best.confidence < 0.3:
            return QueryClass.TOPICAL
        titles = [s for s in best.slots if s.attribute == self._schema.title]
        if titles and len(best.slots) == 1:
            return QueryClass.NAVIGATIONAL
        return QueryClass.TOPICAL if titles else QueryClass.BROWSE


def _slot(meaning: Meaning, confidence: float, start: int, end: int) -> Slot:
    return Slot(meaning.attribute, meaning.value, confidence, meaning.item_id, start, end)


def _rank(beam: tuple[float, tuple[Slot, ...]]) -> tuple[float, int, tuple[str, ...]]:
    score, slots = beam
    return -score, len(slots), tuple(s.item_id or s.value for s in slots)


def _residual(tokens: tuple[str, ...], slots: tuple[Slot, ...]) -> str:
    explained = {i for slot in slots for i in range(slot.start, slot.end)}
    return " ".join(t for i, t in enumerate(tokens) if i not in explained)
