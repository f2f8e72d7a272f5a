"""Leases in a folder keep the contract, and what depends on the clock of the machine."""

import functools
from pathlib import Path

import pytest

from forage.lease import FileLease
from forage.testing.lease_contract import LeaseContract, Opener


class TestFileLease(LeaseContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return functools.partial(FileLease, tmp_path)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lease(tmp_path: Path, clock: Clock) -> FileLease:
    return FileLease(tmp_path, clock=clock)


def test_a_lease_that_is_not_renewed_is_free_after_its_time(lease: FileLease, clock: Clock) -> None:
    lease.acquire("learner", "a", 10.0)

    clock.now += 9.9
    assert not lease.acquire("learner", "b", 10.0)
    clock.now += 0.1
    assert lease.acquire("learner", "b", 10.0)
    assert not lease.renew("learner", "a", 10.0), "its former holder must learn that it is lost"


def test_renewing_extends_the_lease(lease: FileLease, clock: Clock) -> None:
    lease.acquire("learner", "a", 10.0)

    for _ in range(5):
        clock.now += 8.0
        assert lease.renew("learner", "a", 10.0)
        assert not lease.acquire("learner", "b", 10.0)


def test_a_clock_set_back_does_not_lock_everyone_out(lease: FileLease, clock: Clock) -> None:
    lease.acquire("learner", "a", 10.0)
    clock.now -= 86_400.0

    assert lease.acquire("learner", "b", 10.0)


def test_a_damaged_lease_is_free(
    lease: FileLease, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lease.acquire("learner", "a", 10.0)
    (tmp_path / "learner.lease").write_bytes(b"{")

    assert lease.acquire("learner", "b", 10.0)
    assert "damaged" in caplog.text
