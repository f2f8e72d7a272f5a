"""The event log on a real nats-server keeps the promises of every engine."""

import functools

import pytest

from forage.log.nats_log import NatsEventLog
from forage.settings import NatsSettings
from forage.testing.log_contract import EventLogContract, Opener
from tests.nats.server import NatsServer


class TestNatsEventLog(EventLogContract):
    @pytest.fixture
    def opener(self, shared_server: NatsServer, settings: NatsSettings) -> Opener:
        return functools.partial(NatsEventLog.open, shared_server.url, settings)
