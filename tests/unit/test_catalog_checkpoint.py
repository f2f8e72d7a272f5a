"""The catalogue on disk: what is read back is what was saved, and only what belongs there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.catalog import Item, Schema, Value
from forage.catalog.checkpoint import CatalogCheckpoint
from forage.catalog.columns import Columns, ragged, spans
from forage.catalog.view import CatalogView
from forage.log import Stream, Topic
from forage.log.sqlite import SqliteEventLog
from forage.retrieval import Filter
from forage.testing import catalog

SCHEMA = catalog.SCHEMA
_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
_texts_values = st.builds(
    Value, _texts, st.sampled_from([1.0, 0.5]), st.sampled_from(["", "genre:a"]), st.booleans()
)
_numbers = st.builds(Value, st.floats(allow_nan=False, allow_infinity=False))
_items = st.builds(
    Item,
    st.sampled_from(["film:1", "film:2", "person:1"]),
    st.sampled_from(["film", "person"]),
    st.fixed_dictionaries(
        {},
        optional={
            "title": st.tuples(_texts_values),
            "genre": st.lists(_texts_values, max_size=3).map(tuple),
            "year": st.lists(_numbers, max_size=2).map(tuple),
        },
    ),
)
FILTERS = (
    (),
    (Filter("kind", ("film",)),),
    (Filter("genre", ("genre:a",)),),
    (Filter("genre", ("a", "A")),),
    (Filter("year", minimum=0.0),),
)


def copied(columns: Columns) -> Columns:
    return Columns.from_bytes(columns.to_bytes())


@given(st.lists(st.one_of(_items, st.sampled_from(["film:1", "film:2"])), max_size=8), _items)
@settings(max_examples=60)
def test_a_view_that_was_read_back_is_the_same_and_goes_on(changes, later) -> None:
    view, loaded = CatalogView(SCHEMA), CatalogView(SCHEMA)
    for change in changes:
        view.apply([change] if isinstance(change, Item) else [], [change] * isinstance(change, str))

    loaded.load(copied(view.dump()))

    for _ in range(2):
        assert list(loaded.items()) == list(view.items())
        assert len(loaded) == len(view)
        assert [loaded.id_at(i) for i in range(loaded.size)] == [
            view.id_at(i) for i in range(view.size)
        ]
        for filters in FILTERS:
            assert loaded.filter(filters).tolist() == view.filter(filters).tolist()
        for each in (view, loaded):
            each.apply([later], ["film:2"])


def test_columns_come_back_under_their_prefixes() -> None:
    columns, part = Columns({"a": ["x", 1]}), Columns({"b": 2}, {"c": np.arange(3, dtype=np.int32)})
    columns.put("part", part)
    columns.put("empty", Columns(arrays={"none": np.zeros((0, 2))}))

    found = copied(columns)

    assert found.names["a"] == ["x", 1]
    assert found.part("part").names == {"b": 2}
    assert found.part("part").arrays["c"].tolist() == [0, 1, 2]
    assert found.part("empty").arrays["none"].shape == (0, 2)


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\0" * 7 + b"\2{}", b"\xff" * 40])
def test_other_bytes_are_no_columns(content: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        Columns.from_bytes(content)


def test_ragged_arrays_can_be_cut_again() -> None:
    lists = [np.array([1, 2]), np.array([], np.int64), np.array([3])]

    made = ragged(lists, np.int64)

    assert [made["content"][a:b].tolist() for a, b in spans(made["lengths"])] == [[1, 2], [], [3]]


class Saving:
    """A log, a view that follows it, and the checkpoint of both."""

    def __init__(self, folder: Path, schema: Schema = SCHEMA, log: str = "log.db") -> None:
        self.log = SqliteEventLog.open(folder / log)
        self.view = CatalogView(schema)
        self.checkpoint = CatalogCheckpoint(folder / "state", self.log, schema)

    def upsert(self, *items: Item) -> None:
        after = self.log.head(Topic.CATALOG)
        self.log.append([catalog.upsert(item) for item in items])
        self.view.apply(items)
        self.checkpoint.note(self.log.read(Topic.CATALOG, after, 1000)[-1], len(items))

    def save(self) -> None:
        self.checkpoint.save(self.view.dump())


def test_a_checkpoint_holds_the_state_and_its_place_in_the_log(tmp_path: Path) -> None:
    saving = Saving(tmp_path)
    saving.upsert(*catalog.items())

    saving.save()

    found = Saving(tmp_path).checkpoint.load()
    assert found is not None
    sequence, columns = found
    loaded = CatalogView(SCHEMA)
    loaded.load(columns)
    assert sequence == len(catalog.items())
    assert list(loaded.items()) == list(saving.view.items())


def test_it_is_written_anew_only_when_much_has_changed(tmp_path: Path) -> None:
    saving = Saving(tmp_path)
    items = catalog.items()
    assert not saving.checkpoint.due(0)

    saving.upsert(*items)

    assert saving.checkpoint.due(len(items))
    saving.save()
    saving.upsert(items[0])
    assert not saving.checkpoint.due(len(items))


def test_a_later_change_of_the_last_item_does_not_spoil_it(tmp_path: Path) -> None:
    saving = Saving(tmp_path)
    saving.upsert(*catalog.items())
    saving.save()

    saving.upsert(replace(catalog.items()[-1], attributes={"title": (Value("New"),)}))

    found = saving.checkpoint.load()
    assert found is not None
    assert found[0] == len(catalog.items())


def test_the_state_of_another_log_is_not_taken(tmp_path: Path) -> None:
    saving = Saving(tmp_path)
    saving.upsert(*catalog.items())
    saving.save()
    other = Saving(tmp_path, log="other.db")
    assert other.checkpoint.load() is None

    other.upsert(*reversed(catalog.items()))

    assert other.log.head(Topic.CATALOG) == saving.log.head(Topic.CATALOG)
    assert other.checkpoint.load() is None


def test_the_state_under_another_schema_is_not_taken(tmp_path: Path) -> None:
    saving = Saving(tmp_path)
    saving.upsert(*catalog.items())
    saving.save()
    schema = SCHEMA.model_copy(update={"kinds": (*SCHEMA.kinds, "poster")})

    assert Saving(tmp_path, schema).checkpoint.load() is None


def test_nothing_is_saved_before_anything_was_noted(tmp_path: Path) -> None:
    saving = Saving(tmp_path)

    saving.save()

    assert saving.checkpoint.load() is None
    assert saving.log.get(Stream.CATALOG, "film:1") is None
