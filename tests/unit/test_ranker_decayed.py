"""The ranker's decayed tables, and the keys of what they count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.decayed import DecayedTable
from ranker.digest import digest, paired

NOW = 1.7e9
DAY = 86_400.0


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 400)), min_size=1, max_size=30))
def test_decayed_sums_equal_the_definition_in_any_order(events: list[tuple[int, float]]) -> None:
    table = DecayedTable(1, capacity=1_000, half_life=DAY)
    end = max(day for _, day in events)

    for key, day in events:
        table.add(np.array([key], np.uint64), np.ones((1, 1)), NOW + day * DAY)

    keys = np.arange(5, dtype=np.uint64)
    expected = [sum(2.0 ** (day - end) for k, day in events if k == key) for key in range(5)]
    found = table.get(keys, NOW + end * DAY)[:, 0]
    assert found.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_a_table_outlives_a_thousand_half_lives() -> None:
    table = DecayedTable(1, capacity=1_000, half_life=1.0)
    key = np.array([7], np.uint64)
    for time in (0.0, 400.0, 900.0, 5_000.0):
        table.add(key, np.ones((1, 1)), time)

    assert table.get(key, 5_001.0).item() == pytest.approx(0.5)
    assert table.get(key, 1e12).item() == pytest.approx(0.0)


@pytest.mark.parametrize("known", [0, 1, 1_023, 1_024, 1_025])
def test_an_unknown_key_has_nothing_however_many_are_known(known: int) -> None:
    table = DecayedTable(1, capacity=10_000, half_life=DAY)
    table.add(np.arange(known, dtype=np.uint64), np.ones((known, 1)), 0.0)

    assert table.get(np.array([10**9], np.uint64), 0.0).tolist() == [[0.0]]


def test_a_full_table_keeps_what_was_examined_most() -> None:
    table = DecayedTable(1, capacity=100, half_life=DAY)
    for key in range(101):
        table.add(np.array([key], np.uint64), np.array([[1.0 + key % 2]]), 0.0)

    kept = table.get(np.arange(101, dtype=np.uint64), 0.0)[:, 0]

    assert len(table) == 51
    assert kept[1:100:2].tolist() == [2.0] * 50
    assert kept[100] == 1.0


def test_pairs_of_keys_do_not_collide_and_are_stable() -> None:
    keys = np.array([digest(f"item:{i}") for i in range(1_000)], np.uint64)

    pairs = np.concatenate([paired(keys, digest(name)) for name in ("a", "b")])

    assert len(set(pairs.tolist())) == 2_000
    assert digest("item:0") == int(keys[0])
