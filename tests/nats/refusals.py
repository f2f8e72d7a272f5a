"""What a start is refused with."""

import pytest

from forage.errors import StartupError
from forage.log.nats_log import NatsEventLog
from forage.settings import NatsSettings

QUICK = {"connect_timeout_ms": 800}


def refusal(url: str, settings: NatsSettings) -> str:
    with pytest.raises(StartupError) as refused:
        NatsEventLog.open(url, settings)
    return refused.value.message
