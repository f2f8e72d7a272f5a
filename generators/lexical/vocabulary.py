"""The words of the catalogue: their numbers, their stems and their alphabetical order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from forage.catalog.columns import Columns, ragged, spans
from generators.lexical.analysis import Stemmer

_INSORT_LIMIT = 200


class Vocabulary:
    """Every term ever indexed, by number. One thread adds; others may read meanwhile.

    Whole values and titles have numbers too; they are not words, and have no stem or order.
    """

    def __init__(self, stemmer: Stemmer) -> None:
        """Begin empty."""
        self.terms: list[str] = []
        self._numbers: dict[str, int] = {}
        self._stems: dict[str, list[int]] = {}
        self._stemmer = stemmer
        self._alphabetical: list[str] = []
        self._new_words: list[str] = []

    def number(self, term: str) -> int | None:
        """Return the number of a term, or None if it never was added."""
        return self._numbers.get(term)

    def add(self, term: str) -> int:
        """Return the number of a term, a new one if need be."""
        number = self._numbers.get(term)
        if number is None:
            number = len(self.terms)
            self.terms.append(term)
            self._numbers[term] = number
        return number

    def add_word(self, word: str) -> int:
        """Return the number of a word, a new one if need be."""
        number = self._numbers.get(word)
        if number is None:
            number = self.add(word)
            self._new_words.append(word)
            self._stems.setdefault(self._stemmer.stem(word), []).append(number)
        return number

    def stem_mates(self, stem: str) -> list[str]:
        """Return the words that share a stem, in the order they were added."""
        return [self.terms[number] for number in self._stems.get(stem, ())]

    def dump(self) -> Columns:
        """Return everything as columns."""
        order = [self._numbers[word] for word in self.alphabetical()]
        mates = [np.array(numbers, np.int32) for numbers in self._stems.values()]
        return Columns(
            {"terms": self.terms, "stems": list(self._stems)},
            {"order": np.array(order, np.int32), **ragged(mates, np.int32)},
        )

    def load(self, columns: Columns) -> None:
        """Replace everything by what `dump` returned."""
        self.terms = columns.names["terms"]
        self._numbers = {term: number for number, term in enumerate(self.terms)}
        mates = columns.arrays["content"].tolist()
        self._stems = {
            stem: mates[start:end]
            for stem, (start, end) in zip(
                columns.names["stems"], spans(columns.arrays["lengths"]), strict=True
            )
        }
        self._alphabetical = [self.terms[number] for number in columns.arrays["order"].tolist()]
        self._new_words = []

    def alphabetical(self) -> Sequence[str]:
        """Return all words in order, in a list that later additions leave alone."""
        if len(self._new_words) > _INSORT_LIMIT:
            self._alphabetical = sorted(self._alphabetical + self._new_words)
        elif self._new_words:
            self._alphabetical = self._alphabetical.copy()
            for word in self._new_words:
                insort(self._alphabetical, word)
        self._new_words = []
        return self._alphabetical


def with_prefix(alphabetical: Sequence[str], prefix: str) -> Sequence[str]:
    """Return the words that begin with `prefix`."""
    start = bisect_left(alphabetical, prefix)
    end = bisect_left(alphabetical, prefix + "\U0010ffff", lo=start)
    return alphabetical[start:end]
