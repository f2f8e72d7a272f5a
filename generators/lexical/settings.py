"""What can be turned about the lexical generator."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from forage.settings import GeneratorSettings, Settings
from generators.milvus.settings import MilvusSettings


class ExpansionSettings(Settings):
    """Which other words a word of the query also stands for, and how much those weigh.

    A word found as typed weighs 1.
    """

    stem: float = Field(default=0.7, ge=0, le=1)
    """Weight of words with the same stem; 0 turns stemming off."""
    prefix: float = Field(default=0.4, ge=0, le=1)
    """Weight of completions of the last word, times the share typed; 0: no type-ahead."""
    prefix_min_letters: int = Field(default=2, ge=1, le=20)
    """Letters from which the last word is completed."""
    typo: float = Field(default=0.6, ge=0, le=1)
    """Weight per edit of similar words, for words the catalogue does not have; 0: no tolerance."""
    typo_one_min_letters: int = Field(default=4, ge=2, le=30)
    """Letters from which one edit is tolerated."""
    typo_two_min_letters: int = Field(default=8, ge=2, le=30)
    """Letters from which two edits are tolerated."""
    max_words: int = Field(default=12, ge=1, le=1_000)
    """The most completions, and the most corrections, of one word; frequent words first."""


class LexicalMilvusSettings(MilvusSettings):
    """Milvus as the inverted index, if `engine` is milvus."""

    uri: str = ""
    """Empty: Milvus Lite beside the index; or a server of 2.5 or newer, where every process has a
    collection of its own."""


class LexicalSettings(GeneratorSettings):
    """Everything the lexical generator can be told."""

    engine: Literal["tantivy", "whoosh", "milvus"] = "tantivy"
    """The inverted index: native tantivy, pure-Python Whoosh, or Milvus with its BM25 function.
    All give the same answers."""
    milvus: LexicalMilvusSettings = LexicalMilvusSettings()
    language: str = Field(default="en", pattern=r"^[a-z]{2}$")
    """ISO 639-1 code of the catalogue's language, whose Snowball stemmer is used."""
    popularity_weight: float = Field(default=1.0, ge=0, le=14)
    """w of the popularity prior: a score is multiplied by log2(2 + w * popularity)."""
    slot_boost: float = Field(default=3.0, ge=0, le=100)
    """Multiplies the score of values that query understanding read in the query."""
    title_exact: float = Field(default=1.0, ge=0, le=10)
    """1 puts items whose whole title was typed first, whatever their popularity; 0 is neutral."""
    max_words: int = Field(default=32, ge=1, le=1_000)
    """Distinct words of a query that count; the rest are ignored."""
    depth: int = Field(default=400, ge=1, le=100_000)
    """Matches the engine hands over, best first by its own count, to be scored exactly.

    At least twice `max_limit`, or the last hits of a long answer may differ between engines.
    """
    heap_mb: int = Field(default=20, ge=15, le=4_096)
    """Memory of tantivy's writer, in MiB, while it takes in a batch."""
    expansion: ExpansionSettings = ExpansionSettings()
