"""The in-memory catalogue, held to the slow meaning of filters."""

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from forage.catalog import Item, Schema, Value, matches, validate
from forage.catalog.view import CatalogView
from forage.errors import InvalidArgumentError
from forage.retrieval import Filter

SCHEMA = Schema.load(Path(__file__).parents[2] / "config" / "films.schema.yaml")

_names = st.sampled_from(["Drama", "drama", "DRAMA", "War", "straße", "STRASSE", "genre:war", ""])
_ids = st.sampled_from(["film:1", "film:2", "film:3", "person:1"])
_weights = st.sampled_from([1.0, 0.5])
_keyword = st.builds(
    Value, _names.filter(bool), _weights, st.sampled_from(["", "genre:war", "Drama"]), st.booleans()
)
_number = st.builds(Value, st.sampled_from([-1.0, 0.0, 1.5, 2000.0]))
_items = st.builds(
    Item,
    _ids,
    st.sampled_from(["film", "person"]),
    st.fixed_dictionaries(
        {},
        optional={
            "title": st.just((Value("A title"),)),
            "genre": st.lists(_keyword, min_size=1, max_size=3).map(tuple),
            "cast": st.lists(_keyword, max_size=2).map(tuple),
            "year": st.lists(_number, max_size=2).map(tuple),
            "popularity": st.tuples(_number),
        },
    ),
)
_bounds = st.sampled_from([None, -1.0, 0.0, 1.0, 1.5, 2000.0])
_values = st.lists(_names, min_size=1, max_size=3).map(tuple)
_filters = st.one_of(
    st.builds(Filter, st.sampled_from(["genre", "cast"]), _values, exclude=st.booleans()),
    st.builds(
        Filter,
        st.just("kind"),
        st.lists(st.sampled_from(["film", "person", "Film"]), min_size=1).map(tuple),
        exclude=st.booleans(),
    ),
    st.tuples(st.sampled_from(["year", "popularity"]), _bounds, _bounds, st.booleans())
    .filter(lambda t: not t[1] is t[2] is None)
    .filter(lambda t: t[1] is None or t[2] is None or t[1] <= t[2])
    .map(lambda t: Filter(t[0], minimum=t[1], maximum=t[2], exclude=t[3])),
)


class ViewMachine(RuleBasedStateMachine):
    """Upserts and deletes in any order, against a plain dict and `matches`."""

    def __init__(self) -> None:
        super().__init__()
        self.view = CatalogView(SCHEMA)
        self.model: dict[str, Item] = {}
        self.indices: dict[str, int] = {}

    @rule(upserts=st.lists(_items, max_size=4), deletes=st.lists(_ids, max_size=2))
    def apply(self, upserts: list[Item], deletes: list[str]) -> None:
        self.view.apply(upserts, deletes)
        self.model.update({item.item_id: item for item in upserts})
        for item_id in deletes:
            self.model.pop(item_id, None)

    @rule(filters=st.lists(_filters, max_size=3))
    def filter_agrees_with_matches(self, filters: list[Filter]) -> None:
        validate(filters, SCHEMA)
        mask = self.view.filter(filters)
        found = {self.view.id_at(i) for i in mask.nonzero()[0]}
        assert found == {i for i, item in self.model.items() if matches(item, filters)}

    @invariant()
    def holds_exactly_the_items(self) -> None:
        assert {item.item_id: item for item in self.view.items()} == self.model
        assert len(self.view) == len(self.model)
        for item_id in ("film:1", "film:2", "film:3", "person:1"):
            assert self.view.get(item_id) == self.model.get(item_id)
            assert (item_id in self.view) == (item_id in self.model)

    @invariant()
    def an_index_never_changes(self) -> None:
        for item_id in self.model:
            index = self.view.index_of(item_id)
            assert index is not None
            assert self.indices.setdefault(item_id, index) == index
            assert self.view.at(index) == self.model[item_id]
        assert len(set(self.indices.values())) == len(self.indices)


TestView = ViewMachine.TestCase
TestView.settings = settings(max_examples=40, stateful_step_count=15)


def _item(number: int, genre: str) -> Item:
    year = (Value(float(number)),)
    return Item(f"film:{number}", "film", {"genre": (Value(genre, 0.5),), "year": year})


def test_long_posting_lists_are_right_through_growth_and_removal() -> None:
    view = CatalogView(SCHEMA)
    view.apply(_item(n, "War" if n % 2 else "Drama") for n in range(3000))

    view.apply(
        [_item(n, "Drama") for n in range(0, 1000)], [f"film:{n}" for n in range(2000, 3000)]
    )

    found = {view.id_at(i) for i in view.filter([Filter("genre", ("war",))]).nonzero()[0]}
    assert found == {f"film:{n}" for n in range(1001, 2000, 2)}
    assert view.filter([Filter("year", minimum=1990)]).sum() == 10
    assert len(view) == 2000
    assert view.size == 3000


def test_any_of_several_numbers_may_be_in_the_range() -> None:
    view = CatalogView(SCHEMA)
    years = [(1950.0,), (1950.0, 2001.0), (), (2001.0,), (2001.0, 1950.0)]
    view.apply(
        Item(f"film:{n}", "film", {"year": tuple(map(Value, found))})
        for n, found in enumerate(years)
    )

    recent = view.filter([Filter("year", minimum=2000)])
    early = view.filter([Filter("year", maximum=1960)])

    assert recent.tolist() == [False, True, False, True, True]
    assert early.tolist() == [True, True, False, False, True]


@given(_items)
def test_an_item_comes_back_equal_and_unchanged(item: Item) -> None:
    view = CatalogView(SCHEMA)
    view.apply([item])

    kept = view.get(item.item_id)

    assert kept == item
    assert kept is not None
    assert dict(kept.attributes) == dict(item.attributes)
    assert kept.values("runtime") == ()


@pytest.mark.parametrize(
    "wanted", [Filter("colour", ("red",)), Filter("title", ("a",)), Filter("year", ("1988",))]
)
def test_a_filter_it_cannot_carry_out_is_refused(wanted: Filter) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be filtered"):
        CatalogView(SCHEMA).filter([wanted])


def test_readers_never_see_half_of_a_batch() -> None:
    view = CatalogView(SCHEMA)
    view.apply(_item(n, "War") for n in range(200))
    done = threading.Event()
    wrong: list[int] = []

    def read() -> None:
        while not done.is_set():
            count = int(view.filter([Filter("genre", ("War",))]).sum())
            if count not in (0, 200):
                wrong.append(count)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(40):
        view.apply([_item(n, "Drama" if turn % 2 == 0 else "War") for n in range(200)])
    done.set()
    for reader in readers:
        reader.join()

    assert wrong == []
