"""What every engine of leases owes its callers, as tests to inherit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Event

import pytest

from forage.errors import InvalidArgumentError
from forage.lease import Lease

Opener = Callable[[], Lease]

_processes = multiprocessing.get_context("spawn")


def acquire_and_hang(opener: Opener, acquired: Event) -> None:
    """Acquire the lease `learner` for a second, and wait to be killed."""
    if opener().acquire("learner", "other", 1.0):
        acquired.set()
    signal.pause()


class LeaseContract:
    """The promises of `Lease` but for those about time; subclasses supply the fixture `opener`.

    Each call of `opener` opens another handle on the same leases, all free at first. It can be
    pickled, for another process opens them too.
    """

    @pytest.fixture
    def lease(self, opener: Opener) -> Lease:
        """Give one handle."""
        return opener()

    def test_only_one_holder_has_the_lease(self, lease: Lease) -> None:
        assert lease.acquire("learner", "a", 10.0)
        assert not lease.acquire("learner", "b", 10.0)
        assert lease.acquire("trainer", "b", 10.0)

    def test_the_holder_may_acquire_again(self, lease: Lease) -> None:
        assert lease.acquire("learner", "a", 10.0)
        assert lease.acquire("learner", "a", 10.0)

    def test_a_lease_never_held_cannot_be_renewed(self, lease: Lease) -> None:
        assert not lease.renew("learner", "a", 10.0)

    def test_a_released_lease_is_free_at_once(self, lease: Lease) -> None:
        lease.acquire("learner", "a", 10.0)

        lease.release("learner", "b")
        assert not lease.acquire("learner", "b", 10.0), "only the holder can release it"
        lease.release("learner", "a")
        lease.release("learner", "a")
        assert not lease.renew("learner", "a", 10.0)
        assert lease.acquire("learner", "b", 10.0)

    def test_of_many_at_once_one_acquires(self, opener: Opener) -> None:
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda i: opener().acquire("x", str(i), 60.0), range(24)))

        assert won.count(True) == 1

    def test_the_lease_of_a_killed_process_is_taken_over(self, opener: Opener) -> None:
        acquired = _processes.Event()
        holder = _processes.Process(target=acquire_and_hang, args=(opener, acquired))
        holder.start()
        assert acquired.wait(30.0)
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
        lease = opener()
        end = time.monotonic() + 5.0

        while not lease.acquire("learner", "heir", 60.0):
            assert time.monotonic() < end
            time.sleep(0.02)

        assert lease.renew("learner", "heir", 60.0)

    def test_bad_arguments_are_refused(self, lease: Lease) -> None:
        with pytest.raises(InvalidArgumentError):
            lease.acquire("../learner", "a", 10.0)
        with pytest.raises(ValueError, match="ttl_s"):
            lease.acquire("learner", "a", 0.0)
