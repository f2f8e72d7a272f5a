"""Simulated users look from the top and click what they want; memory has to find it out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forage.log import Event
from forage.log.interactions import examination_probability
from forage.retrieval import Filter, Query
from forage.settings import FeedbackSettings
from forage.testing import catalog
from forage.testing.bench import Bench
from forage.testing.interactions import decision, feedback
from forage.testing.projection_contract import ids
from forage.testing.retriever_contract import text_query
from generators.exploration.retriever import ExplorationRetriever
from generators.exploration.settings import ExplorationSettings
from generators.memory.retriever import MemoryRetriever
from generators.memory.settings import MemorySettings

NOW = 1_700_000_000.0
FILMS = tuple(item.item_id for item in catalog.items() if item.kind == "film")
RULES = FeedbackSettings()


class PositionBiasedUsers:
    """Users who look at position k with probability k^-decay and play what they want."""

    def __init__(self, wanted: dict[str, float], *, seed: int) -> None:
        self._wanted = wanted
        self._rng = np.random.default_rng(seed)
        self._searches = 0

    def search(self, query: Query, page: list[str]) -> list[Event]:
        """Return the events of one search and of what its user played."""
        self._searches += 1
        name = f"search-{self._searches}"
        events = [decision(name, query, page, time=NOW + self._searches)]
        for position, item_id in enumerate(page, 1):
            looked = self._rng.random() < examination_probability(position, RULES)
            if looked and self._rng.random() < self._wanted.get(item_id, 0.02):
                events.append(
                    feedback(
                        f"{name}-{position}",
                        name,
                        item_id,
                        time=NOW + self._searches,
                        kind="play",
                    )
                )
        return events


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(
        tmp_path,
        lambda folder, runtime: MemoryRetriever.open(
            MemorySettings(data_dir=folder, neighbours=False), runtime
        ),
    )
    bench.upsert(*catalog.items())
    bench.start()
    yield bench
    bench.close()


@pytest.mark.parametrize("seed", range(5))
def test_the_wanted_item_comes_first_though_it_is_always_shown_last(
    memory: Bench, seed: int
) -> None:
    query = replace(text_query("something to watch"), time=NOW + 1_000)
    wanted = FILMS[7]
    users = PositionBiasedUsers({wanted: 0.6, FILMS[0]: 0.25, FILMS[1]: 0.25}, seed=seed)
    page = [*FILMS[:7], *FILMS[8:10], wanted]

    memory.append(*(event for _ in range(200) for event in users.search(query, page)))

    assert memory.retrieve(query).hits[0].item_id == wanted


@pytest.mark.parametrize("seed", range(3))
def test_what_is_observed_displaces_what_was_predicted(memory: Bench, seed: int) -> None:
    query = replace(text_query("copper moon rising"), time=NOW + 1_000)
    predicted, wanted = "film:copper-moon-rising", "film:night-of-the-copper-moon"
    assert memory.retrieve(query).hits[0].item_id == predicted
    users = PositionBiasedUsers({wanted: 0.7, predicted: 0.05}, seed=seed)

    for _ in range(12):
        memory.append(*users.search(query, [predicted, *FILMS[10:13], wanted]))

    hits = memory.retrieve(query).hits
    assert hits[0].item_id == wanted
    assert hits[0].reasons[0].kind == "query"


def test_predictions_alone_find_what_nobody_has_asked_for_yet(memory: Bench) -> None:
    found = [
        item.item_id in ids(memory.retrieve(text_query(item.texts("title")[0]), limit=3).hits)
        for item in catalog.items()
    ]

    assert np.mean(found) > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_exploration_finds_the_unknown_favourite_and_then_rests(tmp_path: Path, seed: int) -> None:
    bench = Bench(
        tmp_path,
        lambda folder, runtime: ExplorationRetriever.open(
            ExplorationSettings(data_dir=folder), runtime
        ),
    )
    bench.upsert(*catalog.items())
    bench.start()
    favourite = "film:rain-dogs-of-valparin"  # the least popular of all
    users = PositionBiasedUsers({favourite: 0.7}, seed=seed)
    query = Query(filters=(Filter("kind", ("film",)),), time=NOW)

    firsts = []
    for search in range(250):
        page = ids(bench.retrieve(replace(query, seed=search, time=NOW + search), limit=5).hits)
        firsts.append(page[0])
        bench.append(*users.search(query, page))
    bench.close()

    # Before anything is known it is first about once in twenty searches.
    assert firsts[-60:].count(favourite) > 40
