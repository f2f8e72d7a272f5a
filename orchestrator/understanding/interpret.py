"""Query understanding: words to weighted interpretations, never a single one.

Every stretch of words is read as the names it may stand for: exactly, with typos corrected, as
part of a name, or, for the last word, as its beginning. A beam search then combines readings that
do not overlap into interpretations of the whole query, and normalises their confidences.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from pydantic import Field
from whoosh.lang.stopwords import stoplists

from forage.catalog import Role, Schema
from forage.catalog.schema import Attribute
from forage.retrieval import Filter, Interpretation, Query, QueryClass, Slot, UserContext
from forage.text import tokenize
from orchestrator.understanding.gazetteer import Gazetteer
from orchestrator.understanding.readings import Reader, ReadingSettings
from orchestrator.understanding.text import check_fields, clean, language, plain_words


class UnderstandingSettings(ReadingSettings):
    """How queries are read."""

    interpretations: int = Field(default=5, ge=1, le=20)
    """How many readings of the whole query are kept."""
    residual_factor: float = Field(default=0.35, ge=0.01, le=1)
    """An interpretation is multiplied by this for every word it leaves unexplained."""
    second_title_factor: float = Field(default=0.15, ge=0.01, le=1)
    """An interpretation is multiplied by this for every title after the first."""
    sentence_tokens: int = Field(default=6, ge=2, le=100)
    """Queries of so many words are read as sentences: most of their words name nothing."""
    sentence_residual_factor: float = Field(default=0.7, ge=0.01, le=1)
    """In a sentence, the factor of an unexplained word; function words cost almost nothing."""
    sentence_partial_factor: float = Field(default=0.1, ge=0.01, le=1)
    """In a sentence, the factor of a reading as part of a longer name."""
    sentence_short_factor: float = Field(default=0.3, ge=0.01, le=1)
    """In a sentence, the factor of a reading as a title of one word, function words aside."""


_MOST_TOKENS = 32
_FUNCTION_WORD = 0.95
"""An unexplained function word of a sentence."""
_FUNCTION_NAME = 0.01
"""A name of function words only, such as `Who Is It`, inside a sentence."""
_Beam = tuple[float, tuple[Slot, ...]]


class Understanding:
    """Turns what was typed into a `Query`."""

    def __init__(
        self, schema: Schema, gazetteer: Gazetteer, settings: UnderstandingSettings
    ) -> None:
        self._schema = schema
        self._fields = frozenset(schema.attributes) | {"kind"}
        self._searchable = ("kind", *(n for n, a in schema.attributes.items() if _searched(a)))
        self._others = self._fields - set(self._searchable)
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
        check_fields(cleaned, self._searchable, self._others)
        words = plain_words(cleaned, self._fields)
        tokens = tokenize(words)
        spoken = language(cleaned, locale)
        interpretations = self.interpret(tokens, spoken)
        constrained = bool(filters or like_item_ids or (cleaned and not tokens))
        return Query(
            text=cleaned,
            normalized=" ".join(tokens),
            tokens=tokens,
            language=spoken,
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

    def interpret(
        self, tokens: tuple[str, ...], language: str = "en"
    ) -> tuple[Interpretation, ...]:
        """Return readings of the whole query, most likely first; confidences sum to below 1.

        The words beyond the first 32 are not read, and count as unexplained in every reading.
        `language` tells which words are function words.
        """
        read = tokens[:_MOST_TOKENS]
        settings = self._settings
        function_words = stoplists.get(language, frozenset[str]())
        readings = Reader(self._gazetteer, settings, read, function_words).readings()
        sentence = len(read) >= settings.sentence_tokens
        unexplained = [self._unexplained(token, function_words, sentence) for token in read]
        beams: list[list[_Beam]] = [[] for _ in range(len(read) + 1)]
        beams[0] = [(1.0, ())]
        width = settings.interpretations * 2
        for start in range(len(read)):
            here = sorted(beams[start], key=_rank)[:width]
            beams[start + 1].extend((score * unexplained[start], s) for score, s in here)
            for slot in readings.get(start, ()):
                confidence = slot.confidence
                if sentence:
                    confidence *= self._plausible(slot, read, function_words)
                beams[slot.end].extend(
                    (score * confidence * self._repeated(slot, slots), (*slots, slot))
                    for score, slots in here
                )
        best = sorted(beams[len(read)], key=_rank)
        kept = [(score, slots) for score, slots in best if slots][: settings.interpretations]
        plain = math.prod(unexplained)
        total = plain + sum(score for score, _ in kept)
        return tuple(
            Interpretation(slots, _residual(tokens, slots), score / total) for score, slots in kept
        )

    def _unexplained(self, token: str, function_words: Collection[str], sentence: bool) -> float:
        """Return the factor of an interpretation that leaves a word unexplained."""
        if not sentence:
            return self._settings.residual_factor
        return (
            _FUNCTION_WORD if token in function_words else self._settings.sentence_residual_factor
        )

    def _plausible(
        self, slot: Slot, read: tuple[str, ...], function_words: Collection[str]
    ) -> float:
        """Return how much a reading is worth in a sentence, where chance matches abound."""
        words = read[slot.start : slot.end]
        content = sum(word not in function_words for word in words)
        if not content:
            return _FUNCTION_NAME
        if slot.item_id and len(slot.value.split()) > len(words):
            return self._settings.sentence_partial_factor
        short = content == 1 and slot.attribute == self._schema.title
        return self._settings.sentence_short_factor if short else 1.0

    def _repeated(self, slot: Slot, slots: tuple[Slot, ...]) -> float:
        title = self._schema.title
        if slot.attribute == title and any(s.attribute == title for s in slots):
            return self._settings.second_title_factor
        return 1.0

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


def _searched(attribute: Attribute) -> bool:
    """Whether the query language knows the attribute as a field."""
    return attribute.numeric or bool(attribute.roles & {Role.TEXT, Role.KEYWORD})


def _rank(beam: _Beam) -> tuple[float, int, tuple[str, ...]]:
    score, slots = beam
    return -score, len(slots), tuple(s.item_id or s.value for s in slots)


def _residual(tokens: tuple[str, ...], slots: tuple[Slot, ...]) -> str:
    explained = {i for slot in slots for i in range(slot.start, slot.end)}
    return " ".join(t for i, t in enumerate(tokens) if i not in explained)
