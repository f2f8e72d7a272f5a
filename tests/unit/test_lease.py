"""Leases: one holder at a time, and a dead holder's lease is free again."""

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from forage.errors import InvalidArgumentError
from forage.lease import FileLease


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


def acquire_and_hang(root: Path, acquired: Event) -> None:
    if FileLease(root).acquire("learner", "other", 0.5):
        acquired.set()
    signal.pause()


def test_only_one_holder_has_the_lease(lease: FileLease) -> None:
    assert lease.acquire("learner", "a", 10.0)
    assert not lease.acquire("learner", "b", 10.0)
    assert lease.acquire("trainer", "b", 10.0)


def test_the_holder_may_acquire_again(lease: FileLease) -> None:
    assert lease.acquire("learner", "a", 10.0)
    assert lease.acquire("learner", "a", 10.0)


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


def test_a_lease_never_held_cannot_be_renewed(lease: FileLease) -> None:
    assert not lease.renew("learner", "a", 10.0)


def test_a_released_lease_is_free_at_once(lease: FileLease) -> None:
    lease.acquire("learner", "a", 10.0)

    lease.release("learner", "b")
    assert not lease.acquire("learner", "b", 10.0), "only the holder can release it"
    lease.release("learner", "a")
    lease.release("learner", "a")
    assert lease.acquire("learner", "b", 10.0)


def test_a_clock_set_back_does_not_lock_everyone_out(lease: FileLease, clock: Clock) -> None:
    lease.acquire("learner", "a", 10.0)
    clock.now -= 86_400.0

    assert lease.acquire("learner", "b", 10.0)


def test_of_many_at_once_one_acquires(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: FileLease(tmp_path).acquire("x", str(i), 60.0), range(24)))

    assert won.count(True) == 1


def test_the_lease_of_a_killed_process_is_taken_over_within_its_time(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("spawn")
    acquired = processes.Event()
    holder = processes.Process(target=acquire_and_hang, args=(tmp_path, acquired))
    holder.start()
    assert acquired.wait(30.0)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    lease = FileLease(tmp_path)
    pause = processes.Event()

    tries = 0
    while not lease.acquire("learner", "heir", 60.0) and tries < 100:
        pause.wait(0.02)
        tries += 1

    assert lease.renew("learner", "heir", 60.0)


def test_a_damaged_lease_is_free(
    lease: FileLease, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lease.acquire("learner", "a", 10.0)
    (tmp_path / "learner.lease").write_bytes(b"{")

    assert lease.acquire("learner", "b", 10.0)
    assert "damaged" in caplog.text


def test_bad_arguments_are_refused(lease: FileLease) -> None:
    with pytest.raises(InvalidArgumentError):
        lease.acquire("../learner", "a", 10.0)
    with pytest.raises(ValueError, match="ttl_s"):
        lease.acquire("learner", "a", 0.0)
