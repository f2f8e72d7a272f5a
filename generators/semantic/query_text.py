"""The words of a query that carry meaning, without the query language around them."""

from __future__ import annotations

import re

from forage.retrieval import Interpretation, Query

MAX_CHARACTERS = 2_000

_RANGE = re.compile(r"(?:\b\w+\s*:)?\s*[\[{][^\[\]{}]*\bTO\b[^\[\]{}]*[\]}]")
_COMPARISON = re.compile(r"\b\w+\s*:\s*[<>]=?\s*\S+")
_EXCLUDED = re.compile(r"""(?:(?<!\S)-|\bNOT\s+)(?:\w+:)?(?:"[^"]*"|\([^()]*\)|[^\s()]+)""")
_FIELD = re.compile(r"\b[a-z][a-z0-9_]*:(?=\S)")
_BOOST = re.compile(r"[\^~][0-9.]*")
_OPERATOR = re.compile(r"\b(?:AND|OR|NOT|ANDNOT|ANDMAYBE|REQUIRE)\b")
_SYNTAX = re.compile(r"""["()\[\]{}*?<>|\\]|(?<!\S)[+-](?=\S)""")


def query_text(query: Query, *, min_confidence: float) -> str:
    """Return what to encode; empty if no words remain.

    Operators, field names, ranges and everything excluded are left out, since a sentence encoder
    would take `-war` for an interest in war. If the words are plain and their likeliest reading
    has at least `min_confidence`, names are written as they were meant: a misspelt name is far
    from the right one in embedding space.
    """
    # Twice the length, because the syntax that goes away does not count.
    text = query.text[: 2 * MAX_CHARACTERS]
    plain = _plain(text)
    if plain == " ".join(text.split()) and query.interpretations:
        best = query.interpretations[0]
        if best.confidence >= min_confidence:
            plain = _as_meant(query.tokens, best) or plain
    return plain[:MAX_CHARACTERS]


def _plain(text: str) -> str:
    for pattern in (_RANGE, _COMPARISON, _EXCLUDED, _FIELD, _BOOST, _OPERATOR, _SYNTAX):
        text = pattern.sub(" ", text)
    return " ".join(text.split())


def _as_meant(tokens: tuple[str, ...], reading: Interpretation) -> str:
    """Return the tokens with each slot's stretch replaced by the slot's canonical value."""
    words: list[str] = []
    at = 0
    for slot in sorted(reading.slots, key=lambda s: s.start):
        if at <= slot.start < slot.end <= len(tokens):
            words += [*tokens[at : slot.start], slot.value]
            at = slot.end
    return " ".join([*words, *tokens[at:]])
