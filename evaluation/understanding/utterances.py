"""Annotated utterances: MIT movie trivia (BIO lines) and the SNIPS intents (JSON)."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from evaluation.collections.files import bad_line, text_of
from forage.errors import StartupError
from forage.text import tokenize

MIT_FILE = "mit_movie_trivia/trivia10k13train.bio.gz"


@dataclass(frozen=True, slots=True)
class GoldSlot:
    """What a person marked: a stretch of words and what kind of thing it is."""

    kind: str
    """In the words of the annotation, such as `Actor` or `artist`."""
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Utterance:
    """One annotated query."""

    query_id: str
    text: str
    slots: tuple[GoldSlot, ...]


def trivia(data: Path) -> list[Utterance]:
    """Return the movie questions: one token a line after its BIO tag, blank lines between.

    Raises `InvalidArgumentError` naming the line that has another form.
    """
    path = data / MIT_FILE
    utterances: list[Utterance] = []
    words: list[tuple[str, str]] = []
    for number, line in enumerate([*text_of(path).split("\n"), ""], 1):
        if line.strip():
            tag, _, word = line.rstrip("\r").partition("\t")
            if not word or (tag != "O" and tag[:2] not in {"B-", "I-"}):
                bad_line(path, number, repr(line[:60]), allowed="a BIO tag, a tab and a word")
            words.append((tag, word))
        elif words:
            text = " ".join(word for _, word in words)
            utterances.append(Utterance(f"trivia:{len(utterances)}", text, tuple(_slots(words))))
            words = []
    return utterances


def _slots(words: list[tuple[str, str]]) -> Iterator[GoldSlot]:
    kind, held = "", list[str]()
    for tag, word in [*words, ("O", "")]:
        if held and not (tag.startswith("I-") and tag[2:] == kind):
            yield GoldSlot(kind, tokenize(" ".join(held)))
            held = []
        if tag != "O":
            kind = tag[2:]
            held.append(word)


def snips(data: Path, intent: str) -> list[Utterance]:
    """Return the utterances of one intent, such as `PlayMusic`, training part first.

    Some files are not UTF-8 but Latin-1, so they are read as that when they must be.
    """
    utterances = []
    for part, name in (("train", f"train_{intent}_full"), ("validate", f"validate_{intent}")):
        path = data / "snips_music" / f"{name}.json.gz"
        for number, entry in enumerate(_json(path).get(intent, ())):
            text = "".join(piece["text"] for piece in entry["data"])
            slots = tuple(
                GoldSlot(piece["entity"], tokenize(piece["text"]))
                for piece in entry["data"]
                if "entity" in piece
            )
            utterances.append(Utterance(f"snips:{intent}:{part}:{number}", text, slots))
    return utterances


def _json(path: Path) -> Mapping[str, Any]:
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise StartupError(f"judged data: {path} cannot be read: {error}") from error
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    found = orjson.loads(text)
    if not isinstance(found, dict):
        raise StartupError(f"judged data: {path} holds no object")
    return found
