"""Load: the budget narrows between two limits, and beyond the second there is no admission."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from pydantic import ValidationError

from forage.errors import OverloadedError
from orchestrator.load import Load
from orchestrator.settings import LoadSettings

SETTINGS = LoadSettings(soft_limit=2, hard_limit=6, least_budget_share=0.5)


def test_the_budget_narrows_evenly_from_the_soft_to_the_hard_limit():
    load, shares = Load(SETTINGS), []
    with ExitStack() as searches:
        for _ in range(6):
            searches.enter_context(load.admitted())
            shares.append(load.budget_share)

    assert shares == pytest.approx([1.0, 1.0, 0.875, 0.75, 0.625, 0.5])
    assert load.budget_share == 1.0


def test_narrowed_says_whether_the_budget_is_less_than_whole():
    load = Load(SETTINGS)
    with load.admitted(), load.admitted():
        assert not load.narrowed
        with load.admitted():
            assert load.narrowed


def test_beyond_the_hard_limit_a_search_is_refused_and_not_counted():
    load = Load(SETTINGS)
    with ExitStack() as searches:
        for _ in range(6):
            searches.enter_context(load.admitted())
        for _ in range(3):
            with pytest.raises(OverloadedError) as refused:
                searches.enter_context(load.admitted())
            assert refused.value.metadata == {"limit": "6"}

    with ExitStack() as searches:
        for _ in range(6):
            searches.enter_context(load.admitted())


def test_a_search_that_fails_is_counted_out():
    load = Load(SETTINGS)
    for _ in range(20):
        with pytest.raises(RuntimeError), load.admitted():
            raise RuntimeError("the search failed")

    assert load.budget_share == 1.0


def test_the_soft_limit_is_below_the_hard_one():
    with pytest.raises(ValidationError, match="soft_limit must be below hard_limit"):
        LoadSettings(soft_limit=5, hard_limit=5)
