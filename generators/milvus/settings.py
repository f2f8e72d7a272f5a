"""How to reach Milvus; shared by the generators that keep an index in it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from forage.settings import Settings


class MilvusSettings(Settings):
    """Milvus Lite in a file of the data folder, or a server.

    User and password, or a token, TLS files and a database are for servers. They are checked when
    the service starts.
    """

    uri: str = "milvus.db"
    """A file below `data_dir` for Milvus Lite, or a server: `http://HOST:19530`, `https://…`."""
    user: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    """Instead of user and password."""
    database: str = ""
    """The server's database, which must exist; empty: its default."""
    tls_ca_file: Path | None = None
    """Certificates to trust instead of the system's, for `https://` addresses."""
    tls_cert_file: Path | None = None
    """The client's own certificate, for servers that ask for one; needs `tls_ca_file`."""
    tls_key_file: Path | None = None
    tls_server_name: str = ""
    """The name in the server's certificate, if it is not the address's."""
    collection: str = Field(default="forage", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
    """Begins the collection's name; the schema's name and a fingerprint of the content follow."""
    consistency: Literal["eventually", "bounded", "session", "strong"] = "bounded"
    """What a search on a server waits for: nothing; to be at most seconds behind; this process's
    own writes; everybody's writes."""
    connect_timeout_ms: int = Field(default=5_000, ge=100, le=120_000)
    """How long a start waits for the server."""
    search_timeout_ms: int = Field(default=2_000, ge=1, le=60_000)
    """Longest search, if the caller's deadline allows it."""
    write_timeout_ms: int = Field(default=30_000, ge=1, le=600_000)
    """Longest write or administration."""
    batch: int = Field(default=500, ge=1, le=1_000)
    """Rows per write; Milvus Lite takes quadratic time in it."""

    @property
    def embedded(self) -> bool:
        """Whether this is Milvus Lite."""
        return "://" not in self.uri

    @property
    def connect_timeout_s(self) -> float:
        """Seconds that a start waits for the server."""
        return self.connect_timeout_ms / 1000

    @property
    def search_timeout_s(self) -> float:
        """Seconds that a search may take."""
        return self.search_timeout_ms / 1000

    @property
    def write_timeout_s(self) -> float:
        """Seconds that a write may take."""
        return self.write_timeout_ms / 1000
