"""What every candidate generator owes the log: live, durable and rebuilt state, as tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from forage.catalog.item import Item, Value
from forage.log.snapshots import portable
from forage.retrieval import Deadline, Filter, Hit, Query
from forage.services import Runtime
from forage.testing import catalog
from forage.testing.bench import WAIT_S, Bench, Generator


class ProjectionContract:
    """The promises of a generator's projections, seen through what the generator finds.

    Inherit `RetrieverContract`, which includes this.
    """

    def open_generator(self, data_dir: Path, runtime: Runtime) -> Generator:
        """Return the generator, as its service opens it, with `settings.data_dir = data_dir`."""
        raise NotImplementedError

    def prepare(self, bench: Bench) -> None:
        """Fill the log before the generator starts; extend it to append interactions."""
        bench.upsert(*catalog.items())

    def twin(self, best: Item) -> Item:
        """Return a new item that must be found where `best` is; by default its copy."""
        return replace(best, item_id=f"{best.item_id}-twin")

    @pytest.fixture
    def query(self) -> Query:
        """Give a query that finds several items of the fixture catalogue, among them a film."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def shared_bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
        """Give a running bench to tests that change nothing."""
        yield from cls()._run(tmp_path_factory.mktemp("shared"))

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[Bench]:
        """Give a running bench to one test that changes it."""
        yield from self._run(tmp_path)

    @pytest.fixture
    def generator(self, shared_bench: Bench) -> Generator:
        """Give the generator of the shared bench."""
        return shared_bench.generator

    def _run(self, data_dir: Path) -> Iterator[Bench]:
        bench = Bench(data_dir, self.open_generator)
        try:
            self.prepare(bench)
            bench.start()
            yield bench
        finally:
            bench.close()

    def test_a_deleted_item_is_not_found(self, bench: Bench, query: Query) -> None:
        best = bench.retrieve(query).hits[0].item_id

        bench.delete(best)

        assert best not in ids(bench.retrieve(query).hits)

    def test_a_new_item_is_found(self, bench: Bench, query: Query) -> None:
        twin = self.twin(bench.items[bench.retrieve(query).hits[0].item_id])

        bench.upsert(twin)

        assert twin.item_id in ids(bench.retrieve(query, limit=200).hits)

    def test_an_item_deleted_and_put_back_is_found(self, bench: Bench, query: Query) -> None:
        best = bench.items[bench.retrieve(query).hits[0].item_id]
        bench.delete(best.item_id)

        bench.upsert(best)

        assert best.item_id in ids(bench.retrieve(query, limit=200).hits)

    def test_filters_see_the_new_values_of_an_item(self, bench: Bench, query: Query) -> None:
        films = (Filter("kind", ("film",)),)
        best = bench.items[bench.retrieve(replace(query, filters=films)).hits[0].item_id]
        changed = replace(best, attributes={**best.attributes, "year": (Value(2077.0),)})

        bench.upsert(changed)

        later = (Filter("year", minimum=2077.0),)
        earlier = (Filter("year", maximum=2076.0),)
        assert ids(bench.retrieve(replace(query, filters=later)).hits) == [best.item_id]
        hits = bench.retrieve(replace(query, filters=earlier)).hits
        assert best.item_id not in ids(hits)

    def test_an_item_with_nothing_but_a_title_is_taken_in(self, bench: Bench, query: Query) -> None:
        bench.upsert(Item("film:bare", "film", {"title": (Value("Lantern"),)}))
        bench.upsert(Item("film:long", "film", {"title": (Value("lantern " * 12_000),)}))

        assert bench.retrieve(query, limit=200).hits

    def test_a_restart_restores_the_state_and_the_answers(self, bench: Bench, query: Query) -> None:
        self._change(bench, query)
        before = bench.retrieve(query)

        bench.stop()

        assert bench.unrestored() == []
        bench.start()
        _assert_same(before.hits, bench.retrieve(query).hits)

    def test_a_deleted_folder_is_rebuilt_with_the_same_answers(
        self, bench: Bench, query: Query
    ) -> None:
        self._change(bench, query)
        before = bench.retrieve(query)
        bench.stop()
        assert bench.folders(), "the projections keep their state in folders of data_dir"

        bench.delete_folders()

        bench.start()
        _assert_same(before.hits, bench.retrieve(query).hits)

    def test_a_replica_starts_from_a_snapshot_then_the_tail_with_the_same_answers(
        self, bench: Bench, query: Query, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "forage.log")
        bench.restart(snapshots=True)
        names = [p.name for p in bench.generator.projections if portable(p)]
        if not names:
            pytest.skip("its state is on a server, which replicas share")
        _until(lambda: all(f"of projection {n}: sequence" in caplog.text for n in names))
        bench.stop()
        # The tail: what the snapshot does not include.
        bench.start()
        self._change(bench, query)
        before = bench.retrieve(query)
        bench.stop()
        bench.delete_folders()

        bench.start(snapshots=True)

        assert [n for n in names if f"projection {n} starts from snapshot" not in caplog.text] == []
        _assert_same(before.hits, bench.retrieve(query).hits)

    @pytest.mark.parametrize("damage", ["truncated", "overwritten", "emptied", "removed"])
    @pytest.mark.parametrize("which", ["the largest file", "every file"])
    def test_damaged_files_are_rebuilt_with_the_same_answers(
        self, bench: Bench, query: Query, damage: str, which: str
    ) -> None:
        before = bench.retrieve(query)
        bench.stop()
        files = [p for f in bench.folders() for p in sorted(f.rglob("*")) if p.is_file()]
        assert files, "the projections keep their state in files"

        chosen = files if which == "every file" else [max(files, key=lambda p: p.stat().st_size)]
        for path in chosen:
            _damage(path, damage)

        bench.start()
        _assert_same(before.hits, bench.retrieve(query).hits)

    def _change(self, bench: Bench, query: Query) -> None:
        """Update and delete, so that a rebuild sees a compacted log and not the same history."""
        hits = bench.retrieve(query).hits
        first, last = bench.items[hits[0].item_id], hits[-1].item_id
        bench.upsert(replace(first, attributes={**first.attributes, "year": (Value(2001.0),)}))
        bench.upsert(first)
        bench.delete(last)


def ids(hits: Sequence[Hit]) -> list[str]:
    """Return the item ids of hits, in order."""
    return [h.item_id for h in hits]


def _until(condition: Callable[[], bool]) -> None:
    deadline = Deadline.after(WAIT_S)
    while not condition():
        deadline.check()
        threading.Event().wait(0.01)


def _assert_same(before: Sequence[Hit], after: Sequence[Hit]) -> None:
    assert ids(after) == ids(before)
    assert [h.score for h in after] == pytest.approx([h.score for h in before], rel=1e-5)


def _damage(path: Path, damage: str) -> None:
    size = path.stat().st_size
    if damage == "truncated":
        with path.open("r+b") as file:
            file.truncate(size // 2)
    elif damage == "overwritten":
        path.write_bytes(b"\x9f\x00garbage" * (size // 9 + 1))
    elif damage == "emptied":
        path.write_bytes(b"")
    else:
        path.unlink()
