"""The server is killed, restarted and paused: searches fail quickly, and nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from forage.errors import UnavailableError
from forage.retrieval import Deadline
from forage.testing.retriever_contract import text_query
from tests.milvus.replicas import Replica, Replicas
from tests.milvus.server import MilvusServer
from tests.waiting import eventually

QUERY = text_query("a lonely astronaut in space")
_BACK_S = 90.0


@pytest.fixture
def replicas(tmp_path: Path, server: MilvusServer) -> Iterator[Replicas]:
    made = Replicas(tmp_path, server.uri)
    yield made
    made.close(server_runs=False)


def _fails(replica: Replica, seconds: float) -> float:
    began = time.monotonic()
    with pytest.raises(UnavailableError):
        replica.retriever.retrieve(QUERY, 10, Deadline.after(seconds))
    return time.monotonic() - began


def _answers(replica: Replica) -> bool:
    try:
        return bool(replica.find(QUERY, seconds=2.0))
    except UnavailableError:
        return False


@pytest.mark.timeout(240)
def test_after_a_kill_and_a_restart_everything_is_there(
    replicas: Replicas, server: MilvusServer
) -> None:
    writing = replicas.replica("both").start().catch_up()
    serving = replicas.replica("serve").start().catch_up()
    before = serving.find(QUERY)
    film = replicas.items[before[0]]
    acknowledged = [replace(film, item_id=f"film:written-{n}") for n in range(50)]
    replicas.upsert(*acknowledged)
    writing.catch_up()

    server.kill()
    failed = max(_fails(serving, 0.3), _fails(writing, 0.3), _fails(serving, 0.3))
    late = [replace(film, item_id=f"film:late-{n}") for n in range(50)]
    replicas.upsert(*late)
    replicas.delete(before[-1])
    server.start()
    began = time.monotonic()
    eventually(lambda: _answers(serving), _BACK_S)
    answered = time.monotonic() - began
    eventually(lambda: serving.lag == 0 and writing.lag == 0, _BACK_S)
    caught_up = time.monotonic() - began

    wanted = set(replicas.items)
    assert set(serving.find(QUERY, 1_000)) == set(writing.find(QUERY, 1_000)) == wanted
    assert failed < 1.0
    print(
        f"failed in {failed:.2f} s, answered {answered:.1f} s and caught up {caught_up:.1f} s later"
    )


@pytest.mark.timeout(240)
def test_a_server_that_hangs_delays_no_search_beyond_its_deadline(
    replicas: Replicas, server: MilvusServer
) -> None:
    writing = replicas.replica("both").start().catch_up()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        took = [_fails(writing, 0.3) for _ in range(3)]
        replicas.upsert(replace(replicas.items["film:a-quiet-orbit"], item_id="film:later"))
        eventually(lambda: writing.follower.status()[0].last_error)
    finally:
        os.kill(server.pid, signal.SIGCONT)

    eventually(lambda: writing.lag == 0, _BACK_S)

    assert "film:later" in writing.find(QUERY)
    assert max(took) < 0.8


@pytest.mark.timeout(240)
def test_a_kill_in_the_middle_of_indexing_loses_nothing(
    replicas: Replicas, server: MilvusServer
) -> None:
    film = replicas.items["film:a-quiet-orbit"]
    replicas.upsert(*(replace(film, item_id=f"film:bulk-{n}") for n in range(3_000)))
    writing = replicas.replica("both").start()
    eventually(lambda: writing.retriever.entries()["semantic"] > 500)

    server.kill()
    server.start()
    eventually(lambda: writing.lag == 0, _BACK_S)

    assert writing.retriever._store.settle() == len(replicas.items)
