"""What the semantic generator can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from forage.settings import GeneratorSettings, Settings


class EncoderSettings(Settings):
    """The sentence encoder."""

    model: Path | None = None
    """A local ONNX sentence model; unset: MiniLM int8."""
    tokenizer: Path | None = None
    """Its Hugging Face `tokenizer.json`; set exactly if `model` is."""
    max_tokens: int = Field(default=128, ge=2, le=8192)
    """Tokens of a text that count."""
    threads: int = Field(default=2, ge=1, le=64)
    """Threads that embed the catalogue; a query always takes one."""
    cached_queries: int = Field(default=4096, ge=1, le=1_000_000)
    """Query vectors kept in memory."""

    @model_validator(mode="after")
    def _files_agree(self) -> EncoderSettings:
        if (self.model is None) != (self.tokenizer is None):
            raise ValueError("model and tokenizer must be set together")
        return self


class MilvusSettings(Settings):
    """The vector store."""

    uri: str = "semantic/milvus.db"
    """A file below `data_dir` for Milvus Lite, or a server such as `http://milvus:19530`."""
    user: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    """Instead of user and password."""
    database: str = ""
    """The server's database; empty: its default."""
    collection: str = Field(default="forage", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
    """Prefix of the collection's name; a fingerprint of schema and encoder follows it."""
    index: Literal["FLAT", "IVF_FLAT", "HNSW", "AUTOINDEX"] = "FLAT"
    """Milvus Lite has FLAT and IVF_FLAT."""
    index_params: dict[str, int] = Field(default_factory=dict)
    """Such as `M` and `efConstruction` of HNSW."""
    search_params: dict[str, int] = Field(default_factory=dict)
    """Such as `ef` of HNSW."""
    search_timeout_ms: int = Field(default=2_000, ge=1, le=60_000)
    """Longest search, if the caller's deadline allows it."""
    write_timeout_ms: int = Field(default=30_000, ge=1, le=600_000)
    """Longest write, connection or administration."""
    batch: int = Field(default=500, ge=1, le=1_000)
    """Rows per write; Milvus Lite takes quadratic time in it."""

    @property
    def embedded(self) -> bool:
        """Whether the store is Milvus Lite."""
        return "://" not in self.uri


class SemanticSettings(GeneratorSettings):
    """Settings of the semantic service."""

    encoder: EncoderSettings = EncoderSettings()
    milvus: MilvusSettings = MilvusSettings()
    like_weight: float = Field(default=1.0, gt=0, le=100)
    """Weight of the example items' mean against 1 for the words."""
    history_weight: float = Field(default=0.1, ge=0, le=100)
    """Weight of what the user engaged with lately against 1 for the words; 0: ignore it."""
    history_decay: float = Field(default=0.8, gt=0, le=1)
    """Each older item of the history counts this much of the one after it."""
    history_items: int = Field(default=10, ge=1, le=100)
    """Items of the history that count, and example items that count."""
    cached_vectors: int = Field(default=2_000, ge=1, le=1_000_000)
    """Vectors of example and history items kept in memory."""
    min_confidence: float = Field(default=0.5, gt=0, le=1)
    """Readings this likely replace misspelt words by the name that was meant."""
