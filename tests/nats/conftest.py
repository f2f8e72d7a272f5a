"""Tests against a real nats-server: `make check-nats` says where it is; others leave them out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from forage.settings import NatsSettings
from tests.nats.server import NatsServer

collect_ignore_glob = [] if os.environ.get("FORAGE_NATS_SERVER") else ["test_*.py"]
_prefixes = itertools.count(1)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests that leave it alone."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def settings() -> NatsSettings:
    """Settings under which every test has streams of its own."""
    return NatsSettings(prefix=f"test{os.getpid()}_{next(_prefixes)}")


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server of the test's own, to be killed."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server
