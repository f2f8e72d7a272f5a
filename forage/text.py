"""The one way to cut text into words: queries, titles and names must meet on the same keys."""

from __future__ import annotations

import re
import unicodedata

_APOSTROPHES = re.compile(r"['’ʼ`]")
_WORD = re.compile(r"\w+")


def tokenize(text: str) -> tuple[str, ...]:
    """Return lower-cased, accent-folded words; `Don't` is one word, `dont`."""
    bare = text.casefold()
    if not bare.isascii():
        # Some compatibility decompositions bring capitals back: ™ becomes TM.
        decomposed = unicodedata.normalize("NFKD", bare).casefold()
        bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    # Last, for folding and decomposition bring apostrophes too: ŉ becomes ʼn.
    return tuple(_WORD.findall(_APOSTROPHES.sub("", bare).replace("_", " ")))


def normalize(text: str) -> str:
    """Return the words of the text joined by one space: what `Query.normalized` holds."""
    return " ".join(tokenize(text))
