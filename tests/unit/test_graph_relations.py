"""Relations that were corrected, change by change, are those of a graph built at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.catalog.item import Item, Value
from generators.graph import relations
from generators.graph.nodes import NodeTable
from generators.graph.relations import RelationIndex, RelationSnapshot

IDS = [f"i:{n}" for n in range(6)]
WEIGHTS = {"director": 2.0, "ignored": 0.0}
_values = st.lists(
    st.builds(Value, st.just("name"), st.sampled_from([0.5, 1.0]), st.sampled_from(IDS)), max_size=3
)
_items = st.builds(
    lambda item_id, cast, director, ignored, popularity: Item(
        item_id,
        "film",
        {
            "cast": tuple(cast),
            "director": tuple(director),
            "ignored": tuple(ignored),
            "popularity": (Value(popularity),),
        },
    ),
    st.sampled_from(IDS),
    _values,
    _values,
    _values,
    st.sampled_from([0.0, 0.7]),
)
_batches = st.lists(st.lists(st.one_of(_items, st.sampled_from(IDS)), max_size=4), max_size=8)


class Catalogue:
    """Items by id and an index of their relations, kept up to date together."""

    def __init__(self) -> None:
        self.nodes = NodeTable()
        self.index = RelationIndex(self.nodes, WEIGHTS, "popularity")
        self.items: dict[str, Item] = {}

    def take_in(self, changes: list[Item | str]) -> None:
        """Upsert the items, and delete those of which only the id is given."""
        for change in changes:
            item_id, new = (change, None) if isinstance(change, str) else (change.item_id, change)
            old = self.items.pop(item_id, None)
            if new is not None:
                self.items[item_id] = new
            self.index.replace(IDS.index(item_id), old, new)
        self.index.commit()

    def facts(self) -> dict[str, object]:
        """Return what the snapshot says, by ids instead of node numbers."""
        snapshot, number = self.index.snapshot, self.nodes.find
        nodes = [node for item_id in IDS if (node := number(item_id)) is not None]
        nodes = [node for node in nodes if node < snapshot.adjacency.size]
        return {
            "edges": edges(snapshot, self.nodes, np.array(nodes, np.int64)),
            "rows": {
                (self.nodes.key(node), self.nodes.key(other)): weight
                for node in nodes
                for other, weight in zip(*map(list, snapshot.adjacency.row(node)), strict=True)
            },
            "strength": {
                self.nodes.key(n): s for n in nodes if (s := snapshot.adjacency.strength[n])
            },
            "popularity": {self.nodes.key(n): p for n in nodes if (p := snapshot.popularity[n])},
            "items": {i: int(snapshot.view_index[number(i)]) for i in self.items},
            "count": snapshot.adjacency.edge_count,
        }


def edges(
    snapshot: RelationSnapshot, nodes: NodeTable, of: np.ndarray
) -> dict[tuple[str, str], float]:
    owners, targets, weights = snapshot.adjacency.edges(of)
    return {
        (nodes.key(int(of[owner])), nodes.key(int(target))): float(weight)
        for owner, target, weight in zip(owners, targets, weights, strict=True)
    }


@pytest.fixture(params=[0, 250], ids=["always corrected", "corrected while that is cheaper"])
def corrected(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relations, "_ENTRIES_A_ROW", request.param)


@pytest.mark.usefixtures("corrected")
@given(_batches)
def test_a_corrected_graph_is_the_one_built_at_once(batches: list[list[Item | str]]) -> None:
    step_by_step = Catalogue()
    for changes in batches:
        step_by_step.take_in(changes)

    at_once = Catalogue()
    at_once.take_in(list(step_by_step.items.values()))
    at_once.index.snapshot = at_once.index._built()

    found, wanted = step_by_step.facts(), at_once.facts()
    for name in ("edges", "rows", "strength", "popularity"):
        assert found[name] == pytest.approx(wanted[name]), name
    assert found["items"] == wanted["items"]
    assert found["count"] == wanted["count"] == len(wanted["edges"]) / 2


def test_a_reader_keeps_the_graph_that_it_began_with() -> None:
    catalogue = Catalogue()
    many = [
        Item(i, "film", {"cast": tuple(Value("x", 1.0, o) for o in IDS if o != i)}) for i in IDS
    ]
    catalogue.take_in(many)
    before = catalogue.index.snapshot
    nodes = np.array([catalogue.nodes.number(i) for i in IDS])
    edges_before = edges(before, catalogue.nodes, nodes)

    catalogue.take_in([IDS[0], Item("i:1", "film", {})])

    assert edges(before, catalogue.nodes, nodes) == edges_before
    assert catalogue.index.snapshot.adjacency.edge_count < before.adjacency.edge_count


@pytest.mark.parametrize("at_once", [497, 7])
def test_few_changes_correct_a_large_graph_and_many_build_it_anew(at_once: int) -> None:
    nodes = NodeTable()
    index = RelationIndex(nodes, {}, None)
    for n in range(2_000):
        cast = tuple(Value("x", 1.0, f"p:{(n + k) % 1_000}") for k in range(5))
        index.replace(n, None, Item(f"f:{n}", "film", {"cast": cast}))
    index.commit()
    compressed = index.snapshot.adjacency._targets

    def change(numbers: range) -> None:
        for n in numbers:
            cast = (Value("x", 1.0, f"p:{n % 1_000}"),)
            index.replace(n, None, Item(f"f:{n}", "film", {"cast": cast}))
        index.commit()

    change(range(3))
    assert index.snapshot.adjacency._targets is compressed
    assert index.snapshot.adjacency.edge_count == 10_000 - 3 * 4

    for first in range(3, 500, at_once):
        change(range(first, first + at_once))
    assert index.snapshot.adjacency._targets is not compressed
    assert index.snapshot.adjacency.edge_count == 10_000 - 500 * 4
