"""Typed text before it is cut into words: cleaning, query-language operators, language."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from forage.errors import InvalidArgumentError

MAX_TEXT_BYTES = 4_096
_NO_FIELD = re.compile(r'".*?"|[~^][0-9.]*')
"""Phrases, and what may follow a word: in neither does a field begin."""
_FIELD = re.compile(r"(\w+):(?=\S)")
_SCRIPTS = (
    ("HIRAGANA", "ja"),
    ("KATAKANA", "ja"),
    ("HANGUL", "ko"),
    ("CJK", "zh"),
    ("CYRILLIC", "ru"),
    ("ARABIC", "ar"),
    ("HEBREW", "he"),
    ("GREEK", "el"),
    ("THAI", "th"),
    ("DEVANAGARI", "hi"),
)


def clean(text: str) -> str:
    """Return the text in NFC, trimmed.

    Raises `InvalidArgumentError` for more than 4,096 bytes and for control characters other than
    tab and line breaks, which become spaces.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_TEXT_BYTES:
        raise InvalidArgumentError(
            "text", f"it has {size} bytes", allowed=f"at most {MAX_TEXT_BYTES} bytes of UTF-8"
        )
    spaced = re.sub(r"[\t\r\n]+", " ", text)
    for position, character in enumerate(spaced):
        if unicodedata.category(character) in {"Cc", "Cs"}:
            raise InvalidArgumentError(
                "text",
                f"it has the control character U+{ord(character):04X} at position {position}",
                allowed="text without control characters",
            )
    return unicodedata.normalize("NFC", spaced).strip()


def check_fields(text: str, searchable: Collection[str], others: Collection[str]) -> None:
    """Raise `InvalidArgumentError` for a clause on an attribute that text cannot search.

    The lexical generator refuses such a clause too. Refused here, before there is a plan, it is
    refused whoever would have been called. Within quotation marks a colon is only a colon.
    """
    for clause in _FIELD.finditer(_NO_FIELD.sub('"', text)):
        if clause[1] in others:
            raise InvalidArgumentError(
                "text",
                f"the field '{clause[1]}' cannot be searched",
                allowed="one of " + ", ".join(searchable),
            )


def plain_words(text: str, fields: frozenset[str]) -> str:
    """Return the words of a query-language text that ask for something.

    Clauses on known fields (`year:>2000`) and negated words (`-remix`) are left to the lexical
    generator; a colon after any other word, as in `Alien: Covenant`, is ordinary punctuation.
    """
    if fields:
        names = "|".join(sorted(map(re.escape, fields)))
        text = re.sub(rf'(?<!\w)[-+]?(?:{names}):(?:"[^"]*"|\([^)]*\)|\[[^\]]*\]|\S+)', " ", text)
    text = re.sub(r'(?<!\S)(?:-|NOT\s+)(?:"[^"]*"|\S+)', " ", text)
    return re.sub(r"(?<!\S)(?:AND|OR)(?!\S)", " ", text)


def language(text: str, locale: str) -> str:
    """Return the best guess of the text's language as ISO 639-1.

    The script decides where it names one language well enough; a Latin text takes the language of
    the caller's locale, or English. Any kana makes a text of Chinese characters Japanese.
    """
    scripts = [code for c in text if ord(c) > 0x2FF and (code := _script(c))]
    if scripts:
        return "ja" if "ja" in scripts else scripts[0]
    primary = locale.split("-")[0].lower()
    return primary if re.fullmatch(r"[a-z]{2}", primary) else "en"


def _script(character: str) -> str:
    """Return the language that a letter's script names; empty if it names none."""
    name = unicodedata.name(character, "") if character.isalpha() else ""
    return next((code for prefix, code in _SCRIPTS if name.startswith(prefix)), "")
