"""Tests against a real Milvus server: `make check-milvus` says where it is; others skip them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.milvus.server import MilvusServer

NEEDS_NO_SERVER = {"test_milvus_settings.py"}
collect_ignore = (
    []
    if os.environ.get("FORAGE_MILVUS_SERVER")
    else [p.name for p in Path(__file__).parent.glob("test_*.py") if p.name not in NEEDS_NO_SERVER]
)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """One server for all tests that leave it alone."""
    with MilvusServer(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MilvusServer]:
    """A server of the test's own, to be killed."""
    with MilvusServer(tmp_path / "milvus-server") as server:
        yield server
