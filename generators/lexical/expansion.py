"""The words that a word of the query also stands for: its stem, a completion, a correction."""

from __future__ import annotations

from collections.abc import Iterable

from rapidfuzz import process
from rapidfuzz.distance import OSA

from generators.lexical.analysis import Stemmer
from generators.lexical.corpus import Statistics
from generators.lexical.settings import ExpansionSettings
from generators.lexical.vocabulary import with_prefix


class Expander:
    """Finds the words of the catalogue that a word may mean, each with a weight in (0, 1]."""

    def __init__(self, settings: ExpansionSettings, stemmer: Stemmer) -> None:
        """Use the weights of `settings`."""
        self._settings = settings
        self._stemmer = stemmer

    def meant(self, word: str, known: Statistics, *, unfinished: bool) -> dict[str, float]:
        """Return the words that plain text stands for, the word itself first.

        Corrections are for words that the catalogue does not have in any form; completions for
        the last word, when it may still be being typed.
        """
        settings = self._settings
        weights: dict[str, float] = {}
        if known.text_frequency(word):
            weights[word] = 1.0
        if settings.stem:
            for mate in known.vocabulary.stem_mates(self._stemmer.stem(word)):
                if known.text_frequency(mate):
                    weights.setdefault(mate, settings.stem)
        if not weights and settings.typo:
            edits = (len(word) >= settings.typo_one_min_letters) + (
                len(word) >= settings.typo_two_min_letters
            )
            weights.update(self.similar(word, edits, known))
        if unfinished and settings.prefix and len(word) >= settings.prefix_min_letters:
            for longer in self.completions(word, known):
                weights.setdefault(longer, settings.prefix * len(word) / len(longer))
        return weights

    def completions(self, prefix: str, known: Statistics) -> list[str]:
        """Return the most frequent words that begin so."""
        found = with_prefix(known.alphabetical, prefix)
        return self._frequent((word for word in found if word != prefix), known)

    def similar(self, word: str, edits: int, known: Statistics) -> dict[str, float]:
        """Return the most frequent words at most `edits` edits away, with the same first letter.

        An edit inserts, removes or replaces a letter, or swaps two neighbours (optimal string
        alignment). The fewest edits that find anything count. The word itself weighs 1.
        """
        if edits < 1 or not word:
            return {word: 1.0} if known.text_frequency(word) else {}
        # Words of other lengths are passed over by rapidfuzz itself, faster than a loop here.
        candidates = with_prefix(known.alphabetical, word[0])
        near = process.extract(
            word, candidates, scorer=OSA.distance, score_cutoff=edits, limit=None
        )
        by_edits: dict[int, list[str]] = {}
        for found, distance, _ in near:
            if known.text_frequency(found):
                by_edits.setdefault(int(distance), []).append(found)
        weights: dict[str, float] = {}
        for distance in sorted(by_edits):
            for found in self._frequent(by_edits[distance], known):
                weights[found] = self._settings.typo**distance
            if distance:
                break
        return weights

    def _frequent(self, words: Iterable[str], known: Statistics) -> list[str]:
        counted = [(-n, w) for w in words if (n := known.text_frequency(w))]
        return [word for _, word in sorted(counted)[: self._settings.max_words]]
