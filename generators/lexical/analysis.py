"""From text to the tokens that are indexed; queries and items go through the same steps."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import tantivy

from forage.errors import StartupError
from forage.text import tokenize

SEPARATOR = "\x1f"
"""A character that no term contains, so that an engine can store several terms as one text."""
_MAX_LETTERS = 64
_MAX_RAW_BYTES = 200
_MAX_REMEMBERED = 100
_SNOWBALL = {
    "ar": "arabic", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "fi": "finnish", "fr": "french", "hu": "hungarian", "it": "italian",
    "nl": "dutch", "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian",
    "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip
# Scripts without spaces are cut into characters, so that a part of a name can be found.
_IDEOGRAPHS = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_IDEOGRAPH_OR_RUN = re.compile(rf"{_IDEOGRAPHS.pattern}|(?:(?!{_IDEOGRAPHS.pattern}).)+")


def words(text: str) -> tuple[str, ...]:
    """Return the tokens of a text: words as `forage.text` cuts them, ideographs one by one.

    Very long words are cut off at 64 letters, on both sides alike.
    """
    return _remembered(text) if len(text) <= _MAX_REMEMBERED else _cut(text)


def _cut(text: str) -> tuple[str, ...]:
    tokens = tokenize(text)
    if text.isascii():
        return tuple(t[:_MAX_LETTERS] for t in tokens)
    parts: list[str] = []
    for token in tokens:
        if _IDEOGRAPHS.search(token):
            parts.extend(part[:_MAX_LETTERS] for part in _IDEOGRAPH_OR_RUN.findall(token))
        else:
            parts.append(token[:_MAX_LETTERS])
    return tuple(parts)


# Names repeat: the same person is in many films, and in many queries.
_remembered = lru_cache(maxsize=16_384)(_cut)


def value_term(value: str) -> str:
    """Return the term that stands for a whole keyword value, in any letter case."""
    return _bounded("=" + value.casefold())


def item_term(item_id: str) -> str:
    """Return the term that stands for the item a value names."""
    return _bounded("#" + item_id)


def title_term(tokens: Sequence[str]) -> str:
    """Return the term that stands for a whole title, given its tokens."""
    return _bounded("!" + " ".join(tokens))


def _bounded(term: str) -> str:
    if len(term) <= _MAX_RAW_BYTES // 4 and SEPARATOR not in term:
        return term
    # Engines limit the length of a term; a hash finds the same values.
    encoded = term.encode("utf-8", "surrogatepass")
    if len(encoded) <= _MAX_RAW_BYTES and SEPARATOR not in term:
        return term
    return term[0] + hashlib.blake2b(encoded, digest_size=16).hexdigest()


class Stemmer:
    """The Snowball stemmer of one language (Porter, 2001), safe to use from several threads.

    It is tantivy's, whichever engine is chosen, so that both find the same words.
    """

    def __init__(self, language: str) -> None:
        """Take an ISO 639-1 code; raises `StartupError` if there is no such stemmer."""
        if language not in _SNOWBALL:
            raise StartupError(
                f"language: there is no stemmer for '{language}'; allowed:"
                f" {', '.join(sorted(_SNOWBALL))}"
            )
        builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw())
        self._analyzer = builder.filter(tantivy.Filter.stemmer(_SNOWBALL[language])).build()

    def stem(self, token: str) -> str:
        """Return the stem of a token."""
        return str(self._analyzer.analyze(token)[0])
