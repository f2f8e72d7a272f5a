"""Leases on a real nats-server keep the contract, by the server's clock."""

import functools
import time
from collections.abc import Iterator

import pytest

from forage.log.nats_connection import NatsConnection
from forage.log.nats_lease import NatsLease
from forage.log.nats_log import NatsEventLog
from forage.settings import NatsSettings
from forage.testing.lease_contract import LeaseContract, Opener
from tests.nats.server import NatsServer


@functools.cache
def connected(url: str, settings: NatsSettings) -> NatsConnection:
    return NatsConnection.open(url, settings)


def open_lease(url: str, settings: NatsSettings) -> NatsLease:
    return NatsLease(connected(url, settings))


@pytest.fixture
def opener(shared_server: NatsServer, settings: NatsSettings) -> Iterator[Opener]:
    connection = connected(shared_server.url, settings)
    NatsEventLog.on(connection)
    yield functools.partial(open_lease, shared_server.url, settings)
    connection.close()
    connected.cache_clear()


class TestNatsLease(LeaseContract):
    pass


@pytest.fixture
def lease(opener: Opener) -> NatsLease:
    return opener()


def test_a_lease_that_is_not_renewed_is_free_after_its_time(lease: NatsLease):
    lease.acquire("learner", "a", 1.0)
    began = time.monotonic()

    while not lease.acquire("learner", "b", 10.0):
        assert time.monotonic() < began + 5.0
        time.sleep(0.05)

    assert 0.9 < time.monotonic() - began < 3.5
    assert not lease.renew("learner", "a", 10.0), "its former holder must learn that it is lost"


def test_renewing_extends_the_lease(lease: NatsLease):
    lease.acquire("learner", "a", 1.0)
    end = time.monotonic() + 2.5

    while time.monotonic() < end:
        assert lease.renew("learner", "a", 1.0)
        assert not lease.acquire("learner", "b", 1.0)
        time.sleep(0.1)
