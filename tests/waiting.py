"""Waits for what other processes and threads do; coroutines have `forage.testing.serving`'s."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(check: Callable[[], object], timeout_s: float = 30.0) -> float:
    """Wait until `check` returns something true; return how many seconds it took."""
    began = time.monotonic()
    while not check():
        assert time.monotonic() < began + timeout_s, "it did not become true in time"
        time.sleep(0.02)
    return time.monotonic() - began
