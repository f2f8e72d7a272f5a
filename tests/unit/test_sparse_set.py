"""A sparse set is a dictionary from members to the order of their arrival."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from generators.sparse_set import SparseSet

LIMIT = 12
_values = st.lists(st.integers(0, LIMIT - 1), max_size=20)


@given(st.lists(st.lists(_values, max_size=4), max_size=4))
def test_each_member_has_one_number_until_the_set_is_cleared(rounds: list[list[list[int]]]) -> None:
    members = SparseSet()

    for batches in rounds:
        members.clear(LIMIT)
        known: dict[int, int] = {}
        for batch in batches:
            numbers = members.numbers(np.array(batch, np.int64)).tolist()
            for value, number in zip(batch, numbers, strict=True):
                assert known.setdefault(value, number) == number
            assert sorted(known.values()) == list(range(len(known)))
            assert len(members) == len(known)
            assert members.members.tolist() == sorted(known, key=known.__getitem__)


@given(_values)
def test_distinct_values_are_numbered_in_their_order(values: list[int]) -> None:
    distinct = list(dict.fromkeys(values))
    members = SparseSet()
    members.clear(LIMIT)

    assert members.numbers(np.array(distinct, np.int64)).tolist() == list(range(len(distinct)))


def test_the_limit_may_grow() -> None:
    members = SparseSet()
    members.clear(2)
    members.numbers(np.array([1]))

    members.clear(5_000)

    assert members.numbers(np.array([4_999, 1, 4_999])).tolist() in ([0, 1, 0], [1, 0, 1])
