"""From what a query says to what the engines look for, and what each match is worth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from forage.catalog import years
from forage.retrieval import Interpretation
from generators.lexical.analysis import title_term, value_term, words
from generators.lexical.clauses import (
    Adjacent,
    AnyToken,
    Between,
    Clause,
    Combination,
    HasTitle,
    HasValue,
    Nothing,
    OfKind,
)
from generators.lexical.corpus import Statistics
from generators.lexical.expansion import Expander
from generators.lexical.layout import Layout
from generators.lexical.settings import LexicalSettings
from generators.lexical.tree import (
    Exactly,
    Fuzzy,
    Group,
    Node,
    Phrase,
    Prefix,
    Range,
    Words,
)

K1 = 1.2
B = 0.75


@dataclass(frozen=True, slots=True)
class Plan:
    """What to find, and the scoring of it."""

    clause: Clause
    weights: Mapping[int, float]
    """By key (`token * fields + field`): what a match is worth, the inverse document frequency
    and all boosts included, before counts and lengths."""
    words: Mapping[int, int]
    """By key of a text token: which word of the query it stands for. Tokens of one field that
    stand for one word are counted together, as if they were the same token."""


def idf(items: int, frequency: int) -> float:
    """Return the inverse document frequency, always positive (Lucene, tantivy)."""
    return math.log(1.0 + (items - frequency + 0.5) / (frequency + 0.5))


class Binder:
    """Turns query trees into plans, by the fields of a layout and the words of a corpus."""

    def __init__(self, layout: Layout, settings: LexicalSettings, expander: Expander) -> None:
        """Use the boosts of `settings`."""
        self._layout = layout
        self._settings = settings
        self._expander = expander

    def bind(
        self, node: Node, text: str, readings: Sequence[Interpretation], known: Statistics
    ) -> Plan:
        """Return the plan for a tree, the text it came from, and readings of that text."""
        binding = _Binding(self._layout, self._settings, self._expander, known)
        clause = binding.clause(node)
        extras = [*binding.slots(readings)]
        bound = sum(binding.weights.values())
        # No item without the title can score more than this, even if it is the most popular.
        bonus = (
            self._settings.title_exact
            * bound
            * (K1 + 1)
            * math.log2(2.0 + self._settings.popularity_weight)
        )
        extras += binding.exact_title(title_term(words(text)), bonus)
        return Plan(_with_extras(clause, extras), binding.weights, binding.meant)


class _Binding:
    """One query being bound."""

    def __init__(
        self, layout: Layout, settings: LexicalSettings, expander: Expander, known: Statistics
    ) -> None:
        self.weights: dict[int, float] = {}
        self.meant: dict[int, int] = {}
        self._bound = 0
        self._layout = layout
        self._settings = settings
        self._expander = expander
        self._known = known
        self._left = settings.max_words

    def clause(self, node: Node) -> Clause:
        match node:
            case Words():
                return _any_of(self._words(node))
            case Phrase():
                return self._phrase(node)
            case Prefix():
                return self._expanded(node, self._completions(node.text))
            case Fuzzy():
                tokens = words(node.text)
                return _any_of(
                    self._expanded(node, self._expander.similar(token, node.edits, self._known))
                    for token in tokens
                )
            case Exactly():
                if node.field == "kind":
                    return OfKind((node.value.lower(),))
                return HasValue(node.field, (value_term(node.value),))
            case Range():
                return Between(
                    node.field, node.low, node.high, node.low_included, node.high_included
                )
            case Group():
                return self._group(node)

    def _group(self, node: Group) -> Clause:
        required = tuple(self.clause(child) for child in node.required)
        optional = tuple(self.clause(child) for child in node.optional)
        before = dict(self.weights)
        excluded = tuple(self.clause(child) for child in node.excluded)
        # What must not be there is worth nothing.
        self.weights = before
        return Combination(required, optional, excluded)

    def _words(self, node: Words) -> Iterable[Clause]:
        tokens = list(dict.fromkeys(words(node.text)))[: max(0, self._left)]
        self._left -= len(tokens)
        for token in tokens:
            unfinished = node.unfinished and token is tokens[-1]
            meant = self._expander.meant(token, self._known, unfinished=unfinished)
            yield self._expanded(node, meant, common=token)

    def _completions(self, text: str) -> dict[str, float]:
        tokens = words(text)
        if not tokens:
            return {}
        found = self._expander.completions(tokens[-1], self._known)
        return dict.fromkeys((tokens[-1], *found), 1.0)

    def _phrase(self, node: Phrase) -> Clause:
        tokens = words(node.text)
        each = [self._expanded(node, {token: 1.0}) for token in tokens]
        if len(tokens) < 2:
            return _any_of(each)
        fields = (node.field,) if node.field else self._layout.texts
        return Combination(required=(Adjacent(fields, tuple(tokens)),), optional=tuple(each))

    def _expanded(
        self,
        node: Words | Phrase | Prefix | Fuzzy,
        meant: Mapping[str, float],
        common: str = "",
    ) -> Clause:
        """Return the clause for words that stand for one word, and enter what each is worth.

        A rare variant must not be worth more than the word that was typed, so none is taken to
        be rarer than the word `common`.
        """
        known, layout = self._known, self._layout
        original = known.vocabulary.number(common) if common else None
        self._bound += 1
        found: list[tuple[str, str, float]] = []
        for field, name in enumerate(layout.texts):
            if node.field not in ("", name):
                continue
            floor = 0 if original is None else known.frequency(original, field)
            for word, weight in meant.items():
                token = known.vocabulary.number(word)
                frequency = 0 if token is None else known.frequency(token, field)
                if token is None or not frequency:
                    continue
                own = idf(known.items, frequency)
                worth = weight * node.boost * layout.boosts[field]
                worth *= idf(known.items, max(floor, frequency))
                key = token * layout.fields + field
                if worth > self.weights.get(key, 0.0):
                    self.weights[key], self.meant[key] = worth, self._bound
                found.append((name, word, worth / own))
        return AnyToken(tuple(found)) if found else Nothing()

    def slots(self, readings: Sequence[Interpretation]) -> Iterable[Clause]:
        """Return a clause for every value read in the query, worth its confidence."""
        confidences: dict[tuple[str, str], float] = {}
        for reading in readings:
            for slot in reading.slots:
                slot_key = (slot.attribute, slot.value)
                confidence = slot.confidence * reading.confidence
                confidences[slot_key] = min(1.0, confidences.get(slot_key, 0.0) + confidence)
        for (attribute, value), confidence in sorted(confidences.items()):
            worth = self._settings.slot_boost * confidence
            # An entity is also an item of its own, which bears the value as its title.
            for terms, field, boost in self._slot_terms(attribute, value):
                numbers = [(t, self._known.vocabulary.number(t)) for t in terms]
                held = {t: n for t, n in numbers if n is not None}
                frequency = sum(self._known.frequency(n, field) for n in held.values())
                if not frequency or worth <= 0:
                    continue
                score = worth * boost * idf(self._known.items, frequency)
                for number in held.values():
                    key = number * self._layout.fields + field
                    self.weights[key] = score + self.weights.get(key, 0.0)
                if field == self._layout.title_field:
                    yield from (HasTitle(term, score) for term in held)
                else:
                    yield HasValue(attribute, tuple(held), score)

    def _slot_terms(
        self, attribute: str, value: str
    ) -> Iterable[tuple[tuple[str, ...], int, float]]:
        """Yield terms of which an item with the value has one, their field, and its boost."""
        layout = self._layout
        if attribute in layout.values:
            boost = 1.0
            if attribute in layout.texts:
                boost = layout.boosts[layout.texts.index(attribute)]
            terms = (value,) if attribute not in layout.numbers else years.parts(value)
            yield tuple(map(value_term, terms)), layout.value_field(attribute), boost
        if attribute in layout.numbers:
            return
        if attribute in layout.values or attribute == layout.title:
            title_boost = layout.boosts[layout.texts.index(layout.title)]
            yield (title_term(words(value)),), layout.title_field, title_boost

    def exact_title(self, term: str, score: float) -> list[Clause]:
        """Return the clause for items whose whole title was typed, worth `score` more."""
        token = self._known.vocabulary.number(term)
        field = self._layout.title_field
        if token is None or not self._known.frequency(token, field) or score <= 0:
            return []
        key = token * self._layout.fields + field
        self.weights[key] = score + self.weights.get(key, 0.0)
        return [HasTitle(term, score)]


def _any_of(clauses: Iterable[Clause]) -> Clause:
    found = [c for c in clauses if not isinstance(c, Nothing)]
    if not found:
        return Nothing()
    return found[0] if len(found) == 1 else Combination(optional=tuple(found))


def _with_extras(clause: Clause, extras: Sequence[Clause]) -> Clause:
    """Let extras add to the score, and to what is found unless something is required."""
    if not extras:
        return clause
    if isinstance(clause, Combination) and clause.required:
        return Combination(clause.required, (*clause.optional, *extras), clause.excluded)
    if isinstance(clause, Combination) and clause.excluded:
        inner = Combination(optional=(*clause.optional, *extras))
        return Combination(required=(inner,), excluded=clause.excluded)
    return Combination(optional=(clause, *extras))
