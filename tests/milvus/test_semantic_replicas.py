"""Several processes on one collection: one writes, all search."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from forage.catalog.item import Value
from forage.errors import UnavailableError
from forage.lease import FileLease
from forage.log import Topic
from forage.retrieval import Deadline
from forage.testing.retriever_contract import text_query
from tests.milvus.replicas import Replicas
from tests.milvus.server import MilvusServer
from tests.waiting import eventually

QUERY = text_query("a lonely astronaut in space")


@pytest.fixture
def replicas(tmp_path: Path, shared_server: MilvusServer) -> Iterator[Replicas]:
    made = Replicas(tmp_path, shared_server.uri)
    yield made
    made.close()


class Stolen(FileLease):
    """A lease that another takes from its holder the next time that it would be renewed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.steal_in = -1

    def acquire(self, name: str, holder: str, ttl_s: float) -> bool:
        self.steal_in -= 1
        if self.steal_in == 0:
            super().release(name, holder)
            return False
        return super().acquire(name, holder, ttl_s)


def test_of_two_processes_that_may_write_one_embeds(replicas: Replicas) -> None:
    first = replicas.replica("both").start()
    second = replicas.replica("both").start()

    first.catch_up()
    second.catch_up()

    assert first.find(QUERY) == second.find(QUERY) != []
    assert sorted([first.embedded(), second.embedded()]) == [0, len(replicas.items)]
    assert (
        first.retriever.entries() == second.retriever.entries() == {"semantic": len(replicas.items)}
    )


def test_a_serving_process_embeds_nothing_and_sees_changes_within_a_second(
    replicas: Replicas,
) -> None:
    replicas.replica("index").start().catch_up()
    serving = replicas.replica("serve").start().catch_up()
    best = replicas.items[serving.find(QUERY)[0]]
    twin = replace(best, item_id="film:twin")

    replicas.upsert(twin)
    appeared = eventually(lambda: "film:twin" in serving.find(QUERY))
    replicas.delete("film:twin")
    vanished = eventually(lambda: "film:twin" not in serving.find(QUERY))

    assert serving.embedded() == 0
    assert max(appeared, vanished) < 3.0, (appeared, vanished)
    print(f"visible after {appeared:.2f} s, gone after {vanished:.2f} s")


def test_a_serving_process_reports_its_lag_while_nobody_writes(replicas: Replicas) -> None:
    serving = replicas.replica("serve").start()
    with pytest.raises(UnavailableError, match="not there yet"):
        serving.find(QUERY)
    assert serving.lag == replicas.log.head(Topic.CATALOG)
    eventually(lambda: "role: index or both" in serving.follower.status()[0].last_error)

    replicas.replica("index").start()

    serving.catch_up()
    assert serving.lag == 0
    assert serving.find(QUERY)
    assert serving.follower.caught_up.is_set()


def test_a_process_that_only_indexes_answers_no_search(replicas: Replicas) -> None:
    indexing = replicas.replica("index").start().catch_up()

    with pytest.raises(UnavailableError, match="role: index"):
        indexing.retriever.retrieve(QUERY, 5, Deadline.after(5.0))


def test_another_takes_over_from_a_killed_writer(replicas: Replicas) -> None:
    first = replicas.replica("both").start().catch_up()
    second = replicas.replica("both").start().catch_up()
    first.abandon()
    replicas.upsert(replace(replicas.items["film:a-quiet-orbit"], item_id="film:later"))

    took = eventually(lambda: "film:later" in second.find(QUERY))

    assert second.embedded() == 1, "what the other had written is not embedded again"
    print(f"taken over after {took:.1f} s")
    assert took < 12.0


def test_a_writer_that_stops_gives_the_lease_back(replicas: Replicas) -> None:
    first = replicas.replica("both").start().catch_up()
    second = replicas.replica("both").start().catch_up()
    first.stop()
    replicas.upsert(replace(replicas.items["film:a-quiet-orbit"], item_id="film:later"))

    assert eventually(lambda: "film:later" in second.find(QUERY)) < 5.0


def test_what_was_written_without_the_lease_is_written_again(
    replicas: Replicas, tmp_path: Path
) -> None:
    lease = Stolen(tmp_path / "leases")
    slow = replicas.replica("both", lease=lease).start().catch_up()
    film = replicas.items["film:a-quiet-orbit"]
    lease.steal_in = 2
    replicas.upsert(replace(film, attributes={**film.attributes, "year": (Value(2050.0),)}))

    slow.catch_up()

    assert lease.steal_in < 0
    assert slow.find(QUERY)[0] == film.item_id


def test_a_position_that_went_back_is_caught_up_from_the_log(replicas: Replicas) -> None:
    first = replicas.replica("both").start().catch_up()
    store = first.retriever._store
    state = store.state()
    assert state is not None
    store.delete(list(replicas.items))
    store.settle()
    store.save(replace(state, sequence=0))

    replicas.upsert(replace(replicas.items["film:a-quiet-orbit"], item_id="film:later"))
    first.catch_up()

    assert set(first.find(QUERY)) == set(replicas.items)


def test_a_replica_started_later_embeds_nothing(replicas: Replicas) -> None:
    replicas.replica("both").start().catch_up()

    began = time.monotonic()
    second = replicas.replica("both").start()

    assert second.follower.caught_up.is_set()
    assert second.embedded() == 0
    assert time.monotonic() - began < 5.0
